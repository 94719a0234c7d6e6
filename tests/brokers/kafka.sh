# shellcheck shell=bash
# Apache Kafka: one node that is broker and controller (KRaft), run from its Maven artifacts.
# POSTRIDER_TEST_KAFKA_SETTINGS: more lines for its server.properties.

port=${POSTRIDER_TEST_KAFKA_PORT:-29092}
controller_port=${POSTRIDER_TEST_KAFKA_CONTROLLER_PORT:-29093}
# A second way in, for a proxy: it listens on the proxy port, which this listener advertises, and passes on to this one.
# (Clients of Kafka go where the broker tells them to, so a proxy before the first listener would be walked past.)
behind_proxy_port=${POSTRIDER_TEST_KAFKA_BEHIND_PROXY_PORT:-29094}
proxy_port=${POSTRIDER_TEST_KAFKA_PROXY_PORT:-29095}
declare -A port_setting=(
  [$port]=POSTRIDER_TEST_KAFKA_PORT
  [$controller_port]=POSTRIDER_TEST_KAFKA_CONTROLLER_PORT
  [$behind_proxy_port]=POSTRIDER_TEST_KAFKA_BEHIND_PROXY_PORT
)

kafka_version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$brokers_dir/pom.xml")
kafka_jars=$cache/kafka-$kafka_version-$(cksum <"$brokers_dir/pom.xml" | cut -d ' ' -f 1)

broker_url() {
  printf 'kafka://%s:%s' "$host" "$port"
}

broker_environment() {
  printf 'POSTRIDER_TEST_KAFKA_PROXY=%s:%s\n' "$host" "$proxy_port"
  printf 'POSTRIDER_TEST_KAFKA_BEHIND_PROXY=%s:%s\n' "$host" "$behind_proxy_port"
}

# The compiler, make and OpenSSL are for the client library.
broker_install() {
  ensure_packages c++=g++ make=make pkg-config=pkgconf /usr/include/openssl/ssl.h=libssl-dev java=default-jre-headless
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  ((version >= 17)) || fail "needs a Java runtime of at least 17, and java is $version: install one, or put it first in PATH"

  [[ -d $kafka_jars ]] && return
  ensure_packages mvn=maven
  say "fetching Apache Kafka $kafka_version"
  # Under this name until it is whole; what was left unfinished earlier is not used.
  partial=$kafka_jars.part
  trap 'rm -rf "$partial"' EXIT
  rm -rf "$partial"
  local output
  output=$(mvn --quiet --batch-mode -f "$brokers_dir/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$partial" 2>&1 </dev/null) ||
    fail "Maven could not fetch it:"$'\n'"$output"$'\n'"Try again, name a mirror of Maven Central in ~/.m2/settings.xml," \
      "or take the brokers from containers (POSTRIDER_BROKERS=docker)."
  mv -T "$partial" "$kafka_jars"
}

broker_ports() {
  printf '%s\n' "$port" "$controller_port" "$behind_proxy_port"
}

broker_prepare() {
  [[ -d $kafka_jars ]] || fail "is not installed: POSTRIDER_BROKERS=native tests/brokers/ctl install kafka"
  cat >"$(dir)/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$host:$controller_port
listeners=CLIENT://$host:$port,PROXIED://$host:$behind_proxy_port,CONTROLLER://$host:$controller_port
advertised.listeners=CLIENT://$host:$port,PROXIED://$host:$proxy_port
listener.security.protocol.map=CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
log.dirs=$(dir)/data

auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# After a kill the node waits until its former self has expired.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
${POSTRIDER_TEST_KAFKA_SETTINGS-}
EOF
  [[ -f $(dir)/data/meta.properties ]] && return
  java_command -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
    --cluster-id cG9zdHJpZGVyLXRlc3RzMQ --ignore-formatted --config "$(dir)/server.properties"
  "${command[@]}" >>"$(dir)/log" 2>&1 </dev/null || {
    backend_log 20 >&2
    fail "cannot start: its data directory could not be formatted"
  }
}

broker_command() {
  java_command -Xms256m -Xmx768m -XX:+UseSerialGC kafka.Kafka "$(dir)/server.properties"
}

# `ctl cli kafka topics --list`: the command lines that Kafka ships as kafka-topics.sh and so on.
broker_cli() {
  local tool
  case ${1-} in
    topics) tool=org.apache.kafka.tools.TopicCommand ;;
    consumer-groups) tool=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    configs) tool=kafka.admin.ConfigCommand ;;
    acls) tool=org.apache.kafka.tools.AclCommand ;;
    *) fail "has topics, consumer-groups, configs and acls, not '${1-}'" ;;
  esac
  java_command -XX:TieredStopAtLevel=1 "$tool" --bootstrap-server "$host:$port" "${@:2}"
}

broker_container_cli() {
  command=("/opt/kafka/bin/kafka-$1.sh" --bootstrap-server localhost:9091 "${@:2}")
}

java_command() {
  command=(
    java -cp "$kafka_jars/*" -Xshare:auto -Djava.awt.headless=true
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS" "$@"
  )
}

# A metadata request, version 1, for no topic. The answer (length, correlation id, then the brokers) names a broker from
# the moment this one takes requests.
broker_answers() {
  local request='\x00\x00\x00\x13\x00\x03\x00\x01\x00\x00\x00\x07\x00\x05probe\x00\x00\x00\x00'
  [[ $(ask "$port" 12 "$request") == ????????0000000700000001 ]]
}
