#!/usr/bin/env bash
# bundle.sh BINARY VERSION FILE: the bundle of what the test bed built; kept in the cache, made again when either changed.
set -euo pipefail
binary=$1 version=$2 file=$3
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$("$here/vagrant/bed" kubernetes "$version" | tail -n 1)
cache=${CLUSTERCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clusterctl}/bundle
mkdir -p "$cache" "$(dirname "$file")"
key=$(cd "$folder" && find . -type f -not -path './upstream/*' -printf '%P %s %T@\n' | sort | sha256sum | cut -c 1-16)
# The format belongs to the key: its version stands in the source that writes it.
format=$(sed -n 's/^pub const FORMAT: u32 = \([0-9]*\);/\1/p' "$here/src/bundle/mod.rs")
kept="$cache/$version-$key-$format.bundle"
if [ ! -f "$kept" ]; then
  "$binary" bundle create --from "$folder" --kubernetes "$version" -o "$kept"
fi
ln -sf "$kept" "$file"
