#!/bin/sh
# Makes sure that a Docker engine answers: starts one if none does, and installs it first where that is missing and
# this is root on a Debian-like system. Does nothing if one answers. For machines without a service manager too.
#
#   scripts/docker-engine.sh           # start if needed
#   scripts/docker-engine.sh --check   # only say whether one answers (exit 1 if not)
set -eu

say() { printf 'docker-engine: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }

socket=/var/run/docker.sock
DOCKER_HOST=${DOCKER_HOST:-unix://$socket}
log=${TMPDIR:-/tmp}/docker-engine.log
patience=60

# Asks by the API itself, so that no client program is needed.
answers() {
  case $DOCKER_HOST in
    unix://*) [ "$(curl -s -m 5 -o /dev/null -w '%{http_code}' --unix-socket "${DOCKER_HOST#unix://}" http://engine/_ping 2>/dev/null)" = 200 ] ;;
    tcp://*) [ "$(curl -s -m 5 -o /dev/null -w '%{http_code}' "http://${DOCKER_HOST#tcp://}/_ping" 2>/dev/null)" = 200 ] ;;
    *) fail "DOCKER_HOST=$DOCKER_HOST is neither unix:// nor tcp://" ;;
  esac
}

wait_for_it() {
  tries=0
  until answers; do
    tries=$((tries + 1))
    [ "$tries" -le $((patience * 2)) ] || return 1
    sleep 0.5
  done
}

install_engine() {
  [ "$(id -u)" -eq 0 ] || fail "no engine is installed; install Docker, or run this as root"
  command -v apt-get >/dev/null 2>&1 || fail "no engine is installed, and there is no apt-get to install one with"
  say "installing docker.io and iptables"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends docker.io iptables tini ca-certificates curl
}

start_engine() {
  if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
    say "starting docker.service"
    systemctl start docker
    return
  fi
  say "starting dockerd; its log is $log"
  # A session of its own: it outlives this script and its terminal.
  setsid dockerd >"$log" 2>&1 </dev/null &
}

case ${1:-} in
  '') ;;
  --check) command -v curl >/dev/null 2>&1 || fail "curl is needed to ask the engine"
    answers || fail "no engine answers"; say "an engine answers"; exit 0 ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

command -v curl >/dev/null 2>&1 && answers && { say "an engine answers already"; exit 0; }
[ "$DOCKER_HOST" = "unix://$socket" ] || fail "nothing answers at DOCKER_HOST=$DOCKER_HOST"
if ! command -v dockerd >/dev/null 2>&1 || ! command -v iptables >/dev/null 2>&1 || ! command -v curl >/dev/null 2>&1; then
  install_engine
fi
# The installation may have started it.
answers || start_engine
if ! wait_for_it; then
  [ ! -f "$log" ] || tail -n 20 "$log" >&2
  fail "no engine answers after $patience s"
fi
say "an engine answers"
