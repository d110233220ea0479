#!/usr/bin/env bash
# up.sh BINARY BUNDLE: `clusterctl up` beside the scripted upstream way, on fresh hosts each time, in one run.
# SHAPES="1+2 1+7 3+1" (control planes and workers), ROUNDS=1. Prints seconds, ratios, the time of each step, peak memory
# and the floor.
set -euo pipefail
binary=$(readlink -f "$1") bundle=$(readlink -f "$2")
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
folder=$("$bed" kubernetes | tail -n 1)
scratch=$(mktemp -d)
trap '"$bed" hosts destroy bench >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT

# What the run before left to write goes to the disk first: it would be paid for by the next.
fresh() {
  "$bed" hosts destroy bench >/dev/null 2>&1 || true
  "$bed" hosts create --name bench --count "$1" --json >"$scratch/hosts.json"
  sync
}

# The largest resident size seen, in MiB, of controller and of any agent, looked at once a second while a run lasts: by
# one process for all, or the looking takes a core from the run.
watch_memory() {
  while [ -e "$scratch/running" ]; do
    ps -eo rss=,args=
    read -r -t 1 <> <(:) || true
  done | awk -v binary="$binary" '
    $2 == binary && $3 == "up" && $1 > controller { controller = $1 }
    $2 ~ /clusterctl-[0-9a-f]+$/ && $3 == "agent" && $1 > agent { agent = $1 }
    END { printf "%d %d\n", controller / 1024, agent / 1024 }' >"$scratch/memory"
}

seconds() { awk -v from="$1" -v to="$2" 'BEGIN {printf "%.1f", to - from}'; }

ours() { # CONTROL_PLANES
  "$bed" inventory bench --control-planes "$1" >"$scratch/inventory.yaml"
  if [ "$1" -gt 1 ]; then sed -i '0,/^cluster:$/s//cluster:\n  endpoint: built-in/' "$scratch/inventory.yaml"; fi
  rm -f "$scratch"/*.kubeconfig
  touch "$scratch/running"
  watch_memory &
  local watcher=$! from to
  from=$(date +%s.%N)
  "$binary" up -i "$scratch/inventory.yaml" --bundle "$bundle" --yes --output json >"$scratch/events"
  to=$(date +%s.%N)
  rm "$scratch/running"
  wait "$watcher"
  seconds "$from" "$to"
}

printf '%-9s %12s %12s %7s %16s %12s\n' hosts upstream clusterctl ratio 'controller MiB' 'agent MiB'
shapes=${SHAPES:-1+2 1+7 3+1}
for shape in $shapes; do
  control_planes=${shape%+*} workers=${shape#*+}
  for round in $(seq "${ROUNDS:-1}"); do
    fresh $((control_planes + workers))
    upstream=$(CONTROL_PLANES=$control_planes "$here/benches/upstream.sh" "$scratch/hosts.json" "$folder" 2>"$scratch/upstream.log" |
      tail -n 1) || { cat "$scratch/upstream.log" >&2 && exit 1; }
    fresh $((control_planes + workers))
    mine=$(ours "$control_planes")
    theirs=$(jq -r .total <<<"$upstream")
    read -r controller agent <"$scratch/memory"
    printf '%-9s %10s s %10s s %7s %16s %12s\n' "$shape" "$theirs" "$mine" \
      "$(awk -v a="$mine" -v b="$theirs" 'BEGIN {printf "%.2f", a / b}')" "$controller" "$agent"
    cp "$scratch/events" "$scratch/events.$shape.$round"
    echo "$upstream" >"$scratch/upstream.$shape.$round"
  done
done
for shape in $shapes; do
  echo
  echo "steps of $shape, seconds (slowest host): upstream $(jq -c . "$scratch/upstream.$shape.1")"
  jq -rs '[.[] | select(.event == "step-finished")] | group_by(.step) | map({step: .[0].step, seconds: (map(.milliseconds) | max / 1000)})
    | sort_by(-.seconds)[] | "  \(.step): \(.seconds)"' "$scratch/events.$shape.1"
done
echo
echo "floor: kubelet start to a healthy API server, images present, is what no tool can go below; bytes sent:"
jq -rs '[.[] | select(.event == "step-progressed" and .unit == "bytes")] | group_by([.host, .step]) | map({host: .[0].host, step: .[0].step, bytes: (map(.total) | max)})
  | group_by(.host)[] | "  \(.[0].host): \(map(.bytes) | add / 1048576 | floor) MiB"' "$scratch"/events.*.1 | sort -u | head -12
ls -l "$binary" | awk '{printf "release binary: %.1f MiB\n", $5 / 1048576}'
