# shellcheck shell=bash
# Hosts: containers that boot systemd and that nobody could tell from a small machine over SSH.

# Two networks with this machine as the router between them: hosts on one subnet, or on two.
NETWORK=clusterctl-bed
SUBNET_PREFIX=(172.29 172.28)
LABEL=clusterctl-bed

bed_key() {
  KEY="$CACHE/bed/id_ed25519"
  if [ ! -s "$KEY.pub" ]; then with_lock key bed_key_make; fi
}
bed_key_make() {
  [ ! -s "$KEY.pub" ] || return 0
  need ssh-keygen openssh-client
  mkdir -p "$CACHE/bed"
  rm -f "$KEY" "$KEY.pub"
  ssh-keygen -q -t ed25519 -N '' -C clusterctl-bed -f "$KEY.new"
  # The public half last: its presence means both are there.
  mv "$KEY.new" "$KEY"
  mv "$KEY.new.pub" "$KEY.pub"
}

network_name() { if [ "$1" -eq 1 ]; then echo "$NETWORK"; else echo "$NETWORK-$1"; fi; }

network_ensure() {
  if ! docker network inspect "$(network_name "$1")" >/dev/null 2>&1; then with_lock network network_make "$1"; fi
}
network_make() {
  local name prefix=${SUBNET_PREFIX[$1 - 1]}
  name=$(network_name "$1")
  docker network inspect "$name" >/dev/null 2>&1 && return
  # The engine gives out addresses of its own choice from 0.x only (Vagrant's hosts get those), the bed from 1.1 up.
  # (An interface's name takes 15 characters at most.)
  # No masquerading: hosts of the two networks see each other's true addresses, as behind a router.
  docker network create --driver bridge --subnet "$prefix.0.0/16" --gateway "$prefix.0.1" --ip-range "$prefix.0.0/24" \
    --opt com.docker.network.bridge.name="${name/%-2/2}" \
    --opt com.docker.network.bridge.enable_ip_masquerade=false "$name" >/dev/null || die "no network $name"
}

# What the router between the hosts and the world does, as rules of this machine. The engine keeps its networks apart; the
# bed's two may talk. Nothing else is let out: a packet to an address that no host has (a service's, before kube-proxy
# knows it) is answered with "unreachable", as a router does, and does not leave this machine.
NETWORK_RULES=("-i $NETWORK+ ! -o $NETWORK+ -m conntrack --ctstate NEW -j REJECT --reject-with icmp-net-unreachable"
  "-i $NETWORK+ -o $NETWORK+ -j ACCEPT")

network_rules() { # ensure|remove
  local rule words
  for rule in "${NETWORK_RULES[@]}"; do
    read -ra words <<<"$rule"
    if firewall -C DOCKER-USER "${words[@]}"; then
      [ "$1" = ensure ] || firewall -D DOCKER-USER "${words[@]}" || true
    elif [ "$1" = ensure ]; then
      firewall -I DOCKER-USER "${words[@]}" ||
        say "this machine's iptables cannot be changed: hosts reach the outside, and hosts of two subnets not each other"
    fi
  done
}
# Without asking for a password: where the engine is somewhere else or not ours, the bed works without these rules.
firewall() {
  if [ "$(id -u)" -eq 0 ]; then iptables --wait "$@"; else sudo -n iptables --wait "$@"; fi 2>/dev/null
}

