# shellcheck shell=bash
# The host images: a bare machine, and one that somebody has put Debian's containerd on.

DEBIAN=trixie

image_command() {
  local kind
  engine_command
  if [ $# -eq 0 ]; then set -- bare containerd; fi
  for kind in "$@"; do
    image_ensure "$kind"
    printf '%s\n' "$IMAGE"
  done
}

image_packages() {
  case "$1" in
    bare) cat "$BED_HOME/image/packages" ;;
    containerd) cat "$BED_HOME/image/packages" "$BED_HOME/image/packages.containerd" ;;
    shells) cat "$BED_HOME/image/packages" "$BED_HOME/image/packages.shells" ;;
    *) die "an image is 'bare', 'containerd' or 'shells', not '$1'" ;;
  esac
}

# Sets IMAGE. The tag is a hash of everything the image is made of: a changed recipe is another image.
image_name() {
  local name=clusterctl-host
  [ "$1" = bare ] || name+="-$1"
  IMAGE="$name:$({ echo "$DEBIAN"; image_packages "$1"; cat "$BED_HOME"/image/{Dockerfile,setup,bed-init}; } | short_hash)"
}

image_ensure() {
  image_packages "$1" >/dev/null
  image_name "$1"
  if ! docker image inspect "$IMAGE" >/dev/null 2>&1; then with_lock image image_build "$1"; fi
}

image_build() {
  local kind=$1 packages base started=$SECONDS
  docker image inspect "$IMAGE" >/dev/null 2>&1 && return
  packages=$(image_packages "$kind" | paste -sd' ' -)
  say "making $IMAGE"
  mkdir -p "$CACHE/log"
  local log="$CACHE/log/image-$kind.log"
  # Where apt-get is there, Debian itself is the source and no container registry is needed.
  if type -P apt-get >/dev/null; then
    need mmdebstrap mmdebstrap
    base="clusterctl-base:$({ echo "$DEBIAN $packages"; } | short_hash)"
    if ! docker image inspect "$base" >/dev/null 2>&1; then
      as_root mmdebstrap --quiet --variant=minbase --include="${packages// /,}" "$DEBIAN" - 2>"$log" |
        docker import - "$base" >>"$log" || die "making Debian $DEBIAN failed: see $log"
    fi
  else
    base="debian:$DEBIAN"
  fi
  DOCKER_BUILDKIT=0 docker build --network host --build-arg BASE="$base" --build-arg PACKAGES="$packages" --tag "$IMAGE" \
    "$BED_HOME/image" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "making $IMAGE failed: see $log"; }
  say "made $IMAGE in $((SECONDS - started))s"
}
