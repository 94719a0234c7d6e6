# shellcheck shell=bash
# Redis, with persistence: the durable way to use it.

port=${POSTRIDER_TEST_REDIS_PORT:-26379}
declare -A port_setting=([$port]=POSTRIDER_TEST_REDIS_PORT)

broker_url() {
  printf 'redis://%s:%s' "$host" "$port"
}

broker_install() {
  ensure_packages redis-server=redis-server redis-cli=redis-tools
}

broker_ports() {
  printf '%s\n' "$port"
}

broker_prepare() {
  mkdir -p "$(dir)/data"
  cat >"$(dir)/redis.conf" <<EOF
bind $host
port $port
dir "$(dir)/data"
appendonly yes
appendfsync everysec
save ""
${POSTRIDER_TEST_REDIS_SETTINGS-}
EOF
}

broker_command() {
  command -v redis-server >/dev/null ||
    fail "is not installed: POSTRIDER_BROKERS=native tests/brokers/ctl install redis"
  command=(redis-server "$(dir)/redis.conf")
}

# `+PONG`, or `-NOAU` where it wants a password; while it loads its data it answers `-LOADING`.
broker_answers() {
  [[ $(ask "$port" 5 'PING\r\n') == @(2b504f4e47|2d4e4f4155) ]]
}

broker_cli() {
  command=(redis-cli -p "$port" "$@")
}

broker_container_cli() {
  command=(redis-cli "$@")
}
