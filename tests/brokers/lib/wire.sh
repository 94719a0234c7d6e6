# shellcheck shell=bash
# Questions put to a broker in its own protocol: a few bytes through bash, where starting the broker's own tool would take
# seconds. Nothing here takes longer than the limit, so a paused broker counts as one that does not answer.

answer_limit=2

# Prints the first bytes of the answer in hex: `ask <port> <how many> <request, as a printf format>`.
ask() {
  # shellcheck disable=SC2016
  timeout "$answer_limit" bash -c '
    exec 3<>"/dev/tcp/$0/$1" && printf "$3" >&3 && head -c "$2" <&3 | od -An -v -tx1 | tr -d " \n"
  ' "$host" "$@" 2>/dev/null
}

# Reads the answer piece by piece until one is the wanted one: `hear <port> <request> <piece> <end of a piece>`. Bash drops
# zero bytes, so the wanted piece is written without them.
hear() {
  # shellcheck disable=SC2016
  LC_ALL=C timeout "$answer_limit" bash -c '
    exec 3<>"/dev/tcp/$0/$1" && printf "$2" >&3 || exit
    while IFS= read -r -d "$4" piece; do
      [[ $piece != "$3" ]] || exit 0
    done <&3
    exit 1
  ' "$host" "$@" 2>/dev/null
}

# Whether anybody listens there.
port_taken() {
  # shellcheck disable=SC2016
  timeout "$answer_limit" bash -c ': <"/dev/tcp/$0/$1"' "$host" "$1" 2>/dev/null
}

# Ends with one line when somebody listens on a port that the broker needs.
refuse_taken_port() {
  port_taken "$1" || return 0
  fail "cannot start: port $1 is taken by another process$(port_holder "$1"); stop it or set ${port_setting[$1]}"
}

# Who listens there, as far as this machine tells.
port_holder() {
  command -v ss >/dev/null || return 0
  ss -Hltnp "sport = :$1" 2>/dev/null | sed -n '0,/users:/s/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/ (\1, pid \2)/p'
}
