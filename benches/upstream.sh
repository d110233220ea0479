#!/usr/bin/env bash
# The same job the way a person does it today: upstream kubeadm, a shell script, ssh and scp; all that can be parallel in
# parallel, one connection a host kept open, a host sent only what its role needs.
#
#   benches/upstream.sh HOSTS.json FOLDER [KUBECONFIG]
#
# HOSTS.json is what `vagrant/bed hosts create --json` printed: the first host becomes the control plane (CONTROL_PLANES=3:
# the first three), the others workers. Several control planes are reached by a name in /etc/hosts that leads to the first,
# which is the least a person sets up, and join one after the other, as etcd wants it of kubeadm. FOLDER is what
# `vagrant/bed kubernetes` printed. The last line of standard output is JSON with the seconds of each step; all else goes
# to standard error.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 HOSTS.json FOLDER [KUBECONFIG]" >&2; exit 2; }
hosts_file=$1 folder=$2 kubeconfig=${3:-}
control_planes=${CONTROL_PLANES:-1}
endpoint=api.bench.example:6443
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
finish() {
  local address
  for address in "${addresses[@]:-}"; do
    [ -z "$address" ] || ssh "${options[@]}" -O exit "root@$address" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT

mapfile -t names < <(jq -r '.hosts[].name' "$hosts_file")
mapfile -t addresses < <(jq -r '.hosts[].address' "$hosts_file")
options=(-F none -i "$(jq -r .key "$hosts_file")" -o BatchMode=yes -o StrictHostKeyChecking=yes
  -o UserKnownHostsFile="$(jq -r .known_hosts "$hosts_file")" -o LogLevel=ERROR
  -o ControlMaster=auto -o ControlPath="$work/%C" -o ControlPersist=300)
version=$(cat "$folder/VERSION")
first=${addresses[0]}
on() {
  local address=$1
  shift
  # shellcheck disable=SC2029 # what runs there is put together here
  ssh "${options[@]}" "root@$address" "$@"
}

# on_all FUNCTION FROM: the function with number and address of each host from FROM on, side by side; what one of them
# said is shown when it fails.
on_all() {
  local function=$1 i pids=() failed=0
  for ((i = $2; i < ${#addresses[@]}; i++)); do
    "$function" "$i" "${addresses[i]}" >"$work/$function.$i" 2>&1 &
    pids[i]=$!
  done
  for ((i = $2; i < ${#addresses[@]}; i++)); do
    wait "${pids[i]}" || { failed=1; echo "$function failed on ${names[i]}:" >&2; tail -n 20 "$work/$function.$i" >&2; }
  done
  return "$failed"
}

# step NAME COMMAND...: runs and measures.
steps='{}'
step() {
  local name=$1 from=$EPOCHREALTIME
  shift
  "$@"
  local seconds
  seconds=$(awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }')
  echo "$name: ${seconds}s" >&2
  steps=$(jq -c --arg name "$name" --argjson seconds "$seconds" '.[$name] = $seconds' <<<"$steps")
}

common=(bin cni upstream prepare.sh kubelet.service 10-kubeadm.conf containerd.service config.toml)
images_of() { # INDEX
  printf 'images/%s.tar\n' kube-proxy pause coredns
  if [ "$1" -lt "$control_planes" ]; then printf 'images/%s.tar\n' control-plane etcd; fi
}

write_files() {
  local pause
  pause=$("$folder/upstream/kubeadm" config images list --kubernetes-version "$version" 2>/dev/null | grep /pause:)
  ln -s "$folder"/{bin,cni,upstream,images} "$work/"
  cat >"$work/config.toml" <<TOML
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '$pause'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
TOML
  cat >"$work/containerd.service" <<'UNIT'
[Unit]
Description=containerd container runtime
After=network.target local-fs.target
[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
[Install]
WantedBy=multi-user.target
UNIT
  cat >"$work/kubelet.service" <<'UNIT'
[Unit]
Description=kubelet: The Kubernetes Node Agent
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10
[Install]
WantedBy=multi-user.target
UNIT
  cat >"$work/10-kubeadm.conf" <<'UNIT'
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
UNIT
  cat >"$work/prepare.sh" <<'PREPARE'
set -euo pipefail
cd /root/kubernetes
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/k8s.conf
modprobe -a overlay br_netfilter
printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\n' >/etc/sysctl.d/k8s.conf
sysctl --quiet --load /etc/sysctl.d/k8s.conf
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd /etc/systemd/system/kubelet.service.d /usr/local/bin
mv bin/kubelet bin/kubectl upstream/kubeadm /usr/bin/
mv bin/* /usr/local/bin/
mv cni/* /opt/cni/bin/
mv config.toml /etc/containerd/
mv containerd.service kubelet.service /etc/systemd/system/
mv 10-kubeadm.conf /etc/systemd/system/kubelet.service.d/
systemctl daemon-reload
systemctl enable --quiet --now containerd
systemctl enable --quiet kubelet
for archive in images/*.tar; do ctr -n k8s.io images import "$archive"; done
rm -rf images
PREPARE
  {
    "$here/../vagrant/bed" settings
    cat <<YAML
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $version
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}
YAML
    if [ "$control_planes" -gt 1 ]; then echo "controlPlaneEndpoint: $endpoint"; fi
  } >"$work/kubeadm.yaml"
}

upload() { # INDEX ADDRESS
  local images
  mapfile -t images < <(images_of "$1")
  on "$2" mkdir -p kubernetes/images
  scp "${options[@]}" -q -r "${common[@]/#/$work/}" "root@$2:kubernetes/"
  scp "${options[@]}" -q "${images[@]/#/$folder/}" "root@$2:kubernetes/images/"
}
prepare() {
  if [ "$control_planes" -gt 1 ]; then on "$2" "echo '$first ${endpoint%:*}' >>/etc/hosts"; fi
  on "$2" bash kubernetes/prepare.sh
}
init() {
  local more=
  if [ "$control_planes" -gt 1 ]; then more=--upload-certs; fi
  on "$first" "cat >kubeadm.yaml && kubeadm init --config kubeadm.yaml $more" <"$work/kubeadm.yaml" >"$work/init.log" 2>&1 ||
    { tail -n 40 "$work/init.log" >&2; return 1; }
  join_command=$(sed -n '/^kubeadm join/,$p' "$work/init.log" | tr -d '\\\n')
  certificate_key=$(grep -o -m 1 -- '--certificate-key [0-9a-f]*' "$work/init.log" || true)
}
join() { on "$2" "$join_command --ignore-preflight-errors=SystemVerification"; }
# Workers side by side; control planes beside them, one after the other.
join_all() {
  on_all join "$control_planes" &
  local workers=$! i
  for ((i = 1; i < control_planes; i++)); do
    on "${addresses[i]}" "$join_command --control-plane $certificate_key --ignore-preflight-errors=SystemVerification" \
      >"$work/join.$i" 2>&1 || { echo "join failed on ${names[i]}:" >&2; tail -n 20 "$work/join.$i" >&2; return 1; }
  done
  wait "$workers"
}
network() {
  # The controller manager gives a node its pod network a moment after the node has joined.
  on "$first" "kubectl --kubeconfig /etc/kubernetes/admin.conf wait node --all --timeout=60s \
    --for=jsonpath='{.spec.podCIDR}'" >/dev/null
  on "$first" "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes --no-headers \
    -o custom-columns=NAME:.metadata.name,CIDR:.spec.podCIDR,IP:.status.addresses[0].address" >"$work/nodes"
  on_all network_host 0
}
network_host() { # INDEX ADDRESS
  {
    echo 'set -eu'
    # Nobody outside knows the pods' addresses.
    echo 'iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE'
    awk -v me="${names[$1]}" '$1 != me { print "ip route replace " $2 " via " $3 }' "$work/nodes"
    cat <<CONF
cat >/etc/cni/net.d/10-bridge.conflist <<'JSON'
{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "subnet": "$(awk -v me="${names[$1]}" '$1 == me { print $2 }' "$work/nodes")"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
CONF
  } | on "$2" bash -s
}
# As `clusterctl up` ends: nodes Ready, CoreDNS and kube-proxy Ready, the control plane (healthy since init) running.
ready() {
  on "$first" 'export KUBECONFIG=/etc/kubernetes/admin.conf
    kubectl wait --for=condition=Ready node --all --timeout=180s &&
    kubectl wait --for=condition=Ready pod --selector k8s-app --all-namespaces --timeout=180s &&
    kubectl wait --for=jsonpath={.status.phase}=Running pod --selector tier=control-plane --all-namespaces --timeout=180s' >"$work/ready.log" 2>&1 ||
    { cat "$work/ready.log" >&2; on "$first" kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes,pods -A -o wide >&2; return 1; }
}

begin=$EPOCHREALTIME
write_files
step upload on_all upload 0
step prepare on_all prepare 0
step init init
step join join_all
step network network
step ready ready
total=$(awk -v from="$begin" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.2f", to - from }')
if [ -n "$kubeconfig" ]; then on "$first" cat /etc/kubernetes/admin.conf >"$kubeconfig"; fi
jq -c --argjson total "$total" --argjson hosts "${#addresses[@]}" --arg version "$version" \
  --argjson control_planes "$control_planes" '{tool: "kubeadm", $version, $hosts, $control_planes} + . + {$total}' <<<"$steps"
