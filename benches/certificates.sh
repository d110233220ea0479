#!/usr/bin/env bash
# certificates.sh BINARY: certificates of a full init, `clusterctl node` beside upstream's kubeadm, on this machine as root.
# ROUNDS=7. The time to find a prime is luck, so rounds alternate and medians are compared. Prints seconds and the ratio.
set -euo pipefail
binary=$(readlink -f "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
kubeadm=$("$here/vagrant/bed" kubernetes | tail -n 1)/upstream/kubeadm
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

configuration() {
  cat >"$scratch/$1.yaml" <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.11}
nodeRegistration: {name: cp1, criSocket: unix:///var/run/containerd/containerd.sock}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.3
certificatesDir: $scratch/$1
encryptionAlgorithm: $2
END
}

# Seconds of one run into an empty folder: NAME PROGRAM...
timed() {
  local name=$1 from to
  shift
  rm -rf "${scratch:?}/$name"
  from=$(date +%s.%N)
  "$@" init phase certs all --config "$scratch/$name.yaml" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2 && exit 1; }
  to=$(date +%s.%N)
  awk -v from="$from" -v to="$to" 'BEGIN {printf "%.3f\n", to - from}'
}

median() { sort -n | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }

printf '%-12s %12s %12s %7s\n' algorithm upstream clusterctl ratio
for algorithm in RSA-2048 RSA-3072 ECDSA-P256; do
  configuration upstream "$algorithm"
  configuration ours "$algorithm"
  : >"$scratch/theirs.times"
  : >"$scratch/ours.times"
  for _ in $(seq "${ROUNDS:-7}"); do
    timed upstream "$kubeadm" >>"$scratch/theirs.times"
    timed ours "$binary" node >>"$scratch/ours.times"
  done
  theirs=$(median <"$scratch/theirs.times") mine=$(median <"$scratch/ours.times")
  awk -v algorithm="$algorithm" -v theirs="$theirs" -v mine="$mine" \
    'BEGIN {printf "%-12s %10.3f s %10.3f s %7.2f\n", algorithm, theirs, mine, mine / theirs}'
done
