# Instructions and allocations per message, counted by valgrind: timing and other programs do not matter to them.
# shellcheck shell=bash

scenarios=(plain headers bytes full four ordered batch manual reply publish)
declare -A about=(
  [plain]="plain handler, metrics off"
  [headers]="the same, of messages with the headers that a \`Publisher\` adds"
  [bytes]="as \`plain\`, taking the payload as bytes"
  [full]="retry, dead letter, time limit, metrics on"
  [four]="\`concurrency = 4\`"
  [ordered]="\`concurrency = 4\`, \`ordered\`"
  [batch]="\`batch(size = 64)\`"
  [manual]="\`ack = manual\`"
  [reply]="publishes what it returns"
  [publish]="\`Publisher::send\`, awaited one by one"
)
# Instructions. Allocations have one budget, 0, where nothing is published.
declare -A budget=([plain]=1000 [full]=1250 [four]=1500)

# Only what lies between them counts: what is done once cancels out.
short_run=20000
long_run=60000
baseline=benches/engine/baseline.txt
# A figure this much above the baseline is a regression, in percent; so many allocations too.
tolerance=2
tolerance_allocations=0.02

# `count_one <tool> <program> <scenario> <messages> [unconsumed]`: instructions or allocations of one run, on standard output.
count_one() {
  local tool=$1 log
  shift
  # One thread at a time, in turns: otherwise the size of batches depends on luck.
  log=$(valgrind --fair-sched=yes --tool="$tool" "--$tool-out-file=/dev/null" "$@" 2>&1) ||
    { printf '%s\n' "$log" >&2 && return 1; }
  case $tool in
    callgrind) sed -n 's/^==[0-9]*== Collected : //p' <<<"$log" ;;
    dhat) sed -n 's/^==[0-9]*== Total: .* bytes in \([0-9,]*\) blocks$/\1/p' <<<"$log" | tr -d , ;;
  esac
}

# `per_message <tool> <program> <scenario>`: two lengths, each without what filling costs, subtracted.
per_message() {
  local tool=$1 program=$2 scenario=$3 messages mode value
  local -A counted=()
  export -f count_one
  for messages in "$short_run" "$long_run"; do
    for mode in '' unconsumed; do
      printf '%s\0' "count_one $tool '$program' $scenario $messages $mode >'$scratch/$messages.$mode'"
    done
  done | xargs -0 -P "$(nproc)" -I{} bash -c '{}' || return
  for messages in "$short_run" "$long_run"; do
    for mode in '' unconsumed; do
      value=$(<"$scratch/$messages.$mode")
      [[ $value =~ ^[0-9]+$ ]] || { tell "$tool did not say what $scenario cost" && return 1; }
      counted[$messages$mode]=$value
    done
  done
  awk "BEGIN { printf \"%.3f\", (${counted[$long_run]} - ${counted[${long_run}unconsumed]} \
    - ${counted[$short_run]} + ${counted[${short_run}unconsumed]}) / ($long_run - $short_run) }"
}

is() {
  awk "BEGIN { exit !($1) }"
}

# What the baseline says of a scenario: `known <scenario> <column>`.
known() {
  [[ -f $baseline ]] && awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$baseline"
}

# Counted once; where that looks like a regression, twice more, and the median decides.
instructions_of() {
  local program=$1 scenario=$2 before figures=()
  before=$(known "$scenario" 2) || before=
  figures+=("$(per_message callgrind "$program" "$scenario")") || return
  if [[ -n $before ]] && ! $update && is "${figures[0]} > $before * (1 + $tolerance / 100)"; then
    figures+=("$(per_message callgrind "$program" "$scenario")") || return
    figures+=("$(per_message callgrind "$program" "$scenario")") || return
  fi
  printf '%s\n' "${figures[@]}" | sort -n | sed -n "$(((${#figures[@]} + 1) / 2))p"
}

measure_engine() {
  command -v valgrind >/dev/null || {
    tell "installing valgrind"
    (broker=benches brokers_dir=tests/brokers && . tests/brokers/lib/common.sh && . tests/brokers/lib/packages.sh &&
      ensure_packages valgrind=valgrind) >&2 || return
  }
  local program scenario instructions allocations before before_allocations change met worse=0 rows=() lines=()
  local -A counted=()
  program=$(program postrider-bench-engine bench) || return
  for scenario in "${scenarios[@]}"; do
    instructions=$(instructions_of "$program" "$scenario") || return
    allocations=$(per_message dhat "$program" "$scenario") || return
    instructions=$(printf %.0f "$instructions") allocations=$(awk "BEGIN { printf \"%.2f\", $allocations + 0.0001 }")
    counted[$scenario]=$instructions
    before=$(known "$scenario" 2) || before=
    before_allocations=$(known "$scenario" 3) || before_allocations=
    change=new met=
    if [[ -n $before ]]; then
      change=$(awk "BEGIN { printf \"%+.1f %%\", 100 * ($instructions / $before - 1) }")
      if is "$instructions > $before * (1 + $tolerance / 100)" ||
        is "$allocations > $before_allocations + $tolerance_allocations"; then
        $update || { change+=" **dearer**" && worse=1; }
      fi
    fi
    if [[ -n ${budget[$scenario]-} ]]; then
      met="not met"
      ! is "$instructions <= ${budget[$scenario]} && $allocations < 0.01" || met=met
    fi
    tell "$(printf '%-8s %6s instructions %6s allocations  %s' "$scenario" "$instructions" "$allocations" "$change")"
    lines+=("$scenario $instructions $allocations")
    rows+=("| \`$scenario\` | ${about[$scenario]} | $instructions | ${budget[$scenario]-} | $allocations | $met | $change |")
  done
  {
    echo "| scenario | what | instructions | budget | allocations | budget is | against the baseline |"
    echo "|---|---|---:|---:|---:|---|---:|"
    printf '%s\n' "${rows[@]}"
    printf '\nDecoding the payload (`plain` less `bytes`): %d of %d instructions.\n' \
      $((counted[plain] - counted[bytes])) "${counted[plain]}"
    printf '%s; valgrind %s.\n' "$(rustc --version | cut -d' ' -f1,2)" "$(valgrind --version | sed 's/valgrind-//')"
  } | table engine || return
  if $update; then
    {
      echo "# What benches/run engine --update counted with $(rustc --version): scenario, instructions, allocations per message."
      printf '%s\n' "${lines[@]}"
    } >"$baseline"
  fi
  ((worse == 0)) || { tell "more than $tolerance % above $baseline, or more allocations" && return 1; }
}
