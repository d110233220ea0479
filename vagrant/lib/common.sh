# shellcheck shell=bash
# What every part of the bed needs: where things lie, how to talk, how to install, how to lock.

BED_HOME="${BED_HOME:?the bed sets this}"
CACHE="${CLUSTERCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clusterctl}"
# Where a verb runs with locks or temporary folders, this process cleans up after itself only.
BED_TEMPS=()

say() { printf '%s\n' "bed: $*" >&2; }
die() {
  printf '%s\n' "bed: error: $*" >&2
  exit 1
}

# Paths that must go when this process ends, however it ends.
forget_later() { BED_TEMPS+=("$1"); }
forget() {
  local path
  for path in "${BED_TEMPS[@]:-}"; do
    [ -z "$path" ] || rm -rf -- "$path"
  done
}
trap forget EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs as root: directly when we are root, otherwise through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -- "$@"; fi
}

# Go's (and Kubernetes') word for this machine's architecture.
arch() {
  case "$(uname -m)" in
    x86_64) echo amd64 ;;
    aarch64 | arm64) echo arm64 ;;
    *) die "no Kubernetes for the architecture $(uname -m)" ;;
  esac
}

# need COMMAND PACKAGE: installs the Debian package when the command is not there.
need() {
  local command=$1 package=$2
  PATH="$PATH:/usr/sbin:/sbin" type -P "$command" >/dev/null && return
  install_packages "$package"
}

# need_file FILE PACKAGE: the same for a file (a static library).
need_file() {
  local file=$1 package=$2
  [ -e "$file" ] && return
  install_packages "$package"
}

install_packages() {
  type -P apt-get >/dev/null || die "please install $*: this machine has no apt-get to do it with"
  say "installing $*"
  local log="$CACHE/log/apt.log"
  mkdir -p "$CACHE/log"
  with_lock apt install_packages_locked "$log" "$@"
}
install_packages_locked() {
  local log=$1
  shift
  # The package lists are fetched only when the ones at hand do not serve: a machine in use has them.
  apt_install "$@" >"$log" 2>&1 && return
  as_root apt-get update >>"$log" 2>&1 || die "apt-get update failed: see $log"
  apt_install "$@" >>"$log" 2>&1 || die "installing $* failed: see $log"
}
apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

# with_lock NAME COMMAND...: one process at a time on this machine. Locks die with their holder. A lock this process
# holds already is not taken again, so that locked pieces may call each other. Never call it behind && or ||.
with_lock() {
  local name=$1 held="BED_LOCK_${1//[^a-zA-Z0-9]/_}"
  shift
  if [ -n "${!held:-}" ]; then
    "$@"
    return
  fi
  mkdir -p "$CACHE/lock"
  local fd
  exec {fd}>"$CACHE/lock/$name"
  if ! flock -n "$fd"; then
    say "waiting for another bed that holds the lock '$name'"
    flock "$fd"
  fi
  printf -v "$held" 1
  # Not `"$@" || ...`: in a condition `set -e` would not hold inside. A failure ends this process, and the lock with it.
  # (Daemons are started without our descriptors, see spawn: or they would hold the lock for as long as they live.)
  "$@"
  printf -v "$held" ''
  exec {fd}>&-
}

# wait_until SECONDS WHAT COMMAND...: asks again until the command succeeds, or fails saying WHAT did not happen.
wait_until() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || { say "after ${seconds}s still no $what"; return 1; }
    sleep 0.05
  done
}

# A name for content: the first twelve characters of the sha256 of standard input.
short_hash() { sha256sum | cut -c1-12; }
