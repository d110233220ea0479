#!/usr/bin/env bash
# converge.sh BINARY BUNDLE: what a second `up` costs, one more worker, and latency. On fresh hosts of the test bed.
# HOSTS=8 hosts of the large cluster, ROUNDS=3. Prints seconds, ratios and the goals.
set -euo pipefail
binary=$(readlink -f "$1") bundle=$(readlink -f "$2")
hosts=${HOSTS:-8} rounds=${ROUNDS:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
scratch=$(mktemp -d)
forwarders=()
finish() {
  for process in "${forwarders[@]:-}"; do [ -z "$process" ] || kill "$process" 2>/dev/null || true; done
  for name in converge converge-more converge-one converge-far; do "$bed" hosts destroy "$name" >/dev/null 2>&1 || true; done
  rm -rf "$scratch"
}
trap finish EXIT

fresh() { # NAME COUNT
  "$bed" hosts destroy "$1" >/dev/null 2>&1 || true
  "$bed" hosts create --name "$1" --count "$2" --json >"$scratch/$1.json"
  "$bed" inventory "$1" >"$scratch/$1.yaml"
  sync
}
now() { date +%s.%N; }
up() { "$binary" up -i "$1" --bundle "$bundle" --yes --output json >"$scratch/events" || { tail -n 3 "$scratch/events" >&2; exit 1; }; }
seconds_of() { # COMMAND...
  local from to
  from=$(now)
  "$@"
  to=$(now)
  awk -v from="$from" -v to="$to" 'BEGIN {printf "%.2f\n", to - from}'
}
median() { sort -n | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }
ratio() { awk -v one="$1" -v other="$2" 'BEGIN {printf "%.2f", one / other}'; }

ssh_true() {
  local key known
  key=$(jq -r .key "$scratch/converge.json") known=$(jq -r .known_hosts "$scratch/converge.json")
  jq -r '.hosts[].address' "$scratch/converge.json" |
    xargs -P 64 -I{} ssh -F none -i "$key" -o UserKnownHostsFile="$known" -o BatchMode=yes -o KexAlgorithms=curve25519-sha256 root@{} true
}

# A play of as many tasks as our own playbooks have, with nothing to do, for as many hosts. It runs on this machine without
# SSH, which is to Ansible's advantage, since the bed's hosts have no Python.
ansible_play() { (cd "$scratch/ansible" && ANSIBLE_CONFIG=ansible.cfg ansible-playbook -i hosts play.yaml >run.log 2>&1) || { tail "$scratch/ansible/run.log" >&2; exit 1; }; }
ansible_prepare() {
  local venv=${CLUSTERCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clusterctl}/bench-ssh task tasks
  if [ ! -e "$venv/done" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet parallel-ssh pyinfra ansible-core >&2
    touch "$venv/done"
  fi
  PATH=$venv/bin:$PATH
  mkdir -p "$scratch/ansible"
  printf '[defaults]\nforks = %s\ngathering = explicit\ndeprecation_warnings = False\n' "$hosts" >"$scratch/ansible/ansible.cfg"
  for task in $(seq "$hosts"); do
    echo "h$task ansible_connection=local ansible_python_interpreter=$(command -v python3)"
  done >"$scratch/ansible/hosts"
  tasks=$(cat "$here"/playbooks/*.yaml | grep -c '^  - name: ')
  {
    printf -- '- hosts: all\n  tasks:\n'
    for task in $(seq "$tasks"); do
      printf '  - copy: {content: "task %s\\n", dest: "%s/{{ inventory_hostname }}-%s", mode: "0644"}\n' "$task" "$scratch/ansible" "$task"
    done
  } >"$scratch/ansible/play.yaml"
}

echo "no-op up, $hosts hosts"
fresh converge "$hosts"
up "$scratch/converge.yaml"
up "$scratch/converge.yaml"
noop=$(for _ in $(seq "$rounds"); do seconds_of up "$scratch/converge.yaml"; done | median)
plain=$(for _ in $(seq "$rounds"); do seconds_of ssh_true; done | median)
echo "  up $noop s, parallel ssh true $plain s: ratio $(ratio "$noop" "$plain") (goal at 50 hosts: 1.5)"

ansible_prepare
ansible_play
play=$(seconds_of ansible_play)
echo "  Ansible play without a change $play s: up takes $(ratio "$noop" "$play") of it (goal: 0.05)"

echo "one more worker"
fresh converge-more 1
tail -n 1 "$scratch/converge-more.yaml" >>"$scratch/converge.yaml"
# One known_hosts file for both sets of hosts.
known=$(jq -r .known_hosts "$scratch/converge.json")
cat "$(jq -r .known_hosts "$scratch/converge-more.json")" >>"$known"
sed -i '$ s/role: [a-z-]*/role: worker/' "$scratch/converge.yaml"
large=$(seconds_of up "$scratch/converge.yaml")
"$bed" hosts destroy converge-more >/dev/null
"$bed" hosts destroy converge >/dev/null
fresh converge-one 2
head -n -1 "$scratch/converge-one.yaml" >"$scratch/first.yaml"
up "$scratch/first.yaml"
mv "$scratch/converge-one.yaml" "$scratch/first.yaml"
small=$(seconds_of up "$scratch/first.yaml")
"$bed" hosts destroy converge-one >/dev/null
echo "  to a cluster of $hosts $large s, to a cluster of one $small s: ratio $(ratio "$large" "$small") (goal: 1.2)"

# A forwarder in front of sshd that holds every byte back for 40 ms each way.
cat >"$scratch/later.py" <<'PYTHON'
import asyncio, sys
address, delay = sys.argv[1], float(sys.argv[2])
async def pump(reader, writer):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()
    async def write():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                return writer.close()
            writer.write(data)
            await writer.drain()
    writing = asyncio.create_task(write())
    while True:
        data = await reader.read(65536)
        await queue.put((loop.time() + delay, data))
        if not data:
            return await writing
async def serve(reader, writer):
    far = await asyncio.open_connection(address, 22)
    await asyncio.gather(pump(reader, far[1]), pump(far[0], writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
PYTHON
far() { # DELAY: seconds of an `up` on two fresh hosts behind forwarders
  fresh converge-far 2
  local known address port
  known=$(jq -r .known_hosts "$scratch/converge-far.json")
  for address in $(jq -r '.hosts[].address' "$scratch/converge-far.json"); do
    python3 "$scratch/later.py" "$address" "$1" >"$scratch/port" &
    forwarders+=($!)
    until [ -s "$scratch/port" ]; do read -r -t 0.05 <> <(:) || true; done
    port=$(cat "$scratch/port")
    rm "$scratch/port"
    sed -n "s/^$address /[127.0.0.1]:$port /p" "$known" >>"$known.far"
    sed -i "s/address: $address,/address: \"127.0.0.1:$port\", node_address: $address,/" "$scratch/converge-far.yaml"
  done
  cat "$known.far" >>"$known"
  rm "$known.far"
  seconds_of up "$scratch/converge-far.yaml"
}
echo "latency, one control plane and one worker"
near=$(far 0)
away=$(far 0.04)
awk -v near="$near" -v away="$away" 'BEGIN {
  printf "  up %s s, with 80 ms more on every host %s s: %.1f round trips (goal: 12)\n", near, away, (away - near) / 0.08}'
