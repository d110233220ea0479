# shellcheck shell=bash
# The container engine: the one that answers, or else one of our own.

engine_answers() { timeout 20 docker info >/dev/null 2>&1; }

engine_command() {
  # A client alone is common; it answers nothing without an engine.
  if ! { type -P docker >/dev/null && engine_answers; }; then
    need flock util-linux
    with_lock engine engine_start
  fi
}

engine_start() {
  if type -P docker >/dev/null && engine_answers; then return; fi
  [ "$(uname -s)" = Linux ] || die "please start your container engine: 'docker info' gets no answer"
  need dockerd docker.io
  need docker docker.io
  need iptables iptables
  if [ -d /run/systemd/system ]; then
    say "starting the docker service"
    as_root systemctl start docker
  else
    local log="$CACHE/log/dockerd.log"
    mkdir -p "$CACHE/log"
    say "starting dockerd (log: $log)"
    spawn "$log" "$CACHE/dockerd.pid" dockerd
  fi
  wait_until 60 "answer from the container engine" engine_answers || die "dockerd does not answer: see $CACHE/log/dockerd.log"
}

# spawn LOG PIDFILE COMMAND...: a daemon of its own session that holds none of our descriptors (a lock among them).
spawn() {
  local log=$1 pidfile=$2
  shift 2
  (
    local fd
    for fd in /proc/self/fd/*; do
      fd=${fd##*/}
      [ "$fd" -le 2 ] || eval "exec $fd>&-"
    done 2>/dev/null
    # The pid file names the daemon itself: exec keeps the pid.
    # shellcheck disable=SC2016
    exec setsid bash -c 'echo $$ >"$0"; exec "$@"' "$pidfile" "$@" </dev/null >>"$log" 2>&1
  ) &
  disown
}
