# shellcheck shell=bash
# Everything a host is, as text that two looks at an idle host give alike: the proof of what `down` leaves behind.

listing_command() {
  local name=${1:?listing NAME}
  engine_command
  docker exec -i "$name" bash -s <"$BED_HOME/lib/listing-inside"
}
