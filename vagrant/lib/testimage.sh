# shellcheck shell=bash
# An image for tests of the pod network: Debian's static busybox, which serves, fetches and resolves.

TEST_IMAGE=clusterctl.test/busybox:1

test_image_command() {
  need jq jq
  TEST_ARCHIVE="$CACHE/bed/test-image-1-$(arch).tar"
  [ -s "$TEST_ARCHIVE" ] || with_lock test-image test_image_make
  echo "$TEST_ARCHIVE"
}

test_image_make() {
  [ ! -s "$TEST_ARCHIVE" ] || return 0
  local scratch applet
  scratch=$(mktemp -d)
  mkdir -p "$CACHE/bed"
  (
    cd "$scratch"
    apt-get download busybox-static >/dev/null 2>&1 || { apt-get update -qq && apt-get download busybox-static >/dev/null; }
    dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xf - --wildcards '*bin/busybox'
  ) || die "busybox-static cannot be had"
  layer_start "$scratch/root"
  mkdir -p "$scratch/root/bin" "$scratch/root/tmp" "$scratch/root/etc"
  find "$scratch" -path "$scratch/root" -prune -o -type f -name busybox -print -quit |
    xargs -I{} install -m 0755 {} "$scratch/root/bin/busybox"
  for applet in sh httpd wget nslookup cat echo mkdir sleep seq ip ping; do
    ln -s busybox "$scratch/root/bin/$applet"
  done
  image_archive "$scratch/archive.tar" "$scratch/root" '{"Cmd": ["sh"]}' "$TEST_IMAGE"
  mv "$scratch/archive.tar" "$TEST_ARCHIVE"
  rm -rf "$scratch"
}
