# shellcheck shell=bash
# Real Kubernetes, built from the Go modules upstream publishes, laid out as `clusterctl bundle create --from` reads it.
# Every part is built once and kept in the cache under its versions and recipe; an interrupted run starts again where it
# was (Go's own build cache keeps the rest).

KUBERNETES_DEFAULT=1.36.3
CONTAINERD=v2.3.7
RUNC=v1.4.3
CNI_PLUGINS=v1.9.1
# Debian release that gives kube-proxy its iptables and nft, as the hosts have.
USERLAND=trixie

kubernetes_command() {
  local version=${1:-$KUBERNETES_DEFAULT}
  version=${version#v}
  [[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || die "a Kubernetes version looks like 1.36.3, not '$version'"
  local out stamp
  out="$CACHE/kubernetes/$version-$(arch)"
  stamp=$(kubernetes_recipe "$version")
  if [ "$(cat "$out/.recipe" 2>/dev/null)" != "$stamp" ]; then
    need flock util-linux
    with_lock kubernetes kubernetes_build "$version" "$out" "$stamp"
  fi
  printf '%s\n' "$out"
}

# Changes whenever the result would: the versions and the text of everything that builds.
kubernetes_recipe() {
  { echo "$1"; cat "$BED_HOME"/lib/kubernetes.sh "$BED_HOME"/lib/archive.sh "$BED_HOME"/kubernetes/*; } | short_hash
}

kubernetes_build() {
  local version=$1 out=$2 stamp=$3
  [ "$(cat "$out/.recipe" 2>/dev/null)" != "$stamp" ] || return 0 # another bed built it while we waited
  type -P go >/dev/null || die "building Kubernetes needs Go (the version its go.mod names, or any from 1.21 on that may fetch it)"
  need gcc gcc
  need jq jq
  need pkg-config pkg-config
  need_file /usr/include/stdlib.h libc6-dev
  need_file /usr/include/seccomp.h libseccomp-dev
  mkdir -p "$CACHE/parts" "$CACHE/build" "$CACHE/log"

  part runc "$RUNC" build_runc
  local runc=$PART
  part cni "$CNI_PLUGINS" build_cni
  local cni=$PART
  part containerd "$CONTAINERD" build_containerd
  local containerd=$PART
  kubernetes_pins "$version"
  part pause "$PAUSE_TAG" build_pause
  local pause=$PART
  part etcd "v${ETCD_TAG%-*}" build_etcd
  local etcd=$PART
  part kubernetes "v$version" build_kubernetes
  local kubernetes=$PART
  part userland "$USERLAND" build_userland
  local userland=$PART
  part coredns "$COREDNS_TAG" build_coredns
  local coredns=$PART

  local dir="$out.tmp.$$"
  forget_later "$dir"
  mkdir -p "$dir"/{bin,cni,images,upstream}
  echo "v$version" >"$dir/VERSION"
  cp "$kubernetes"/{kubelet,kubectl} "$containerd"/{containerd,containerd-shim-runc-v2,ctr} "$runc/runc" "$dir/bin/"
  cp "$cni"/{bridge,host-local,loopback,portmap,ptp} "$dir/cni/"
  cp "$kubernetes/kubeadm" "$dir/upstream/"

  say "images of $version"
  local root="$dir/root"
  layer_start "$root"
  mkdir -p "$root/usr/local/bin" "$root/tmp" "$root/etc/ssl/certs"
  cp "$kubernetes/control-plane" "$root/usr/local/bin/control-plane"
  local name
  for name in kube-apiserver kube-controller-manager kube-scheduler; do
    ln -s control-plane "$root/usr/local/bin/$name"
  done
  image_archive "$dir/images/control-plane.tar" "$root" '{}' \
    "registry.k8s.io/kube-apiserver:v$version" \
    "registry.k8s.io/kube-controller-manager:v$version" \
    "registry.k8s.io/kube-scheduler:v$version"

  layer_start "$root"
  cp -a "$userland/root/." "$root/"
  mkdir -p "$root/usr/local/bin"
  cp "$kubernetes/kube-proxy" "$root/usr/local/bin/"
  image_archive "$dir/images/kube-proxy.tar" "$root" '{}' "registry.k8s.io/kube-proxy:v$version"

  layer_start "$root"
  mkdir -p "$root/usr/local/bin" "$root/var/lib/etcd"
  cp "$etcd"/{etcd,etcdctl} "$root/usr/local/bin/"
  image_archive "$dir/images/etcd.tar" "$root" '{}' "registry.k8s.io/etcd:$ETCD_TAG"

  layer_start "$root"
  cp "$coredns/coredns" "$root/coredns"
  mkdir -p "$root/etc/ssl/certs"
  image_archive "$dir/images/coredns.tar" "$root" '{"Entrypoint":["/coredns"]}' \
    "registry.k8s.io/coredns/coredns:$COREDNS_TAG"

  layer_start "$root"
  cp "$pause/pause" "$root/pause"
  image_archive "$dir/images/pause.tar" "$root" '{"Entrypoint":["/pause"],"User":"65535:65535"}' \
    "registry.k8s.io/pause:$PAUSE_TAG"
  rm -rf "$root"

  kubernetes_check "$dir" "$version"
  echo "$stamp" >"$dir/.recipe"
  # A folder cannot be replaced by a rename: the old one steps aside first.
  if [ -e "$out" ]; then
    forget_later "$out.old.$$"
    mv "$out" "$out.old.$$"
  fi
  mv "$dir" "$out"
  say "Kubernetes $version is in $out"
}

# Which etcd, CoreDNS and pause kubeadm of this version deploys: read from its own source.
kubernetes_pins() {
  local version=$1 source constants minor
  source=$(module_field k8s.io/kubernetes "v$version" Dir)
  constants="$source/cmd/kubeadm/app/constants/constants.go"
  minor=${version#1.}
  minor=${minor%%.*}
  ETCD_TAG=$(sed -nE "s/^\\s+$minor: +\"([^\"]+)\",\$/\\1/p" "$constants")
  # The newest minor is listed by the name of the constant instead.
  [ -n "$ETCD_TAG" ] || ETCD_TAG=$(sed -nE 's/^\s+DefaultEtcdVersion = "([^"]+)"$/\1/p' "$constants")
  COREDNS_TAG=$(sed -nE 's/^\s+CoreDNSVersion = "([^"]+)"$/\1/p' "$constants")
  PAUSE_TAG=$(sed -nE 's/^\s+PauseVersion = "([^"]+)"$/\1/p' "$constants")
  [[ -n $ETCD_TAG && -n $COREDNS_TAG && -n $PAUSE_TAG ]] ||
    die "kubeadm $version names its images in another way than we know: see $constants"
}

# The pins again, from the program that was built: a wrong tag would make kubeadm look for an image nobody has.
kubernetes_check() {
  local dir=$1 version=$2 wanted have
  wanted=$("$dir/upstream/kubeadm" config images list --kubernetes-version "v$version" 2>/dev/null | sort)
  have=$(for archive in "$dir"/images/*.tar; do
    tar -xOf "$archive" manifest.json | jq -r '.[].RepoTags[]'
  done | sort)
  [ "$wanted" = "$have" ] || die "kubeadm $version wants other images than were built:
$(diff <(echo "$wanted") <(echo "$have"))"
}

# part NAME VERSION BUILDER: sets PART to the folder with what BUILDER made; builds only what is not there.
# The builder runs in a folder of its own that stays until it has succeeded, and fills the folder $OUT.
part() {
  local name=$1 version=$2 builder=$3 key
  key=$({ declare -f "$builder" go_module go_build; cat "$BED_HOME/kubernetes/$name".* 2>/dev/null || true; } | short_hash)
  PART="$CACHE/parts/$name-$version-$(arch)-$key"
  [ ! -d "$PART" ] || return 0
  local started=$SECONDS log="$CACHE/log/$name.log"
  say "building $name $version (log: $log)"
  local work="$CACHE/build/$name-$version-$key" OUT="$PART.tmp.$$"
  forget_later "$OUT"
  mkdir -p "$work" "$OUT"
  # Not in a condition, where `set -e` would not hold inside the builder.
  local code=0
  set +e
  (
    set -e
    cd "$work"
    VERSION=$version "$builder"
  ) >"$log" 2>&1
  code=$?
  set -e
  [ "$code" -eq 0 ] || { tail -n 15 "$log" >&2; die "building $name $version failed: see $log"; }
  mv "$OUT" "$PART"
  rm -rf "$work"
  say "built $name $version in $((SECONDS - started))s"
}

module_field() {
  local answer
  answer=$(cd / && go mod download -json "$1@$2") || die "no module $1 $2: $(jq -r .Error <<<"$answer")"
  jq -r --arg field "$3" '.[$field]' <<<"$answer"
}

# go_module MODULE VERSION [MODULE VERSION]...: a go.mod of our own that requires exactly these and takes over the `go`
# and `godebug` lines of the first: the toolchain's defaults are those of the main module.
go_module() {
  local upstream
  upstream=$(module_field "$1" "$2" GoMod)
  {
    echo 'module bed'
    grep -E '^(go|godebug) ' "$upstream"
    while [ $# -gt 0 ]; do
      echo "require $1 $2"
      shift 2
    done
  } >go.mod.new
  # An interrupted run has filled in go.mod already; the first lines tell whether it is still ours.
  if ! cmp -s go.mod.new go.mod.seed; then
    cp go.mod.new go.mod
    mv go.mod.new go.mod.seed
    rm -f go.sum
  fi
}

go_build() { go build -mod=mod -trimpath -buildvcs=false "$@"; }

# Builders run in a folder of their own, with VERSION and OUT set.
# shellcheck disable=SC2153
build_pause() {
  gcc -Os -Wall -Werror -static -s -DVERSION="\"$VERSION\"" -o "$OUT/pause" "$BED_HOME/kubernetes/pause.c"
}

build_runc() {
  go_module github.com/opencontainers/runc "$VERSION"
  # runc enters namespaces in C; libseccomp comes from Debian's static library.
  CGO_ENABLED=1 go_build -tags "seccomp urfave_cli_no_docs netgo osusergo" \
    -ldflags "-s -w -linkmode external -extldflags -static" -o "$OUT/runc" github.com/opencontainers/runc
  "$OUT/runc" --version
}

build_cni() {
  go_module github.com/containernetworking/plugins "$VERSION"
  local base=github.com/containernetworking/plugins/plugins
  CGO_ENABLED=0 go_build -ldflags \
    "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$VERSION" -o "$OUT/" \
    $base/main/{bridge,loopback,ptp} $base/ipam/host-local $base/meta/portmap
}

build_containerd() {
  go_module github.com/containerd/containerd/v2 "$VERSION"
  local base=github.com/containerd/containerd/v2
  # btrfs would need C; the hosts use overlayfs.
  CGO_ENABLED=0 go_build -tags "netgo osusergo static_build no_btrfs" \
    -ldflags "-s -w -X $base/version.Version=$VERSION -X $base/version.Package=$base" -o "$OUT/" \
    $base/cmd/{containerd,containerd-shim-runc-v2,ctr}
}

build_etcd() {
  go_module go.etcd.io/etcd/server/v3 "$VERSION" go.etcd.io/etcd/etcdctl/v3 "$VERSION"
  CGO_ENABLED=0 go_build -ldflags "-s -w -X go.etcd.io/etcd/api/v3/version.GitSHA=module" \
    -o "$OUT/etcd" go.etcd.io/etcd/server/v3
  CGO_ENABLED=0 go_build -ldflags "-s -w -X go.etcd.io/etcd/api/v3/version.GitSHA=module" \
    -o "$OUT/etcdctl" go.etcd.io/etcd/etcdctl/v3
}

build_kubernetes() {
  local upstream info date minor
  upstream=$(module_field k8s.io/kubernetes "$VERSION" GoMod)
  info=$(module_field k8s.io/kubernetes "$VERSION" Info)
  date=$(jq -r .Time "$info")
  go_module k8s.io/kubernetes "$VERSION"
  # Upstream's own go.mod points its staging modules into its tree; published, 1.x.y of the whole is 0.x.y of each.
  if ! grep -q '^replace' go.mod; then
    sed -nE "s#^\\s*(replace )?(k8s\\.io/[a-z0-9.-]+) => \\./staging/.*#replace \\2 => \\2 v0.${VERSION#v1.}#p" \
      "$upstream" >>go.mod
  fi
  minor=${VERSION#v1.}
  local flags="-s -w" package
  # kubeadm refuses to work, and the API server to name its version, without these.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$VERSION -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=$date"
  done
  mkdir -p control-plane
  cp "$BED_HOME/kubernetes/kubernetes.go" control-plane/main.go
  # Programs in one command share what is compiled and link side by side.
  CGO_ENABLED=0 go_build -ldflags "$flags" -o "$OUT/" \
    ./control-plane k8s.io/kubernetes/cmd/{kubeadm,kubelet,kubectl,kube-proxy}
  "$OUT/kubeadm" version
}

build_coredns() {
  go_module github.com/coredns/coredns "$VERSION"
  cp "$BED_HOME/kubernetes/coredns.go" main.go
  CGO_ENABLED=0 go_build -ldflags "-s -w" -o "$OUT/coredns" .
  "$OUT/coredns" -version
}

# The userland kube-proxy calls: Debian's iptables and nft with their libraries, nothing else.
build_userland() {
  need mmdebstrap mmdebstrap
  local root=$PWD/tree
  as_root rm -rf "$root"
  as_root mmdebstrap --quiet --variant=extract --include=iptables,nftables,conntrack,kmod "$USERLAND" "$root"
  as_root rm -rf "$root"/usr/share/{doc,man,locale,lintian,bug} "$root"/var/{cache,lib,log} "$root/etc/apt"
  as_root chown -R "$(id -u):$(id -g)" "$root"
  # Unpacked packages are not configured: the alternatives are our choice. nf_tables is what the hosts' own iptables
  # uses; the two must be the same, or each would not see the other's rules.
  local name
  for name in iptables ip6tables; do
    ln -sf xtables-nft-multi "$root/usr/sbin/$name"
    ln -sf xtables-nft-multi "$root/usr/sbin/$name-save"
    ln -sf xtables-nft-multi "$root/usr/sbin/$name-restore"
  done
  local top
  for top in bin sbin lib lib64; do
    [ -L "$root/$top" ] || [ ! -d "$root/$top" ] || { cp -a "$root/$top/." "$root/usr/$top/"; rm -rf "${root:?}/$top"; }
    [ -d "$root/usr/$top" ] && ln -sfn "usr/$top" "$root/$top"
  done
  rm -rf "${root:?}/dev"
  mkdir -p "$root"/{tmp,run,proc,sys,dev}
  mv "$root" "$OUT/root"
}
