# shellcheck shell=bash
# Brokers as containers of compose.yaml, on the same ports.

compose() {
  docker compose --project-name postrider-tests --file "$brokers_dir/compose.yaml" "$@"
}

backend_install() {
  ensure_packages c++=g++ make=make
  docker compose version >/dev/null 2>&1 || fail "needs docker with its compose plugin"
  compose pull --quiet "$broker"
}

backend_start() {
  if backend_alive; then
    say "is running already"
    return
  fi
  refuse_taken_port "$port"
  compose up --detach --no-deps "$broker"
}

backend_stop() {
  local service_state
  service_state=$(backend_state)
  [[ $service_state != paused ]] || compose unpause "$broker"
  compose stop --timeout "$stop_limit" "$broker"
}

backend_kill() { compose kill "$broker"; }
backend_pause() { compose pause "$broker"; }
backend_resume() { compose unpause "$broker"; }
backend_clean() { compose rm --force --stop --volumes "$broker"; }
backend_log() { compose logs --no-log-prefix --tail "$1" "$broker"; }

backend_state() {
  local service_state
  service_state=$(compose ps --all --format '{{.State}}' "$broker")
  printf '%s' "${service_state:-stopped}"
}

backend_alive() {
  [[ $(backend_state) == @(running|paused) ]]
}

backend_cli() {
  local command
  broker_container_cli "$@"
  compose exec -T "$broker" "${command[@]}"
}
