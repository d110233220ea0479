#!/usr/bin/env bash
# demo.sh BINARY BUNDLE: three fresh hosts of the test bed, and a cluster on them.   demo.sh --down BINARY: takes it away.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
# What is printed can then be typed from the checkout.
cd "$here"
inventory=target/demo/inventory.yaml
if [ "$1" = --down ]; then
  "$2" down -i "$inventory" --yes || true
  exec "$bed" hosts destroy demo
fi
binary=$1 bundle=$2
mkdir -p target/demo
"$bed" hosts destroy demo >/dev/null 2>&1 || true
rm -f target/demo/*.kubeconfig*
"$bed" hosts create --name demo --count 3
"$bed" inventory demo >"$inventory"
"$binary" up -i "$inventory" --bundle "$bundle" --yes
echo
echo "\$ clusterctl kubectl -i target/demo/inventory.yaml -- get nodes,pods -A"
"$binary" kubectl -i "$inventory" -- get nodes,pods -A -o wide
cat <<TEXT

The cluster stays up. Look around:
  target/release/clusterctl status  -i target/demo/inventory.yaml
  target/release/clusterctl kubectl -i target/demo/inventory.yaml -- get pods -A
Take it away and give the hosts back:
  target/release/clusterctl down -i target/demo/inventory.yaml --yes
  make demo-down
TEXT
