#!/usr/bin/env bash
# converge.sh BINARY BUNDLE [PART...]: what a second `up` costs, one more worker, and latency. Prints seconds, ratios and
# the goals. Parts, each a few minutes: noop play worker far; all of them without a word.
# HOSTS=50 hosts of the no-op, NODES=8 nodes of the large cluster, DELAY=0.04 seconds each way to far hosts, ROUNDS=3; the median
# counts, and what is compared takes turns.
set -euo pipefail
binary=$(readlink -f "$1") bundle=$(readlink -f "$2")
shift 2
hosts=${HOSTS:-50} nodes=${NODES:-8} rounds=${ROUNDS:-3} first=${PORT:-24400}
here=$(cd "$(dirname "$0")/.." && pwd)
bed="$here/vagrant/bed"
scratch=$(mktemp -d)
sets=(converge converge-more converge-one converge-near converge-far)
processes=() servers=()
# shellcheck source=benches/servers.sh
. "$here/benches/servers.sh"
finish() {
  kill "${processes[@]}" "${servers[@]}" 2>/dev/null || true
  for name in "${sets[@]}"; do "$bed" hosts destroy "$name" >/dev/null 2>&1 || true; done
  rm -rf "$scratch"
}
trap finish EXIT

fresh() { # NAME COUNT
  "$bed" hosts destroy "$1" >/dev/null 2>&1 || true
  "$bed" hosts create --name "$1" --count "$2" --json >"$scratch/$1.json"
  "$bed" inventory "$1" >"$scratch/$1.yaml"
  sync
}
configure() { # NAME FIELD: one of ClusterConfiguration
  sed -i "s/^  kubeadm: |\$/&\n    apiVersion: kubeadm.k8s.io\/v1beta4\n    kind: ClusterConfiguration\n    $2\n    ---/" "$scratch/$1.yaml"
  grep -qF "$2" "$scratch/$1.yaml"
}
now() { date +%s.%N; }
up() { # INVENTORY
  "$binary" up -i "$1" --bundle "$bundle" --parallel "$hosts" --yes --output json >"$scratch/events" ||
    { grep -E '"(step-failed|failed)"' "$scratch/events" || tail -n 3 "$scratch/events"; exit 1; } >&2
}
nothing_changed() {
  [ "$(jq -s 'map(select(.event == "run-finished")) | last.changes' "$scratch/events")" = 0 ] ||
    { echo "that was no no-op:" && jq -r 'select(.event == "changed") | "\(.host) \(.change)"' "$scratch/events"; exit 1; } >&2
}
seconds_of() { # COMMAND...
  local from to
  from=$(now)
  "$@"
  to=$(now)
  awk -v from="$from" -v to="$to" 'BEGIN {printf "%.2f\n", to - from}'
}
median() { sort -n | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }
ratio() { awk -v one="$1" -v other="$2" 'BEGIN {printf "%.2f", one / other}'; }

