# shellcheck shell=bash
# Upstream's kubeadm alone, of any version: what we write is compared with what it writes, and that needs nothing else.

kubeadm_command() {
  local version=${1:-$KUBERNETES_DEFAULT}
  version=${version#v}
  [[ $version =~ ^1\.[0-9]+\.[0-9]+$ ]] || die "a Kubernetes version looks like 1.36.3, not '$version'"
  # Where the whole was built, it is there.
  local whole
  whole="$CACHE/kubernetes/$version-$(arch)/upstream/kubeadm"
  if [ -x "$whole" ]; then
    printf '%s\n' "$whole"
    return
  fi
  type -P go >/dev/null || die "building kubeadm needs Go (the version its go.mod names, or any from 1.21 on that may fetch it)"
  need jq jq
  need flock util-linux
  mkdir -p "$CACHE/parts" "$CACHE/build" "$CACHE/log"
  with_lock "kubeadm-$version" kubeadm_make "$version"
}

kubeadm_make() {
  part kubeadm "v$1" build_kubeadm
  printf '%s\n' "$PART/kubeadm"
}

# As the whole is built: see there.
# shellcheck disable=SC2153
build_kubeadm() {
  local upstream info date minor
  upstream=$(module_field k8s.io/kubernetes "$VERSION" GoMod)
  info=$(module_field k8s.io/kubernetes "$VERSION" Info)
  date=$(jq -r .Time "$info")
  go_module k8s.io/kubernetes "$VERSION"
  if ! grep -q '^replace' go.mod; then
    sed -nE "s#^\\s*(replace )?(k8s\\.io/[a-z0-9.-]+) => \\./staging/.*#replace \\2 => \\2 v0.${VERSION#v1.}#p" \
      "$upstream" >>go.mod
  fi
  minor=${VERSION#v1.}
  local flags="-s -w" package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$VERSION -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=$date"
  done
  CGO_ENABLED=0 go_build -ldflags "$flags" -o "$OUT/" k8s.io/kubernetes/cmd/kubeadm
  "$OUT/kubeadm" version
}
