# shellcheck shell=bash
# A host's own real-time clock. Containers share the machine's, and there are no namespaces for it: the programs of the
# host are made to read another (clock.c says how).

# clock NAME SECONDS: its clock is SECONDS ahead of the true one, or behind it where they are negative; 0 is the true one.
host_clock() {
  local name=$1 seconds=${2:-}
  [[ $seconds =~ ^[+-]?[0-9]{1,9}$ ]] || die "clock NAME SECONDS takes whole seconds like 180 or -3600, not '$seconds'"
  [ "$(uname -m)" = x86_64 ] || die "the clock of a host can be moved on x86-64 only, and this machine is $(uname -m)"
  clock_tool
  # One at a time for each host. The file goes with the hosts.
  local turn
  mkdir -p "$CACHE/bed/$PREFIX"
  exec {turn}>"$CACHE/bed/$PREFIX/clock-$name.turn"
  flock "$turn"
  clock_move "$name" "$seconds"
  exec {turn}>&-
}

# Nothing of a host is started while it stands still, so each of its programs is met once: by the tool or by its watcher.
clock_move() {
  local name=$1 seconds=$2 state init paused code tries
  state=$(docker inspect --format '{{.State.Pid}} {{.State.Paused}}' "$name")
  read -r init paused <<<"$state"
  if [ "$init" -eq 0 ]; then
    # Its programs are gone, and the watcher with them; the next ones see the true time.
    [ "$seconds" -eq 0 ] || die "$name does not run: only the clock of running programs can be moved"
    return 0
  fi
  [ -d "/proc/$init" ] || die "the programs of $name run on another machine than the bed"
  for tries in {1..20}; do
    [ "$paused" = true ] || host_pause "$name" || die "$name does not stand still"
    code=0
    as_root "$CLOCK" "$init" "$seconds" "$CACHE/bed/$PREFIX/clock-$name" || code=$?
    [ "$paused" = true ] || docker unpause "$name" >/dev/null
    # A thread stood where it must not: a moment later it stands elsewhere.
    if [ "$code" -ne 75 ] || [ "$paused" = true ]; then break; fi
  done
  [ "$code" -eq 0 ] || die "the clock of $name could not be moved (code $code after $tries tries)"
}

# Sets CLOCK to the tool, made where its source or the way it is made is new.
clock_tool() {
  need flock util-linux
  CLOCK="$CACHE/bed/clock-$({ declare -f clock_make; cat "$BED_HOME/lib/clock.c"; } | short_hash)"
  if [ ! -x "$CLOCK" ]; then with_lock clock clock_make; fi
}
clock_make() {
  [ ! -x "$CLOCK" ] || return 0
  need gcc gcc
  need_file /usr/include/stdlib.h libc6-dev
  need_file /usr/include/linux/cn_proc.h linux-libc-dev
  mkdir -p "$CACHE/bed"
  gcc -O2 -Wall -Wextra -Werror -static -pthread -o "$CLOCK.new" "$BED_HOME/lib/clock.c" || die "clock.c does not compile"
  mv "$CLOCK.new" "$CLOCK"
}