# One real control plane, one real worker, and for each other host a real sshd of this machine behind whose key for us
# stands an agent that is played: it knows its facts and finds that nothing is to do. The other key is for commands.
servers() {
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/server"
  ssh-keygen -q -t ed25519 -N '' -f "$scratch/plain"
  cat >"$scratch/agent.pl" <<PERL
use MIME::Base64 qw(decode_base64url);
\$| = 1;
my \$number = (split / /, \$ENV{SSH_CONNECTION})[3] - $first + 1;
my \$empty = '{"changes":[],"unknown":[]}';
my %answers = ('lock' => '{"waited":false}', 'lacking' => '[]', 'remember' => 'false', 'rehearse' => "[\$empty,\$empty,\$empty]");
\$answers{facts} = qq({"architecture":"amd64","systemd":true,"cpus":2,"memory_bytes":4294967296,"hostname":"played\$number",)
  . qq("machine_id":"played\$number","addresses":[{"link":"eth0","address":"172.29.200.\$number/16"}],)
  . qq("routes":[{"destination":"0.0.0.0/0","via":"172.29.0.1","link":"eth0"}],)
  . qq("kubernetes":{"kubelet_conf":true,"journal_cluster":"converge"}});
sub answer {
  return unless shift =~ /^\{"id":([1-9]\d*),"request":\{"kind":"([a-z-]+)"/;
  print qq({"kind":"answer","id":\$1,"result":{"Ok":) . (\$answers{\$2} // 0) . "}}\n";
}
print qq({"kind":"ready"}\n);
if (\$ENV{SSH_ORIGINAL_COMMAND} =~ /--asked ([\w-]+)/) { answer(\$_) for split /^/, decode_base64url(\$1); }
answer(\$_) while <STDIN>;
PERL
  {
    echo "command=\"perl $scratch/agent.pl\" $(cat "$(jq -r .key "$scratch/converge.json").pub")"
    cat "$scratch/plain.pub"
  } >"$scratch/authorized"
  start_servers "$first" "$hosts" "$scratch/server" "$scratch/authorized" "$scratch/served" "$scratch/sshd.log"
}

played() { # The lines of the hosts that are played
  local number
  for number in $(seq $((hosts - 2))); do
    printf '  played%s: {address: "127.0.0.1:%s", node_address: 172.29.200.%s, role: worker}\n' \
      "$number" $((first + number - 1)) "$number"
  done
}

# Their Nodes, ready, as their kubelets would have made them; without the label by which kube-proxy would go there.
played_nodes() {
  local number
  for number in $(seq $((hosts - 2))); do
    jq -n --arg name "played$number" --arg address "172.29.200.$number" '{apiVersion: "v1", kind: "Node", metadata: {$name},
      status: {addresses: [{type: "InternalIP", $address}], conditions: [{type: "Ready", status: "True", reason: "KubeletReady",
        message: "played", lastHeartbeatTime: (now | todate), lastTransitionTime: (now | todate)}],
        capacity: {cpu: "2", memory: "4Gi", pods: "110"}, allocatable: {cpu: "2", memory: "4Gi", pods: "110"},
        nodeInfo: {kubeletVersion: "v1.36.3", architecture: "amd64", operatingSystem: "linux", bootID: "", containerRuntimeVersion: "",
          kernelVersion: "", kubeProxyVersion: "", machineID: "", osImage: "", systemUUID: ""}}}'
  done | jq -s '{apiVersion: "v1", kind: "List", items: .}' >"$scratch/nodes.json"
}

ssh_true() {
  local key known
  key=$(jq -r .key "$scratch/converge.json") known=$(jq -r .known_hosts "$scratch/converge.json")
  {
    jq -r '.hosts[].address' "$scratch/converge.json" | sed "s|.*|$key 22 &|"
    for index in $(seq 0 $((hosts - 3))); do echo "$scratch/plain $((first + index)) 127.0.0.1"; done
  } | xargs -P 64 -L 1 sh -c 'exec ssh -F none -i "$1" -p "$2" -o UserKnownHostsFile="$0" -o BatchMode=yes \
    -o IdentitiesOnly=yes -o KexAlgorithms=curve25519-sha256 "root@$3" true' "$known"
}

noop() {
  echo "no-op up, $hosts hosts"
  fresh converge 2
  # Nobody reports for nodes that are played.
  configure converge 'controllerManager: {extraArgs: [{name: node-monitor-grace-period, value: 1h}]}'
  up "$scratch/converge.yaml"
  local control_plane known plain noop
  control_plane=$(jq -r '.hosts[0].name' "$scratch/converge.json") known=$(jq -r .known_hosts "$scratch/converge.json")
  servers
  cat "$scratch/served" >>"$known"
  played_nodes
  "$bed" host sh "$control_plane" -- sh -c 'kubectl --kubeconfig /etc/kubernetes/admin.conf create -f - >/dev/null' <"$scratch/nodes.json"
  played >>"$scratch/converge.yaml"
  # The routes to them.
  up "$scratch/converge.yaml"
  up "$scratch/converge.yaml"
  nothing_changed
  noop=$(for _ in $(seq "$rounds"); do seconds_of up "$scratch/converge.yaml"; done | median)
  plain=$(for _ in $(seq "$rounds"); do seconds_of ssh_true; done | median)
  echo "  up $noop s, parallel ssh true $plain s: ratio $(ratio "$noop" "$plain") (goal: 1.5)"
  echo "$noop" >"$scratch/noop"
  # Hosts that are played cost nothing here; a real one does.
  local worker before during
  worker=$(jq -r '.hosts[1].name' "$scratch/converge.json")
  before=$(processor_time "$worker")
  up "$scratch/converge.yaml"
  during=$(processor_time "$worker")
  read -r -t "$noop" <> <(:) || true
  awk -v before="$before" -v during="$during" -v after="$(processor_time "$worker")" 'BEGIN {
    printf "  a real member: %.2f s of its processor, in as long without a run %.2f s\n", (during - before) / 1e6, (after - during) / 1e6}'
}
# What the processors have worked for a host so far, in microseconds; cgroup v1 counts nanoseconds.
processor_time() { # HOST
  "$bed" host sh "$1" -- sh -c 'if cd /sys/fs/cgroup/cpuacct 2>/dev/null; then awk "{printf \"%d\n\", \$1 / 1000}" cpuacct.usage
    else awk "\$1 == \"usage_usec\" {print \$2}" /sys/fs/cgroup/cpu.stat; fi'
}

# A play of as many tasks as our own playbooks have, with nothing to do, on as many hosts: the same sshd, by the key for
# commands, with Ansible's best settings. What the tasks would write is there already.
play() {
  local venv=${CLUSTERCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clusterctl}/bench-ssh task tasks index folder=$scratch/ansible
  if [ ! -e "$venv/done" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet parallel-ssh pyinfra ansible-core >&2
    touch "$venv/done"
  fi
  local PATH=$venv/bin:$PATH
  [ -e "$scratch/converge.json" ] || fresh converge 1
  [ -e "$scratch/served" ] || servers
  mkdir -p "$folder"
  cat >"$folder/ansible.cfg" <<ANSIBLE
[defaults]
forks = $hosts
gathering = explicit
deprecation_warnings = False
[ssh_connection]
pipelining = True
ssh_args = -F none -i $scratch/plain -o IdentitiesOnly=yes -o UserKnownHostsFile=$scratch/served -o KexAlgorithms=curve25519-sha256 -o ControlMaster=auto -o ControlPersist=60s
ANSIBLE
  tasks=$(cat "$here"/playbooks/*.yaml | grep -c '^  - name: ')
  for index in $(seq "$hosts"); do
    echo "h$index ansible_host=127.0.0.1 ansible_port=$((first + index - 1)) ansible_user=root ansible_python_interpreter=$(command -v python3)"
    for task in $(seq "$tasks"); do printf 'task %s\n' "$task" >"$folder/h$index-$task"; done
  done >"$folder/hosts"
  chmod 0644 "$folder"/h*
  {
    printf -- '- hosts: all\n  tasks:\n'
    for task in $(seq "$tasks"); do
      printf '  - copy: {content: "task %s\\n", dest: "%s/{{ inventory_hostname }}-%s", mode: "0644"}\n' "$task" "$folder" "$task"
    done
  } >"$folder/play.yaml"
  echo "a play of $tasks tasks without a change, $hosts hosts"
  ansible_play() {
    (cd "$folder" && ANSIBLE_CONFIG=ansible.cfg ansible-playbook -i hosts play.yaml >run.log 2>&1) &&
      ! grep -q 'changed=[1-9]' "$folder/run.log" || { tail "$folder/run.log" >&2; exit 1; }
  }
  local played
  played=$(seconds_of ansible_play)
  echo "  Ansible $played s"
  [ ! -e "$scratch/noop" ] || echo "  up takes $(ratio "$(cat "$scratch/noop")" "$played") of it (goal: 0.05)"
}

# Adds one more host to a cluster and prints how long that takes.
add() { # INVENTORY LINE
  echo "  $2" >>"$1"
  # What the hosts before it wrote is on the disk, as with a cluster that has been there for a while.
  sync
  seconds_of up "$1"
}

# A cluster to which hosts are to be added, whose lines go to a file of their own.
to_grow() { # NAME NODES
  fresh "$1" $(($2 + rounds))
  tail -n "$rounds" "$scratch/$1.yaml" >"$scratch/$1.lines"
  head -n -"$rounds" "$scratch/$1.yaml" >"$scratch/$1.grown"
  up "$scratch/$1.grown"
}

# Both clusters are there all the time and grow in turns: what else the machine does is the same to both.
worker() {
  echo "one more worker"
  local large small round name
  to_grow converge-more "$nodes"
  to_grow converge-one 1
  for round in $(seq "$rounds"); do
    for name in converge-more converge-one; do
      add "$scratch/$name.grown" "$(sed -n "${round}s/^ *//p" "$scratch/$name.lines")" >>"$scratch/$name.seconds"
    done
  done
  large=$(median <"$scratch/converge-more.seconds") small=$(median <"$scratch/converge-one.seconds")
  "$bed" hosts destroy converge-more >/dev/null
  "$bed" hosts destroy converge-one >/dev/null
  echo "  to a cluster of $nodes $large s, to a cluster of one $small s: ratio $(ratio "$large" "$small") (goal: 1.2)"
}

# A forwarder in front of sshd that holds every byte back. (The connection itself is answered by the kernel at once: the
# round trip of TCP's own beginning is not seen.)
forwarder() {
  cat >"$scratch/later.py" <<'PYTHON'
import asyncio, sys
delay = float(sys.argv[1])
async def pump(reader, writer):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()
    async def write():
        while True:
            due, data = await queue.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if not data:
                return writer.close()
            writer.write(data)
            await writer.drain()
    writing = asyncio.create_task(write())
    while True:
        try:
            data = await reader.read(1 << 18)
        except ConnectionError:
            # Closed with something unread: the other side is to hear of it as well.
            data = b""
        queue.put_nowait((loop.time() + delay, data))
        if not data:
            return await writing
def serve(address):
    async def passes(reader, writer):
        far = await asyncio.open_connection(address, 22)
        await asyncio.gather(pump(reader, far[1]), pump(far[0], writer), return_exceptions=True)
    return passes
async def main():
    servers = [await asyncio.start_server(serve(address), "127.0.0.1", 0) for address in sys.argv[2:]]
    for server in servers:
        print(server.sockets[0].getsockname()[1])
    print("listening", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))
asyncio.run(main())
PYTHON
}

# Two fresh hosts behind a forwarder, in an inventory that bears their name.
behind() { # NAME DELAY
  fresh "$1" 2
  local known address port addresses inventory=$scratch/$1.yaml
  known=$(jq -r .known_hosts "$scratch/$1.json")
  mapfile -t addresses < <(jq -r '.hosts[].address' "$scratch/$1.json")
  : >"$scratch/ports"
  python3 "$scratch/later.py" "$2" "${addresses[@]}" >"$scratch/ports" &
  processes+=($!)
  until grep -q listening "$scratch/ports"; do read -r -t 0.05 <> <(:) || true; done
  paste -d' ' <(printf '%s\n' "${addresses[@]}") <(grep -v listening "$scratch/ports") >"$scratch/doors"
  while read -r address port; do
    sed -n "s/^$address /[127.0.0.1]:$port /p" "$known" >>"$known.far"
    sed -i "s/address: $address,/address: \"127.0.0.1:$port\", node_address: $address,/" "$inventory"
  done <"$scratch/doors"
  cat "$known.far" >>"$known"
  rm "$known.far"
}

# Seconds from the beginning of a run to the end of its last step but for the wait until all is ready: that one ends at random,
# wherever the laptop is, as a kubelet that has just started lets a readiness probe wait for a part of its 10 s.
steps_of() {
  python3 - "$scratch/events" <<'PYTHON'
import datetime, json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
time = lambda event: datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
ends = [time(event) for event in events if event["event"] == "step-finished" and event["step"] != "ready"]
print(f"{(max(ends) - time(events[0])).total_seconds():.2f}")
PYTHON
}

# What latency adds to `up` on bare hosts, to the same without that chance, to a second `up`, and to `true`; hosts that are near and
# hosts that are far take turns, and no cluster is beside them: what it did would count.
# With a larger delay what varies otherwise is smaller beside it, but the bytes then wait for sshd's windows too.
far() {
  echo "latency, one control plane and one worker"
  forwarder
  local delay=${DELAY:-0.04} side what inventory
  for _ in $(seq "$rounds"); do
    for side in near far; do
      inventory=$scratch/converge-$side.yaml
      away "$side"
      seconds_of up "$inventory" >>"$scratch/whole-$side"
      steps_of >>"$scratch/steps-$side"
      up "$inventory"
      for _ in $(seq "$rounds"); do
        seconds_of up "$inventory" >>"$scratch/second-$side"
        nothing_changed
        seconds_of "$binary" exec -i "$inventory" --no-stdin --quiet -- true >>"$scratch/true-$side"
      done
      away "$side"
      probe_often "converge-$side"
      seconds_of up "$inventory" >>"$scratch/sure-$side"
      gone "$side"
    done
  done
  for what in whole sure steps second true; do
    awk -v what="$what" -v near="$(median <"$scratch/$what-near")" -v away="$(median <"$scratch/$what-far")" \
      -v means="$(mean <"$scratch/$what-near") $(mean <"$scratch/$what-far")" -v trip="$delay" 'BEGIN {
      name["whole"] = "a whole up (goal: 12)"; name["sure"] = "a whole up without the chance in it (goal: 12)"
      name["steps"] = "the steps of the first, without the wait until all is ready"
      name["second"] = "a second up"; name["true"] = "exec true"
      split(means, mean, " ")
      printf "  %s: %s s, with %d ms more on every host %s s: %.1f round trips (by the means %.1f)\n", name[what], near, 2000 * trip, away,
        (away - near) / (2 * trip), (mean[2] - mean[1]) / (2 * trip)}'
  done
}
# CoreDNS by a patch of kubeadm's: its readiness is probed each second, so that a kubelet lets it wait for a part of that at most.
probe_often() { # NAME
  local directory=/root/patches
  "$bed" host sh "$(jq -r '.hosts[0].name' "$scratch/$1.json")" -- sh -c "mkdir $directory && cat >$directory/corednsdeployment.yaml" <<YAML
spec: {template: {spec: {containers: [{name: coredns, readinessProbe: {periodSeconds: 1}}]}}}
YAML
  sed -i "s|^    kind: InitConfiguration\$|&\n    patches: {directory: $directory}|" "$scratch/$1.yaml"
  grep -qF "$directory" "$scratch/$1.yaml"
}
# Hosts without a cluster, in the place of those before.
away() { # SIDE
  gone "$1"
  behind "converge-$1" "$([ "$1" = near ] && echo 0 || echo "$delay")"
}
gone() { # SIDE
  "$bed" hosts destroy "converge-$1" >/dev/null 2>&1 || true
  rm -f "$scratch/converge-$1.kubeconfig"
}
mean() { awk '{sum += $1} END {printf "%.2f", sum / NR}'; }

[ $# -gt 0 ] || set -- noop play worker far
for part in "$@"; do "$part"; done
