#!/usr/bin/env bash
# prepare.sh SUBNET: a bare host becomes one that kubeadm may be run on, as its documentation asks: a runtime, the kubelet
# and its unit, images, and a pod network of this host alone. What is needed lies beside this file.
set -euo pipefail
cd "$(dirname "$0")"
subnet=$1
version=v$(kubernetes/bin/kubelet --version | sed 's/.* v//')
pause=$(kubernetes/upstream/kubeadm config images list --kubernetes-version "$version" 2>/dev/null | grep /pause:)

printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/k8s.conf
modprobe -a overlay br_netfilter
printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\n' \
  >/etc/sysctl.d/k8s.conf
sysctl --quiet --load /etc/sysctl.d/k8s.conf
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd /etc/systemd/system/kubelet.service.d /usr/local/bin
mv kubernetes/bin/{kubelet,kubectl} kubernetes/upstream/kubeadm /usr/bin/
mv kubernetes/bin/* /usr/local/bin/
mv kubernetes/cni/* /opt/cni/bin/
cat >/etc/containerd/config.toml <<TOML
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
cat >/etc/systemd/system/containerd.service <<'UNIT'
[Service]
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
TasksMax=infinity
[Install]
WantedBy=multi-user.target
UNIT
cat >/etc/systemd/system/kubelet.service <<'UNIT'
[Unit]
After=network-online.target
[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10
[Install]
WantedBy=multi-user.target
UNIT
# Upstream's packages bring it so.
cat >/etc/systemd/system/kubelet.service.d/10-kubeadm.conf <<'UNIT'
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
UNIT
cat >/etc/cni/net.d/10-bridge.conflist <<JSON
{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "subnet": "$subnet"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
systemctl daemon-reload
systemctl enable --quiet --now containerd
systemctl enable --quiet kubelet
for archive in kubernetes/images/*.tar; do ctr -n k8s.io images import "$archive" >/dev/null; done
rm -rf kubernetes
