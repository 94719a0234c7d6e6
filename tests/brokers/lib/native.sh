# shellcheck shell=bash
# Brokers as plain processes of this machine, each with a directory of its own: data, configuration, log, process id.

dir() {
  printf '%s/%s' "$state" "$broker"
}

# The process id, if the process that `start` left behind is still that one.
pid() {
  local id born
  read -r id born 2>/dev/null <"$(dir)/pid" || return 1
  [[ $(birth "$id") == "$born" ]] && printf '%s' "$id"
}

# A process id comes back one day; together with the time of birth it does not. Empty for a dead one, also unreaped: but
# not before its last thread has ended, which is what frees its ports.
birth() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} == [ZX] ]] && ((fields[17] <= 1)) || printf '%s' "${fields[19]}"
}

running() {
  pid >/dev/null
}

ended() {
  ! running
}

backend_install() {
  broker_install
}

backend_start() {
  if running; then
    say "is running already (pid $(pid))"
    return
  fi
  local needed
  for needed in $(broker_ports); do
    refuse_taken_port "$needed"
  done

  mkdir -p "$(dir)"
  local command
  broker_prepare
  broker_command
  (
    exec 9>&-
    ulimit -S -n "$(ulimit -H -n)"
    cd "$(dir)" || exit
    exec setsid "${command[@]}"
  ) </dev/null >>"$(dir)/log" 2>&1 &
  printf '%s %s\n' $! "$(birth $!)" >"$(dir)/pid"
  say "started (pid $!)"
}

backend_stop() {
  local id
  if ! id=$(pid); then
    say "is not running"
  else
    kill -CONT "$id"
    kill -TERM "$id"
    if eventually "$stop_limit" ended; then
      say "stopped"
    else
      kill -KILL "$id"
      eventually 10 ended || fail "pid $id survives a kill"
      say "did not stop within $stop_limit s: killed"
    fi
  fi
  rm -f "$(dir)/pid"
  if_defined broker_stopped
}

backend_kill() {
  signal KILL
  eventually 10 ended || fail "survives a kill"
  say "killed"
}

backend_pause() {
  local id tries=0
  signal STOP
  id=$(pid)
  # One thread takes the signal when it is next on a processor; until then the others go on.
  while cat "/proc/$id/task"/*/stat 2>/dev/null | grep -qv ') T '; do
    ((tries++ < 500)) || fail "does not stop"
    sleep 0.01
  done
  say "paused"
}

backend_resume() {
  signal CONT
  say "resumed"
}

signal() {
  local id
  id=$(pid) || fail "is not running"
  kill "-$1" "$id"
}

backend_state() {
  local id
  if ! id=$(pid); then
    printf 'stopped'
  elif [[ $(sed 's/.*) \(.\).*/\1/' "/proc/$id/stat") == T ]]; then
    printf 'paused (pid %s)' "$id"
  else
    printf 'running (pid %s)' "$id"
  fi
}

backend_alive() {
  running
}

backend_log() {
  tail -n "$1" "$(dir)/log" 2>/dev/null || true
}

backend_clean() {
  if running; then
    backend_stop
  fi
  if_defined broker_stopped
  rm -rf "$(dir)"
}

backend_cli() {
  local command
  broker_cli "$@"
  exec "${command[@]}"
}
