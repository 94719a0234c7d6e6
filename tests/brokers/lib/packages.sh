# shellcheck shell=bash
# Debian packages, installed only when a command is missing, or a file.

# `ensure_packages <command>=<package>…`; a path is a file.
ensure_packages() {
  local need missing=()
  for need in "$@"; do
    command -v "${need%%=*}" >/dev/null || [[ $need == /* && -f ${need%%=*} ]] || missing+=("${need#*=}")
  done
  ((${#missing[@]})) || return 0

  command -v apt-get >/dev/null ||
    fail "needs ${missing[*]}, and this machine has no apt-get: install them"
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "needs ${missing[*]}: install them as root"
    as_root=(sudo -n)
  fi

  say "installing ${missing[*]}"
  apt_get update
  apt_get install --yes --no-install-recommends "${missing[@]}"
}

# Waits for whoever holds the package lock; shows its output only when it fails. A service that a package starts must not
# keep our own lock (9).
apt_get() {
  local output
  output=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 "$@" 2>&1 </dev/null 9>&-) ||
    fail "apt-get $* failed:"$'\n'"$output"$'\n'"Try again, name another mirror in /etc/apt/sources.list, or install" \
      "${missing[*]} by hand."
}
