#!/usr/bin/env bash
# init.sh BINARY: `clusterctl node init` beside `kubeadm init` on twin hosts of the test bed with all images present, fresh
# ones each round. ROUNDS=3, medians are compared. Prints seconds and the ratio.
set -euo pipefail
binary=$(readlink -f "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
folder=$("$bed" kubernetes | tail -n 1)
scratch=$(mktemp -d)
trap '"$bed" hosts destroy bench-init >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT

{
  "$bed" settings
  cat <<YAML
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(cat "$folder/VERSION")
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12}
YAML
} >"$scratch/kubeadm.yaml"

prepare() { # HOST
  tar -C "$folder" -c bin cni images upstream | "$bed" host sh "$1" -- sh -c 'mkdir -p /root/prepare/kubernetes && tar -C /root/prepare/kubernetes -x'
  tar -C "$here/tests/integration" -c prepare.sh | "$bed" host sh "$1" -- tar -C /root/prepare -x
  tar -C "$scratch" -c kubeadm.yaml | "$bed" host sh "$1" -- tar -C /root -x
  tar -C "$(dirname "$binary")" -c "$(basename "$binary")" | "$bed" host sh "$1" -- tar -C /usr/local/bin -x
  "$bed" host sh "$1" -- bash /root/prepare/prepare.sh 10.244.0.0/24 >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2 && exit 1; }
}

# Seconds of one init: HOST COMMAND...
timed() {
  local host=$1 from to
  shift
  sync
  from=$(date +%s.%N)
  "$bed" host sh "$host" -- "$@" init --config /root/kubeadm.yaml >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2 && exit 1; }
  to=$(date +%s.%N)
  awk -v from="$from" -v to="$to" 'BEGIN {printf "%.2f\n", to - from}'
  # Its cluster would take processor time from the twin.
  "$bed" host kill "$host"
}

median() { sort -n | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }

printf '%-12s %12s %12s %7s\n' init upstream clusterctl ratio
for round in $(seq "${ROUNDS:-3}"); do
  "$bed" hosts destroy bench-init >/dev/null 2>&1 || true
  "$bed" hosts create --name bench-init --count 2 >/dev/null
  prepare bench-init1
  prepare bench-init2
  # Who begins takes turns.
  if [ $((round % 2)) = 1 ]; then timed bench-init1 kubeadm >>"$scratch/theirs"; fi
  timed bench-init2 "/usr/local/bin/$(basename "$binary")" node >>"$scratch/ours"
  if [ $((round % 2)) = 0 ]; then timed bench-init1 kubeadm >>"$scratch/theirs"; fi
done
theirs=$(median <"$scratch/theirs") mine=$(median <"$scratch/ours")
awk -v theirs="$theirs" -v mine="$mine" \
  'BEGIN {printf "%-12s %10.2f s %10.2f s %7.2f\n", "1+0", theirs, mine, mine / theirs}'
