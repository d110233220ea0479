# shellcheck shell=bash
# Image archives made by hand: one layer, no engine needed, the same bytes every time. The layout is what a recent
# `docker save` writes: an OCI layout (read by containerd) with a manifest.json beside it (read by Docker).

# layer_start ROOT: an empty tree to fill.
layer_start() {
  rm -rf "$1"
  mkdir -p "$1"
}

# image_archive FILE ROOT CONFIG REFERENCE...: an image of the tree ROOT under every reference. CONFIG is JSON merged
# into the container defaults. Several references share the layer.
image_archive() {
  local file=$1 root=$2 config=$3
  shift 3
  local oci="$root.oci" blobs="$root.oci/blobs/sha256"
  rm -rf "$oci"
  mkdir -p "$blobs"
  chmod 755 "$root"
  [ ! -d "$root/tmp" ] || chmod 1777 "$root/tmp"
  stable_tar "$root" >"$oci/layer"
  local layer image manifest layer_size
  layer_size=$(stat -c %s "$oci/layer")
  layer=$(blob_in "$oci/layer" "$blobs")
  jq -cnS --arg layer "sha256:$layer" --arg arch "$(arch)" --argjson config "$config" '{
    created: "1970-01-01T00:00:00Z", architecture: $arch, os: "linux",
    config: ({Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], WorkingDir: "/"} + $config),
    rootfs: {type: "layers", diff_ids: [$layer]},
    history: [{created: "1970-01-01T00:00:00Z", created_by: "clusterctl test bed"}]}' >"$oci/config"
  local config_size
  config_size=$(stat -c %s "$oci/config")
  image=$(blob_in "$oci/config" "$blobs")
  jq -cnS --arg layer "sha256:$layer" --argjson layer_size "$layer_size" \
    --arg image "sha256:$image" --argjson image_size "$config_size" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $image, size: $image_size},
    layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $layer, size: $layer_size}]}' >"$oci/manifest"
  local manifest_size
  manifest_size=$(stat -c %s "$oci/manifest")
  manifest=$(blob_in "$oci/manifest" "$blobs")
  jq -cnS --arg digest "sha256:$manifest" --argjson size "$manifest_size" --arg arch "$(arch)" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [$ARGS.positional[] | {
      mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $digest, size: $size,
      platform: {architecture: $arch, os: "linux"},
      annotations: {"io.containerd.image.name": ., "org.opencontainers.image.ref.name": (split(":") | last)}}]}' \
    --args "$@" >"$oci/index.json"
  jq -cnS --arg layer "blobs/sha256/$layer" --arg image "blobs/sha256/$image" \
    '[{Config: $image, RepoTags: $ARGS.positional, Layers: [$layer]}]' --args "$@" >"$oci/manifest.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$oci/oci-layout"
  stable_tar "$oci" >"$file"
  rm -rf "$oci"
}

stable_tar() {
  # Names without a leading ./, as readers look them up.
  find "$1" -mindepth 1 -maxdepth 1 -printf '%P\n' | sort |
    tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf - --files-from=-
}

# blob_in FILE FOLDER: moves a file to its sha256's name and prints that.
blob_in() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$2/$digest"
  printf '%s\n' "$digest"
}
