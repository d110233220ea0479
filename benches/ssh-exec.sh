#!/usr/bin/env bash
# ssh-exec.sh BINARY: `clusterctl exec -- true`, cold, on HOSTS=50 sshd of this machine, beside the tools that people use
# for it with their best settings, in one run; then one host behind 80 ms of latency. ROUNDS=3; the median counts, and each
# round begins with another tool. Prints seconds and the processor seconds of the controller (what the tool and all its
# children use), and of the far host how many round trips a command takes over a login alone. Fails where clusterctl does.
set -euo pipefail
binary=$(readlink -f "$1")
here=$(cd "$(dirname "$0")" && pwd)
hosts=${HOSTS:-50} rounds=${ROUNDS:-3} first=${PORT:-24200}
cache=${CLUSTERCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clusterctl}
scratch=$(mktemp -d)
servers=()
# shellcheck source=benches/servers.sh
. "$here/servers.sh"
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT

tools() {
  local venv=$cache/bench-ssh
  if [ ! -e "$venv/done" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet parallel-ssh pyinfra ansible-core >&2
    touch "$venv/done"
  fi
  PATH=$venv/bin:$PATH
}

start() {
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/host"
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/user"
  user=$(id -un)
  : >"$scratch/known_hosts"
  start_servers "$first" "$hosts" "$scratch/host" "$scratch/user.pub" "$scratch/known_hosts" "$scratch/sshd.log"
}

inventory() { # PORTS...
  printf 'cluster: {name: bench}\nssh: {user: %s, identity: %s, known_hosts: %s, agent: false, become: none}\nhosts:\n' \
    "$user" "$scratch/user" "$scratch/known_hosts"
  local role=control-plane
  for port in "$@"; do
    printf '  h%s: {address: "127.0.0.1:%s", node_address: 10.0.%s.%s, role: %s}\n' "$port" "$port" \
      $((port / 250 % 250)) $((port % 250 + 1)) "$role"
    role=worker
  done
}

options() {
  printf '%s\n' -F none -i "$scratch/user" -o UserKnownHostsFile="$scratch/known_hosts" -o BatchMode=yes \
    -o StrictHostKeyChecking=yes -o KexAlgorithms=curve25519-sha256
}

ours() { "$binary" exec -i "$scratch/inventory.yaml" --no-stdin --parallel "$hosts" --quiet -- true; }
ssh_processes() {
  local waiting=() index
  for index in $(seq 0 $((hosts - 1))); do
    ssh "${ssh_options[@]}" -p $((first + index)) "$user@127.0.0.1" true &
    waiting+=($!)
  done
  wait "${waiting[@]}"
}
parallel_ssh() {
  python3 - <<PYTHON
from pssh.clients import ParallelSSHClient
from pssh.config import HostConfig
ports = range($first, $first + $hosts)
client = ParallelSSHClient(["127.0.0.1"] * $hosts, host_config=[HostConfig(port=port) for port in ports],
                           user="$user", pkey="$scratch/user", pool_size=$hosts)
output = client.run_command("true")
client.join(output)
assert all(host.exit_code == 0 for host in output)
PYTHON
}
pyinfra_exec() { (cd "$scratch" && pyinfra --parallel "$hosts" -y inventory.py exec -- true); }
ansible_raw() {
  ANSIBLE_CONFIG=$scratch/ansible.cfg ansible -i "$scratch/ansible" all -m raw -a true
}

settings() {
  inventory $(seq "$first" $((first + hosts - 1))) >"$scratch/inventory.yaml"
  mapfile -t ssh_options < <(options)
  {
    echo "hosts = ["
    for index in $(seq 0 $((hosts - 1))); do
      printf '("h%s", {"ssh_hostname": "127.0.0.1", "ssh_port": %s, "ssh_user": "%s", "ssh_key": "%s", "ssh_known_hosts_file": "%s", "ssh_strict_host_key_checking": "no"}),\n' \
        "$index" $((first + index)) "$user" "$scratch/user" "$scratch/known_hosts"
    done
    echo "]"
  } >"$scratch/inventory.py"
  for index in $(seq 0 $((hosts - 1))); do
    echo "h$index ansible_host=127.0.0.1 ansible_port=$((first + index)) ansible_user=$user"
  done >"$scratch/ansible"
  cat >"$scratch/ansible.cfg" <<ANSIBLE
[defaults]
forks = $hosts
gathering = explicit
[ssh_connection]
pipelining = True
ssh_args = ${ssh_options[*]} -o ControlMaster=no
ANSIBLE
}

# Wall and processor seconds of one run: `time` counts the children, the servers are none.
measure() { # NAME
  local TIMEFORMAT='%R %U %S'
  { time "$1" >"$scratch/$1.log" 2>&1; } 2>&1 || { touch "$scratch/failed-$1" && echo "$1 failed:" && tail -n 5 "$scratch/$1.log"; } >&2
}
median() { sort -n | awk '{ rows[NR] = $0 } END { print rows[int((NR + 1) / 2)] }'; }

tools
start
settings
printf '%s hosts, median of %s\n%-22s %8s %14s %8s\n' "$hosts" "$rounds" "exec true, cold" seconds 'processor s' 'of best'
declare -A wall cpu
ways=(ssh_processes parallel_ssh pyinfra_exec ansible_raw ours)
for round in $(seq "$rounds"); do
  # Whoever comes first finds a machine that rests, whoever comes last one that is warm.
  for turn in "${!ways[@]}"; do
    way=${ways[(turn + round) % ${#ways[@]}]}
    measure "$way" >>"$scratch/times-$way"
  done
done
[ ! -e "$scratch/failed-ours" ] || exit 1
best=
for way in "${ways[@]}"; do
  wall[$way]=$(cut -d' ' -f1 "$scratch/times-$way" | median)
  cpu[$way]=$(awk '{ print $2 + $3 }' "$scratch/times-$way" | median)
  [ "$way" = ours ] || [ -e "$scratch/failed-$way" ] || best=$(printf '%s\n' "$best" "${wall[$way]}" | grep . | sort -n | head -1)
done
for way in "${ways[@]}"; do
  if [ -e "$scratch/failed-$way" ]; then printf '%-22s %8s\n' "$way" failed && continue; fi
  ratio=$(awk -v a="${wall[$way]}" -v b="$best" 'BEGIN { printf "%.2f", a / b }')
  printf '%-22s %8s %14s %8s\n' "$way" "${wall[$way]}" "${cpu[$way]}" "$ratio"
done
awk -v ours="${cpu[ours]}" -v ssh="${cpu[ssh_processes]}" \
  'BEGIN { printf "processor time of ssh: %.1f times ours\n", ssh / ours }'

# One host, 80 ms of latency: seconds divided by the round trip are round trips, as long as the work is little.
far=$((first + hosts))
rustc -O --edition 2024 -o "$scratch/line" "$here/link.rs"
exec 9> >(exec "$scratch/line" --delay 40 "$far:127.0.0.1:$first" >/dev/null)
echo "[127.0.0.1]:$far $(cut -d' ' -f1,2 "$scratch/host.pub")" >>"$scratch/known_hosts"
inventory "$far" >"$scratch/inventory.yaml"
until ssh-keyscan -T 5 -p "$far" 127.0.0.1 2>/dev/null | grep -q .; do :; done
far_ssh() { ssh "${ssh_options[@]}" -p "$far" "$user@127.0.0.1" true; }
# A login and nothing else: it returns as soon as the user is known, and the master in the background is ended outside of
# the measured time.
far_login() { ssh "${ssh_options[@]}" -f -N -M -S "$scratch/master" -p "$far" "$user@127.0.0.1"; }
declare -A away
for round in $(seq "$rounds"); do
  for way in far_login far_ssh ours; do
    measure "$way" | cut -d' ' -f1 >>"$scratch/away-$way"
    [ "$way" != far_login ] || ssh -F none -S "$scratch/master" -O exit 127.0.0.1 2>/dev/null
  done
done
[ ! -e "$scratch/failed-ours" ] || exit 1
for way in far_login far_ssh ours; do away[$way]=$(median <"$scratch/away-$way"); done
printf '\n%-22s %8s %12s %22s\n' '80 ms away' seconds 'round trips' 'over a login (goal: 6)'
for way in far_login far_ssh ours; do
  awk -v way="$way" -v s="${away[$way]}" -v floor="${away[far_login]}" \
    'BEGIN { printf "%-22s %8s %12.1f %22.1f\n", way, s, s / 0.080, (s - floor) / 0.080 }'
done

# The curve of many hosts: servers that play sshd and agent, the real program in front of them.
echo
(cd "$here/.." && CLUSTERCTL=$binary cargo test --quiet --test integration -- --ignored --nocapture the_curve_of_many_hosts) |
  grep -E '^ +(hosts|[0-9])'
