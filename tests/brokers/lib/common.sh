# shellcheck shell=bash
# Paths and messages. `$broker` is the broker a verb is working on.

# Debian keeps servers where only root's PATH looks.
PATH="$PATH:/usr/sbin:/sbin"

state=$(realpath -m "${POSTRIDER_TEST_STATE:-$brokers_dir/.state}")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/postrider-tests
host=127.0.0.1

say() {
  printf '%s: %s\n' "$broker" "$*"
}

fail() {
  printf '%s: %s\n' "$broker" "$*" >&2
  exit 1
}

# Installations wait for each other, also those of other checkouts.
lock_installation() {
  mkdir -p "$cache"
  exec 9>"$cache/install.lock"
  flock --nonblock 9 || {
    say "waiting for another installation"
    flock 9
  }
}

# Polls a condition until it holds: `eventually <seconds> <command…>`.
eventually() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# Calls a function that not every broker has.
if_defined() {
  ! declare -F "$1" >/dev/null || "$@"
}
