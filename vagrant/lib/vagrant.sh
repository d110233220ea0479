# shellcheck shell=bash
# The same hosts through Vagrant, and an inventory of whatever machines Vagrant has.

vagrant_command() {
  local verb=${1:-}
  [ $# -eq 0 ] || shift
  case "$verb" in
    install) need vagrant vagrant ;;
    settings) vagrant_settings ;;
    inventory) vagrant_inventory "$@" ;;
    *) die "vagrant install, settings or inventory, not '$verb'" ;;
  esac
}

# What the Vagrantfile's docker provider asks for.
vagrant_settings() {
  engine_command
  image_ensure bare
  network_ensure 1
  with_lock network network_rules ensure
  bed_key
  printf 'image=%s\nkey=%s\n' "$IMAGE" "$KEY"
}

# From `vagrant ssh-config`. Containers are named by their own address, which their pods' routes can use; machines of
# other providers by the one that routes to the default gateway, or the private network's where that is VirtualBox's NAT.
vagrant_inventory() {
  local config name host port user key
  type -P vagrant >/dev/null || die "there is no vagrant: bed vagrant install"
  config=$(cd "$BED_HOME" && vagrant ssh-config) || die "vagrant ssh-config failed: are the machines up?"
  local names
  mapfile -t names < <(awk '$1 == "Host" { print $2 }' <<<"$config")
  [ "${#names[@]}" -gt 0 ] || die "vagrant has no machine that is up"
  mkdir -p "$CACHE/bed/vagrant"
  local known="$CACHE/bed/vagrant/known_hosts" lines="" role=control-plane address machines=containers
  : >"$known.new"
  user=$(awk '$1 == "User" { print $2; exit }' <<<"$config")
  key=$(awk '$1 == "IdentityFile" { gsub("\"", "", $2); print $2; exit }' <<<"$config")
  for name in "${names[@]}"; do
    host=$(ssh_config_field "$config" "$name" HostName)
    port=$(ssh_config_field "$config" "$name" Port)
    address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "vagrant-$name" 2>/dev/null | cut -d' ' -f1) || address=""
    if [ -z "$address" ]; then
      machines=virtual
      address=$(vagrant_ssh "$host" "$port" "$user" "$(ssh_config_field "$config" "$name" IdentityFile)" \
        "ip -4 -brief address show scope global" | awk '{ sub("/.*", "", $3); if ($3 !~ /^10\.0\.2\./) { print $3; exit } }')
      [ -n "$address" ] || die "$name says no address that other machines could reach"
    fi
    ssh-keyscan -T 5 -t ed25519 "$address" 2>/dev/null >>"$known.new"
    lines+="  $name: {address: $address, role: $role}"$'\n'
    role=worker
  done
  mv "$known.new" "$known"
  inventory_head vagrant "$user" "$key" "$known" "$machines"
  printf '%s' "$lines"
}

ssh_config_field() {
  awk -v name="$2" -v field="$3" '$1 == "Host" { here = $2 == name } here && $1 == field { gsub("\"", "", $2); print $2; exit }' <<<"$1"
}

vagrant_ssh() {
  ssh -F none -p "$2" -i "$4" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR "$3@$1" "$5"
}
