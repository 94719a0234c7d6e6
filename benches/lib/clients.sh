# The SDK beside raw loops on the client libraries, against real brokers.
# shellcheck shell=bash

networked=(rabbitmq kafka redis)

# What does not answer is started from empty, and stopped at the end.
bring_up() {
  local broker variable
  for broker in "${only[@]}"; do
    if ! "$ctl" status "$broker" >/dev/null 2>&1; then
      started+=("$broker")
      tell "starting $broker"
      { "$ctl" install "$broker" && "$ctl" clean "$broker" && "$ctl" start "$broker" && "$ctl" wait "$broker"; } >&2 || return
    fi
    while read -r variable; do
      export "${variable?}"
    done < <("$ctl" env "$broker")
  done
}

# What it was measured on.
machine() {
  local broker model version told=()
  for broker in "${only[@]}"; do
    case $broker in
      rabbitmq) version=$("$ctl" cli rabbitmq version | tail -n 1) ;;
      redis) version=$("$ctl" cli redis info server | sed -n 's/^redis_version:\([0-9.]*\).*/\1/p') ;;
      kafka) version=$(sed -n 's/.*<kafka.version>\(.*\)<.*/\1/p' tests/brokers/pom.xml) ;;
    esac
    told+=("$broker $version")
  done
  model=$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)
  printf '\n%s cores (%s), the brokers on the same; %s; %s.\n' "$(nproc)" "$model" \
    "$(printf '%s, ' "${told[@]}" | sed 's/, $//')" "$(rustc --version | cut -d' ' -f1,2)"
}

measure_clients() {
  local program
  bring_up || return
  program=$(program postrider-bench-clients release) || return
  { "$program" compare "${only[@]}" && machine; } >"$scratch/clients" || return
  table clients <"$scratch/clients"
}

measure_scale() {
  local program
  bring_up || return
  program=$(program postrider-bench-clients release) || return
  { "$program" many && echo && "$program" keys && "$program" processes "$scratch/scale.svg" "${only[@]}" && machine; } >"$scratch/scale" || return
  table scale <"$scratch/scale" || return
  $print || cp "$scratch/scale.svg" benches/scale.svg
}
