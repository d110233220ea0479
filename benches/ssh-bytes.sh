#!/usr/bin/env bash
# ssh-bytes.sh BINARY: 256 MiB to 8 hosts, beside scp in parallel: on a fast line, on one with 50 ms, there also what a cluster
# gets instead of what nothing compresses, and from host to host on an uplink of 100 Mbit/s. HOSTS=8, MEBIBYTES=256, LATENCY=50
# (ms, both ways together), UPLINK=12500000 (bytes a second), ROUNDS=3 (of all parts but the last; they alternate, and medians
# are printed), ONLY="fast latency kubernetes relay". Prints seconds, MB/s of all hosts together, ratios, bytes that left, peak
# memory.
set -euo pipefail
binary=$(readlink -f "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
count=${HOSTS:-8} mebibytes=${MEBIBYTES:-256} latency=${LATENCY:-50} uplink=${UPLINK:-12500000}
only=" ${ONLY:-fast latency kubernetes relay} "
set_name=${NAME:-benchbytes}
scratch=$(mktemp -d)
cleanup() {
  "$bed" hosts destroy "$set_name" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}
trap cleanup EXIT

# A bundle of four large files, filled by the command that is called (`noise`, or `programs`), and of the small things without
# which it is no bundle.
make_bundle() { # COMMAND
  local folder="$scratch/folder" image
  rm -rf "$folder" "$scratch/bundle"
  mkdir -p "$folder/bin" "$folder/cni" "$folder/images"
  for name in kubelet kubectl containerd containerd-shim-runc-v2 ctr runc; do head -c 1024 /dev/urandom >"$folder/bin/$name"; done
  for name in bridge host-local loopback portmap; do head -c 1024 /dev/urandom >"$folder/cni/$name"; done
  "$1" "$((mebibytes * 1048576))" | split -b "$((mebibytes * 262144))" -d -a 1 - "$folder/bin/part-"
  for image in kube-apiserver:v1.36.3 kube-controller-manager:v1.36.3 kube-scheduler:v1.36.3 kube-proxy:v1.36.3 \
    etcd:3.6.8-0 coredns/coredns:v1.14.2 pause:3.10.2; do
    printf '[{"Config":"c.json","RepoTags":["registry.k8s.io/%s"],"Layers":[]}]' "$image" >"$scratch/manifest.json"
    tar -C "$scratch" -cf "$folder/images/$(basename "${image%%:*}").tar" manifest.json
  done
  "$binary" bundle create --from "$folder" --kubernetes 1.36.3 --arch amd64 -o "$scratch/bundle" -q
  cat "$folder"/bin/part-* >"$scratch/payload"
}

noise() { head -c "$1" /dev/urandom; } # BYTES
# What hosts really get, one file after the other: the programs and images of Kubernetes.
programs() { # BYTES
  local folder
  folder=$("$bed" kubernetes "${KUBERNETES:-1.36.3}" | tail -n 1)
  cat "$folder"/bin/* "$folder"/cni/* "$folder"/images/* | head -c "$1" || true
}

field() { jq -r "$1" "$scratch/hosts.json"; }

# The line to all hosts, until its standard input is closed.
start_link() { # OPTIONS...
  local ways=() at=0 address
  for address in $(field '.hosts[].address'); do
    ways+=("$((42200 + at)):$address:22")
    at=$((at + 1))
  done
  exec 9> >(exec "$scratch/line" "$@" "${ways[@]}" >"$scratch/link")
  line=$!
  until grep -q ready "$scratch/link" 2>/dev/null; do read -r -t 0.05 <> <(:) || true; done
}

# Sets `left` to the bytes that went through the link.
stop_link() {
  exec 9>&-
  wait "$line"
  left=$(tail -n 1 "$scratch/link")
}

inventory() { # RELAY FIRST LAST [linked]
  echo "cluster: {name: $set_name}"
  echo "ssh: {user: root, identity: $(field .key), known_hosts: $scratch/known_hosts, host_keys: accept-new}"
  echo "transfer: {relay: $1}"
  echo "hosts:"
  jq -r --argjson first "$2" --argjson last "$3" --arg linked "${4:-}" '.hosts | to_entries[] | select(.key >= $first and .key <= $last)
    | "  \(.value.name): {address: \"\(if $linked == "" then .value.address else "127.0.0.1:\(42200 + .key)" end)\", node_address: \(.value.address), role: \(if .key == $first then "control-plane" else "worker" end)}"' \
    "$scratch/hosts.json"
}

# Nothing of a former run on the hosts but the program.
forget() {
  local name pids=()
  for name in $(field '.hosts[].name'); do
    "$bed" host sh "$name" -- sh -c 'rm -rf /var/lib/clusterctl/incoming /root/payload' &
    pids+=($!)
  done
  wait "${pids[@]}"
  sync
}

push() { # prints seconds and peak memory in MiB
  local from to
  from=$(date +%s.%N)
  "$binary" bundle push -i "$scratch/inventory.yaml" --bundle "$scratch/bundle" --output json >"$scratch/events" &
  local pid=$!
  # Beside it: to wait for the next look would be counted as time of the program.
  peak_of "$pid" >"$scratch/peak" &
  local looking=$!
  wait "$pid" || { tail -n 3 "$scratch/events" >&2 && exit 1; }
  to=$(date +%s.%N)
  wait "$looking"
  awk -v from="$from" -v to="$to" -v peak="$(cat "$scratch/peak")" 'BEGIN {printf "%.2f %d\n", to - from, peak}'
}

peak_of() { # PROCESS: prints the most memory it had, in MiB, when it has ended
  local peak=0 now
  while now=$(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$1/status" 2>/dev/null) && [ -n "$now" ]; do
    peak=$now
    read -r -t 0.1 <> <(:) || true
  done
  echo "$peak"
}

scp_to() { # COUNT [linked]: prints seconds
  local at=0 address port from to pids=()
  from=$(date +%s.%N)
  for address in $(field '.hosts[].address' | head -n "$1"); do
    port=22
    [ -z "${2:-}" ] || { port=$((42200 + at)) && address=127.0.0.1; }
    scp -q -P "$port" -i "$(field .key)" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
      -o Ciphers=aes128-gcm@openssh.com "$scratch/payload" "root@$address:/root/payload" &
    pids+=($!)
    at=$((at + 1))
  done
  wait "${pids[@]}"
  to=$(date +%s.%N)
  awk -v from="$from" -v to="$to" 'BEGIN {printf "%.2f\n", to - from}'
}

median() { sort -n | awk '{all[NR] = $0} END {print all[int((NR + 1) / 2)]}'; }

rounds() { # HOSTS [linked]: sets `ours`, `peak` and `scp`
  : >"$scratch/ours" && : >"$scratch/scp"
  for _ in $(seq "${ROUNDS:-3}"); do
    forget && push >>"$scratch/ours"
    forget && scp_to "$@" >>"$scratch/scp"
  done
  read -r ours peak < <(median <"$scratch/ours")
  scp=$(median <"$scratch/scp")
}

compare() { # TITLE OURS PEAK SCP COUNT
  awk -v title="$1" -v ours="$2" -v peak="$3" -v scp="$4" -v bytes="$(($5 * mebibytes * 1048576))" 'BEGIN {
    printf "%-34s %8.2f s %7.0f MB/s %10.2f s %7.0f MB/s %7.2f %9d MiB\n", title, ours, bytes / ours / 1e6, scp, bytes / scp / 1e6, scp / ours, peak }'
}

rustc -O --edition 2024 -o "$scratch/line" "$here/benches/link.rs"
make_bundle noise
"$bed" hosts destroy "$set_name" >/dev/null 2>&1 || true
"$bed" hosts create --name "$set_name" --count "$count" --json >"$scratch/hosts.json"
# The program is there before anything is measured: it is sent once in the life of a host.
inventory off 0 $((count - 1)) >"$scratch/inventory.yaml"
push >/dev/null
printf '%-34s %10s %12s %12s %12s %7s %13s\n' "$mebibytes MiB to $count hosts" clusterctl '' scp '' ratio 'peak memory'
if [[ $only == *" fast "* ]]; then
  rounds "$count"
  compare 'fast line, relay off' "$ours" "$peak" "$scp" "$count"
  inventory auto 0 $((count - 1)) >"$scratch/inventory.yaml"
  rounds "$count"
  compare 'fast line, relay auto' "$ours" "$peak" "$scp" "$count"
fi
if [[ $only == *" latency "* ]]; then
  start_link --delay "$(awk -v latency="$latency" 'BEGIN {print latency / 2}')"
  for hosts in 1 "$count"; do
    inventory off 0 $((hosts - 1)) linked >"$scratch/inventory.yaml"
    rounds "$hosts" linked
    compare "$latency ms away, $hosts host(s)" "$ours" "$peak" "$scp" "$hosts"
  done
  inventory auto 0 $((count - 1)) linked >"$scratch/inventory.yaml"
  rounds "$count" linked
  compare "$latency ms away, relay auto" "$ours" "$peak" "$scp" "$count"
  stop_link
fi
if [[ $only == *" kubernetes "* ]]; then
  make_bundle programs
  start_link --delay "$(awk -v latency="$latency" 'BEGIN {print latency / 2}')"
  for relay in off auto; do
    inventory "$relay" 0 $((count - 1)) linked >"$scratch/inventory.yaml"
    rounds "$count" linked
    compare "$latency ms, Kubernetes, relay $relay" "$ours" "$peak" "$scp" "$count"
  done
  stop_link
  make_bundle noise
fi
if [[ $only == *" relay "* ]]; then
  payload=$((mebibytes * 1048576))
  start_link --rate "$uplink"
  inventory auto 0 0 linked >"$scratch/inventory.yaml"
  forget && read -r one peak < <(push)
  stop_link
  start_link --rate "$uplink"
  inventory auto 0 $((count - 1)) linked >"$scratch/inventory.yaml"
  forget && read -r all peak < <(push)
  stop_link
  awk -v one="$one" -v all="$all" -v left="$left" -v payload="$payload" -v uplink="$uplink" -v count="$count" -v peak="$peak" 'BEGIN {
    printf "\nuplink of %.0f Mbit/s: one host %.2f s, %d hosts %.2f s: %.2f times; left this machine: %.3f times the payload; peak memory %d MiB\n",
      uplink * 8 / 1e6, one, count, all, all / one, left / payload, peak }'
fi