# Sets ADDRESSES to $2 addresses on network $1 that nobody has. What is reserved but not yet a container is a file that
# names its creator; a creator that died reserves nothing.
addresses_reserve() { with_lock address addresses_reserve_locked "$@"; }
addresses_reserve_locked() {
  local prefix=${SUBNET_PREFIX[$1 - 1]} count=$2 file taken third fourth
  mkdir -p "$CACHE/bed/reserved"
  for file in "$CACHE"/bed/reserved/*; do
    if [ -e "$file" ] && ! kill -0 "$(cat "$file")" 2>/dev/null; then rm -f "$file"; fi
  done
  taken=" $({ docker ps --all --filter "label=$LABEL" --format "{{.Label \"$LABEL.address\"}}"
    ls "$CACHE/bed/reserved"; } | tr '\n' ' ') "
  ADDRESSES=()
  for third in {1..250}; do
    for fourth in {1..250}; do
      [ "${#ADDRESSES[@]}" -lt "$count" ] || return 0
      [[ $taken == *" $prefix.$third.$fourth "* ]] && continue
      ADDRESSES+=("$prefix.$third.$fourth")
      echo $$ >"$CACHE/bed/reserved/$prefix.$third.$fourth"
      forget_later "$CACHE/bed/reserved/$prefix.$third.$fourth"
    done
  done
  die "no $count free addresses on $prefix.0.0/16"
}

# All hosts share root's inotify instances of the machine below. A node needs about 15, and most machines allow 128: the
# kubelet of the ninth node would end with "too many open files".
watches_ensure() {
  local file=/proc/sys/fs/inotify/max_user_instances
  [ "$(cat "$file")" -lt 8192 ] || return 0
  if [ -w "$file" ]; then echo 8192 >"$file"; else sudo -n tee "$file" <<<8192 >/dev/null; fi 2>/dev/null ||
    say "fs.inotify.max_user_instances is $(cat "$file"); more than a few nodes need 8192"
}

hosts_create() {
  local prefix="" count=1 image=bare json="" sshd="" subnet=1
  while [ $# -gt 0 ]; do
    case "$1" in
      --name) prefix=${2:?} && shift 2 ;;
      --count) count=${2:?} && shift 2 ;;
      --image) image=${2:?} && shift 2 ;;
      --sshd) sshd=${2:?} && shift 2 ;;
      --subnet) subnet=${2:?} && shift 2 ;;
      --json) json=yes && shift ;;
      *) die "hosts create knows no '$1'" ;;
    esac
  done
  [[ $prefix =~ ^[a-z]([a-z0-9-]{0,40}[a-z0-9])?$ ]] || die "--name takes lower case letters, digits and dashes, not '$prefix'"
  [[ $count =~ ^[1-9][0-9]{0,2}$ ]] || die "--count takes a number from 1 to 999, not '$count'"
  [[ $subnet =~ ^([12]|both)$ ]] || die "--subnet is 1, 2 or both, not '$subnet'"
  [[ -z $sshd || $sshd == many ]] || die "--sshd takes only 'many', not '$sshd'"

  engine_command
  need jq jq
  need ssh-keyscan openssh-client
  image_ensure "$image"
  network_ensure 1
  [ "$subnet" = 1 ] || network_ensure 2
  with_lock network network_rules ensure
  watches_ensure
  bed_key
  [ -z "$(hosts_containers "$prefix")" ] || die "there are hosts of the name $prefix already: bed hosts destroy $prefix"

  local i log started=() failed="" subnets=() addresses=()
  if [ "$subnet" = both ]; then
    for ((i = 1; i <= count; i++)); do
      subnets+=($((2 - i % 2)))
      addresses_reserve "${subnets[-1]}" 1
      addresses+=("${ADDRESSES[@]}")
    done
  else
    for ((i = 1; i <= count; i++)); do subnets+=("$subnet"); done
    addresses_reserve "$subnet" "$count"
    addresses=("${ADDRESSES[@]}")
  fi

  mkdir -p "$CACHE/bed/$prefix" "$CACHE/log"
  log="$CACHE/log/hosts-$prefix.log"
  for ((i = 1; i <= count; i++)); do
    # shellcheck disable=SC2153
    host_run "$IMAGE" "$prefix" "$i" "${addresses[i - 1]}" "${subnets[i - 1]}" "$sshd" >"$log.$i" 2>&1 &
    started+=($!)
  done
  for ((i = 1; i <= count; i++)); do wait "${started[i - 1]}" || failed+=" $prefix$i"; done
  cat "$log".* >"$log"
  rm -f "$log".*
  if [ -z "$failed" ]; then
    keys_wait "$CACHE/bed/$prefix/known_hosts" "${addresses[@]}" || failed=" some of $prefix"
  fi
  if [ -n "$failed" ]; then
    tail -n 5 "$log" >&2
    # Half a set of hosts serves nobody, and the next try would stumble over it.
    hosts_destroy "$prefix"
    die "not started:$failed (see $log)"
  fi
  hosts_show "$prefix" "$json"
}

host_run() {
  local image=$1 prefix=$2 i=$3 address=$4 subnet=$5 sshd=$6
  # Not --privileged: where a capability (SYS_RESOURCE) is not to be had that fails as a whole. /var/lib is a volume:
  # overlay mounts cannot lie on the engine's own, and a volume deeper down would be a folder nobody could remove.
  docker run --detach --name "$prefix$i" --hostname "$prefix$i" \
    --label "$LABEL=$prefix" --label "$LABEL.address=$address" --label "$LABEL.number=$i" \
    --network "$(network_name "$subnet")" --ip "$address" \
    --stop-signal SIGRTMIN+3 --cap-add ALL --cap-drop SYS_RESOURCE \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' --cgroupns=private \
    --tmpfs /run --tmpfs /tmp:exec --volume /var/lib \
    --env container=docker --env BED_KEY="$(cat "$KEY.pub")" --env BED_SSHD="$sshd" \
    "$image"
}

# keys_wait FILE ADDRESS...: waits until sshd answers everywhere, and writes down the host keys. The bridge is ours, so
# what answers there is the host.
keys_wait() {
  local file=$1
  shift
  KEYS_FILE=$file
  wait_until 60 "sshd on $*" keys_read "$@"
}
keys_read() {
  ssh-keyscan -T 2 -t ed25519 "$@" 2>/dev/null | sort -V >"$KEYS_FILE.new"
  [ "$(wc -l <"$KEYS_FILE.new")" -eq $# ] && mv "$KEYS_FILE.new" "$KEYS_FILE"
}

# Container ids of a prefix, or of all hosts.
hosts_containers() {
  local filter="label=$LABEL"
  [ -z "${1:-}" ] || filter+="=$1"
  docker ps --all --quiet --no-trunc --filter "$filter"
}

# hosts_lines [PREFIX]: number, name, address, container, state, prefix
hosts_lines() {
  local filter="label=$LABEL"
  [ -z "${1:-}" ] || filter+="=$1"
  docker ps --all --no-trunc --filter "$filter" --format \
    "{{.Label \"$LABEL.number\"}} {{.Names}} {{.Label \"$LABEL.address\"}} {{.ID}} {{.State}} {{.Label \"$LABEL\"}}" |
    sort -k6,6 -k1,1n
}

hosts_show() {
  local prefix=$1 json=$2 lines known="$CACHE/bed/$1/known_hosts" network gateway
  lines=$(hosts_lines "$prefix")
  [ -n "$lines" ] || die "no hosts of the name $prefix"
  bed_key
  if [ -z "$json" ]; then
    awk '{ printf "%-20s %-16s %-8s %s\n", $2, $3, $5, substr($4, 1, 12) }' <<<"$lines"
    return
  fi
  network=$NETWORK
  if [[ $lines == *" ${SUBNET_PREFIX[1]}."* ]]; then network="$NETWORK-2"; fi
  gateway=$(awk '{ split($3, part, "."); print part[1] "." part[2] ".0.1"; exit }' <<<"$lines")
  jq -n --arg network "$network" --arg gateway "$gateway" --arg key "$KEY" --arg known "$known" \
    --rawfile keys "$known" --arg lines "$lines" '
    ($keys | split("\n") | map(select(. != "") | split(" ") | {key: .[0], value: (.[1] + " " + .[2])}) | from_entries) as $key_of |
    {$network, $gateway, key: $key, known_hosts: $known,
     hosts: [$lines | split("\n")[] | split(" ") |
       {name: .[1], address: .[2], container: .[3], state: .[4], host_key: $key_of[.[2]]}]}'
}

hosts_list() {
  local prefix="" json=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --json) json=yes ;;
      -*) die "hosts list knows no '$1'" ;;
      *) prefix=$1 ;;
    esac
    shift
  done
  engine_command
  if [ -n "$prefix" ]; then
    hosts_show "$prefix" "$json"
  else
    [ -z "$json" ] || die "--json needs a name"
    hosts_lines | awk '{ printf "%-20s %-16s %-8s %s\n", $2, $3, $5, substr($4, 1, 12) }'
  fi
}

hosts_destroy() {
  local prefix=${1:-} ids
  engine_command
  case "$prefix" in
    --all) prefix="" ;;
    '' | -*) die "hosts destroy takes a name or --all" ;;
  esac
  ids=$(hosts_containers "$prefix")
  # Pulling the plug is enough, they will not be needed again. Parallel: the engine takes a second for each.
  [ -z "$ids" ] || xargs -n 1 -P 8 docker rm --force --volumes <<<"$ids" >/dev/null
  if [ -n "$prefix" ]; then
    rm -rf "${CACHE:?}/bed/$prefix"
    return
  fi
  # Nobody is left: the networks go too. (Vagrant's machines may still be on the first: then it stays.)
  local subnet
  for subnet in 1 2; do docker network rm "$(network_name "$subnet")" >/dev/null 2>&1 || true; done
  if ! docker network inspect "$NETWORK" >/dev/null 2>&1; then with_lock network network_rules remove; fi
}

# One host ---------------------------------------------------------------------------------------------------------

host_command() {
  local verb=${1:-} name=${2:-}
  [ $# -ge 2 ] || die "host VERB NAME; verbs: stop start restart kill pause unpause cut heal fill unfill clock sh"
  shift 2
  engine_command
  local ADDRESS PREFIX
  ADDRESS=$(docker inspect --format "{{index .Config.Labels \"$LABEL.address\"}}" "$name" 2>/dev/null) || die "no host $name"
  PREFIX=$(docker inspect --format "{{index .Config.Labels \"$LABEL\"}}" "$name")
  [ -n "$ADDRESS" ] || die "$name is a container, but no host of the bed"
  case "$verb" in
    stop) docker stop --time 30 "$name" >/dev/null ;;
    start) host_start "$name" ;;
    restart)
      docker stop --time 30 "$name" >/dev/null
      host_start "$name"
      ;;
    kill) docker kill "$name" >/dev/null ;;
    pause) host_pause "$name" ;;
    unpause) docker unpause "$name" >/dev/null ;;
    cut) host_cut "$name" "$@" ;;
    heal) host_heal "$name" ;;
    fill) host_fill "$name" "$@" ;;
    unfill) host_inside "$name" umount "${1:?unfill NAME PATH}" ;;
    clock) host_clock "$name" "$@" ;;
    sh)
      [ "${1:-}" != -- ] || shift
      [ $# -gt 0 ] || set -- bash
      if [ -t 0 ] && [ -t 1 ]; then exec docker exec -it "$name" "$@"; else exec docker exec -i "$name" "$@"; fi
      ;;
    import) docker exec -i "$name" ctr -n k8s.io images import - <"${1:?import HOST ARCHIVE}" >/dev/null ;;
    *) die "host knows no verb '$verb'" ;;
  esac
}

host_start() {
  docker start "$1" >/dev/null
  # The host key outlives the boot; only that sshd answers is new.
  mkdir -p "$CACHE/bed/$PREFIX"
  keys_wait "$CACHE/bed/$PREFIX/.boot-$1" "$ADDRESS"
  rm -f "$CACHE/bed/$PREFIX/.boot-$1"
}

# A process that waits for the disk stands still only when the disk has answered, and the engine gives up before a busy one
# does.
host_pause() { wait_until 30 "standstill of $1" host_pause_once "$1"; }
host_pause_once() {
  local said
  said=$(docker pause "$1" 2>&1 >/dev/null) && return
  [[ $said == *"unable to freeze"* ]] || die "$1 cannot be paused: $said"
  return 1
}

host_inside() {
  local name=$1
  shift
  docker exec -i "$name" "$@"
}

# Cuts are tables of the packet filter inside the host, one per cut, ahead of everything a cluster puts there.
host_cut() {
  local name=$1 other="" mac
  shift
  if [ "${1:-}" = --from ]; then other=${2:?--from NAME}; fi
  if [ -z "$other" ]; then
    host_inside "$name" nft -f - <<'NFT'
table inet clusterctl_bed {}
delete table inet clusterctl_bed
table inet clusterctl_bed {
  chain in { type filter hook prerouting priority -450; iifname "eth0" drop; }
  chain out { type filter hook postrouting priority 450; oifname "eth0" drop; }
}
NFT
    return
  fi
  # By the sender's link address: what comes from the other's pods has other addresses above it. Each side refuses the
  # other, so nothing passes in either direction.
  local here there
  for mac in "$name $other" "$other $name"; do
    here=${mac% *}
    there=${mac#* }
    host_inside "$here" nft -f - <<NFT
table inet clusterctl_bed_$there {}
delete table inet clusterctl_bed_$there
table inet clusterctl_bed_$there {
  chain in {
    type filter hook prerouting priority -450;
    ether saddr $(docker inspect --format '{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' "$there") drop;
  }
}
NFT
  done
}

host_heal() {
  local name=$1 peer
  # shellcheck disable=SC2016
  host_inside "$name" bash -c 'nft list tables inet | while read -r _ _ table; do
    case $table in clusterctl_bed*) nft delete table inet "$table" ;; esac; done'
  # And what the others hold against this one.
  for peer in $(docker ps --filter "label=$LABEL" --format '{{.Names}}'); do
    [ "$peer" = "$name" ] || host_inside "$peer" nft delete table inet "clusterctl_bed_$name" 2>/dev/null || true
  done
}

# fill NAME PATH [FREE]: PATH becomes a file system of its own with the same content and only FREE bytes (0) left.
host_fill() {
  local name=$1 path=${2:?fill NAME PATH} free=${3:-0}
  host_inside "$name" bash -s -- "$path" "$free" <<'FILL'
set -euo pipefail
path=$1 free=$(numfmt --from=iec "$2")
mkdir -p "$path"
used=$(du -sk --apparent-size "$path" | cut -f1)
[ "$used" -lt 262144 ] || { echo "$path holds ${used} KiB: too much to hold in memory" >&2; exit 1; }
new=$(mktemp -d)
# As many bytes as the content may need, and every inode: both ends of "no space left on device".
mount -t tmpfs -o "size=$((used * 2 + 4096 + free / 1024 * 2))k,mode=$(stat -c %a "$path")" clusterctl-bed-full "$new"
cp -a "$path/." "$new/"
room=$(($(df --output=avail -B1 "$new" | tail -1) - free))
[ "$room" -le 0 ] || fallocate -l "$((room / 4096 * 4096))" "$new/.bed-fill"
mount --move "$new" "$path" 2>/dev/null || { mount --bind "$new" "$path"; umount "$new"; }
rmdir "$new"
FILL
}
