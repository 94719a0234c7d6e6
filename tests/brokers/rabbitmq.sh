# shellcheck shell=bash
# RabbitMQ: a node of its own, with its own name, cookie and port mapper (epmd), so that no other node is disturbed.

port=${POSTRIDER_TEST_RABBITMQ_PORT:-25673}
node_port=${POSTRIDER_TEST_RABBITMQ_NODE_PORT:-25674}
epmd_port=${POSTRIDER_TEST_RABBITMQ_EPMD_PORT:-25675}
declare -A port_setting=(
  [$port]=POSTRIDER_TEST_RABBITMQ_PORT
  [$node_port]=POSTRIDER_TEST_RABBITMQ_NODE_PORT
  [$epmd_port]=POSTRIDER_TEST_RABBITMQ_EPMD_PORT
)
node=postrider@localhost

broker_url() {
  printf 'amqp://guest:guest@%s:%s/postrider' "$host" "$port"
}

broker_install() {
  ensure_packages rabbitmq-server=rabbitmq-server
}

# The port mapper outlives a node that was killed, and is used again.
broker_ports() {
  printf '%s\n' "$port" "$node_port"
  port_mapper -names || printf '%s\n' "$epmd_port"
}

port_mapper() {
  ERL_EPMD_PORT=$epmd_port timeout "$answer_limit" epmd "$@" >/dev/null 2>&1
}

broker_prepare() {
  mkdir -p "$(dir)/data"
  printf '%s\n' "$epmd_port" >"$(dir)/epmd_port"
  printf '[].\n' >"$(dir)/plugins"
  sed "s|^load_definitions = .*|load_definitions = $brokers_dir/rabbitmq/definitions.json|" \
    "$brokers_dir/rabbitmq/rabbitmq.conf" >"$(dir)/rabbitmq.conf"
}

# RUNNING_UNDER_SYSTEMD: the start script becomes the node instead of staying as its parent.
broker_command() {
  command=(
    env "${node_environment[@]}"
    RABBITMQ_NODE_IP_ADDRESS="$host" RABBITMQ_NODE_PORT="$port" RABBITMQ_DIST_PORT="$node_port"
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    RABBITMQ_CONFIG_FILE="$(dir)/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$(dir)/plugins"
    RABBITMQ_MNESIA_BASE="$(dir)/data" RABBITMQ_LOG_BASE="$(dir)" RABBITMQ_LOGS=-
    RUNNING_UNDER_SYSTEMD=true
    "$(rabbitmq_script rabbitmq-server)"
  )
}

broker_cli() {
  command=(env "${node_environment[@]}" "$(rabbitmq_script rabbitmqctl)" "$@")
}

broker_container_cli() {
  command=(rabbitmqctl "$@")
}

# The cookie is in the home directory.
node_environment=(
  HOME="$state/rabbitmq" RABBITMQ_NODENAME="$node" RABBITMQ_CONF_ENV_FILE=/dev/null
  ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS="$host"
)

# Debian's commands change to the user rabbitmq and its directories; the scripts behind them do not.
rabbitmq_script() {
  local debian=/usr/lib/rabbitmq/bin/$1
  if [[ -x $debian ]]; then
    printf '%s' "$debian"
  else
    command -v "$1" || fail "is not installed: POSTRIDER_BROKERS=native tests/brokers/ctl install rabbitmq"
  fi
}

# AMQP 0-9-1 in one go: the header, Start-Ok (PLAIN guest guest), Tune-Ok, Open of the virtual host, Close. Answered with
# an Open-Ok (channel 0, 5 bytes, class 10, method 41) when the node serves that virtual host. Frames end with 0xce.
broker_answers() {
  local request='AMQP\x00\x00\x09\x01'
  request+='\x01\x00\x00\x00\x00\x00\x24\x00\x0a\x00\x0b\x00\x00\x00\x00\x05PLAIN'
  request+='\x00\x00\x00\x0c\x00guest\x00guest\x05en_US\xce'
  request+='\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1f\x00\x01\x00\x02\x00\x00\x00\x00\xce'
  request+='\x01\x00\x00\x00\x00\x00\x10\x00\x0a\x00\x28\x09postrider\x00\x00\xce'
  request+='\x01\x00\x00\x00\x00\x00\x0b\x00\x0a\x00\x32\x00\xc8\x00\x00\x00\x00\x00\xce'
  hear "$port" "$request" $'\x01\x05\x0a\x29' $'\xce'
}

# The port mapper that the node had, also where whoever stops it does not know its ports.
broker_stopped() {
  local epmd_port=$epmd_port
  [[ ! -f $(dir)/epmd_port ]] || epmd_port=$(cat "$(dir)/epmd_port")
  port_mapper -kill || true
}
