# shellcheck shell=bash
# Servers for measurements, for other scripts to read in: sshd on ports of 127.0.0.1 of this machine. Their processes are
# added to the array `servers`, which whoever reads this in ends.

# Starts COUNT of them from port FIRST on with the host key KEY and the file AUTHORIZED of who may log in, writes their host
# keys to the end of KNOWN, and waits until all of them answer.
start_servers() { # FIRST COUNT KEY AUTHORIZED KNOWN LOG
  local port
  mkdir -p /run/sshd
  # SHLVL keeps bash from reading the .bashrc of whoever runs this, as it does for sshd: what stands there is not measured.
  for port in $(seq "$1" $(($1 + $2 - 1))); do
    /usr/sbin/sshd -D -e -f /dev/null -h "$3" -p "$port" -o ListenAddress=127.0.0.1 -o PidFile=none \
      -o UsePAM=no -o StrictModes=no -o PermitRootLogin=yes -o MaxStartups=100 -o SetEnv=SHLVL=1 \
      -o AuthorizedKeysFile="$4" 2>>"$6" &
    servers+=($!)
    echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$3.pub")" >>"$5"
  done
  for port in $(seq "$1" $(($1 + $2 - 1))); do
    until ssh-keyscan -p "$port" 127.0.0.1 2>/dev/null | grep -q .; do :; done
  done
}
