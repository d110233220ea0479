#!/usr/bin/env bash
# whole.sh KINDS NAME...: on a prepared host, for each configuration, a control plane by upstream's kubeadm and one by our
# engine, one after the other at the same place; prints an archive of their files and of all objects of these kinds, in
# base64. Upstream's reset takes both away again.
set -euo pipefail
cd /root/golden
export PATH=$PWD:$PATH KUBECONFIG=/etc/kubernetes/admin.conf
kinds=$1
shift

mkdir -p patches results
cat >patches/corednsdeployment.yaml <<'PATCH'
spec:
  replicas: 1
  template: {metadata: {annotations: {patched.example/by: merge}}}
PATCH
if [ "$(kubeadm version -o short | cut -d. -f2)" -ge 37 ]; then
  echo 'spec: {template: {metadata: {labels: {patched: "yes"}}}}' >patches/kubeproxydaemonset+merge.yaml
fi
cat >patches/kube-scheduler+merge.yaml <<'PATCH'
metadata: {labels: {patched: merge}}
PATCH
cat >patches/kubeletconfiguration+json.yaml <<'PATCH'
- {op: add, path: /maxParallelImagePulls, value: 2}
PATCH

# What the kubelet keeps of pods and sockets is other for each pod, and what it is just writing has a name of the moment.
running=()
for part in pods plugins plugins_registry pod-resources device-plugins '*_state' '.[0-9]*'; do
  running+=("--exclude=var/lib/kubelet/$part")
done

# Controllers make objects for some seconds more: until nothing is new for as long.
settle() {
  local before='' now='' same=0 tries
  for tries in {1..40}; do
    now=$(kubectl get "$kinds" -A -o name 2>/dev/null | sort | sha256sum) || now=$tries
    if [ "$now" = "$before" ] && kubectl get serviceaccount default >/dev/null 2>&1; then same=$((same + 1)); else same=0; fi
    [ "$same" -lt 5 ] || return 0
    before=$now
    sleep 1
  done
  echo "objects were still made after $tries looks" >&2
  return 1
}

for name in "$@"; do
  for side in upstream ours; do
    case $side in
      upstream) program=(kubeadm init) ;;
      ours) program=(clusterctl node init) ;;
    esac
    if grep -q ^certificateKey: "whole/$name.yaml"; then program+=(--upload-certs); fi
    code=0
    { "${program[@]}" --config "whole/$name.yaml" </dev/null && settle; } >"results/$name.$side.log" 2>&1 || code=$?
    echo "$code" >"results/$name.$side.code"
    if [ "$code" -eq 0 ]; then
      kubectl get "$kinds" -A -o json >"results/$name.$side.json"
      tar -C / -cf "results/$name.$side.tar" "${running[@]}" etc/kubernetes var/lib/kubelet
    fi
    kubeadm reset --force >"results/$name.$side.reset" 2>&1 </dev/null
    rm -rf /etc/kubernetes /var/lib/kubelet /var/lib/etcd
  done
done
tar -C results -cz . | base64 --wrap 0
