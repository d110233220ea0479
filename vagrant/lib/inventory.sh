# shellcheck shell=bash
# An inventory for hosts of the bed.

inventory_command() {
  local prefix="" control_planes=1 user=root
  while [ $# -gt 0 ]; do
    case "$1" in
      --control-planes) control_planes=${2:?} && shift 2 ;;
      --user) user=${2:?} && shift 2 ;;
      -*) die "inventory knows no '$1'" ;;
      *) prefix=$1 && shift ;;
    esac
  done
  [ -n "$prefix" ] || die "inventory NAME [--control-planes N] [--user root|ops|free|plain]"
  engine_command
  bed_key
  local lines
  lines=$(hosts_lines "$prefix")
  [ -n "$lines" ] || die "no hosts of the name $prefix"
  inventory_head "$prefix" "$user" "$KEY" "$CACHE/bed/$prefix/known_hosts"
  awk -v control_planes="$control_planes" '{
    printf "  %s: {address: %s, role: %s}\n", $2, $3, NR <= control_planes ? "control-plane" : "worker" }' <<<"$lines"
}

inventory_head() {
  local name=$1 user=$2 key=$3 known=$4 machines=${5:-containers} become=""
  case "$user" in
    root | plain) ;;
    *) become=", become: sudo" ;;
  esac
  cat <<YAML
cluster:
  name: $name
  kubernetes: $KUBERNETES_DEFAULT
  network: {plugin: bridge}
YAML
  if [ "$machines" = containers ]; then
    cat <<YAML
  # What Kubernetes needs to run inside containers of this machine; a real machine needs none of it.
  containerd: {restrict_oom_score_adj: true}
  # Its disk is shared, and may be slow and full.
  ignore_checks: [EtcdDisk, DiskSpace]
  kubeadm: |
$(bed_settings | sed 's/^/    /')
YAML
  fi
  echo "ssh: {user: $user, identity: $key, known_hosts: $known$become}"
  echo "hosts:"
}

# kubeadm's own documents with the bed's settings.
bed_settings() {
  cat <<'YAML'
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  ignorePreflightErrors: [SystemVerification]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
nodeRegistration:
  ignorePreflightErrors: [SystemVerification]
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
oomScoreAdj: 0
# All hosts of the bed share one disk, which may be a full one: 15 % of it have to be free otherwise.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0}
YAML
}
