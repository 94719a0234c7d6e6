# What a user of the SDK compiles.
# shellcheck shell=bash

builds=(
  "default"
  "kafka --no-default-features --features kafka"
  "rabbitmq --no-default-features --features rabbitmq"
  "redis --no-default-features --features redis"
  "rabbitmq,tls --no-default-features --features rabbitmq,tls"
  "memory,ops --features ops"
  "memory,otel --features otel"
)

# Crates that a build links, each once: `crates <flag>…`.
crates() {
  cargo tree -p postrider "$@" -e normal --prefix none | sed 's/ (\*)$//' | sort -u | wc -l
}

# Seconds for a build from nothing: `timed_build <flag>…`.
timed_build() {
  local begin=$SECONDS
  CARGO_TARGET_DIR=$scratch/build cargo build --quiet -p postrider "$@" >&2 || return
  rm -rf "$scratch/build"
  printf %d $((SECONDS - begin))
}

measure_build() {
  local entry name flags count before seconds= rows=()
  for entry in "${builds[@]}"; do
    read -r name flags <<<"$entry"
    # shellcheck disable=SC2086
    count=$(crates $flags) || return
    if $timed; then
      # shellcheck disable=SC2086
      seconds=$(timed_build $flags) || return
      seconds+=" s"
    else
      # Without --timed what was measured before stays.
      before="| \`$name\` |"
      seconds=$(awk -F'|' -v row="$before" 'index($0, row) == 1 { gsub(/^ +| +$/, "", $4); print $4; exit }' "$report")
    fi
    tell "$(printf '%-14s %4d crates %s' "$name" "$count" "$seconds")"
    rows+=("| \`$name\` | $count | ${seconds:-not measured} |")
  done
  {
    echo "| features | crates | clean build, unoptimised |"
    echo "|---|---:|---:|"
    printf '%s\n' "${rows[@]}"
  } | table build
}
