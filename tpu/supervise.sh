#!/usr/bin/env bash
# Restarts a training from its last good checkpoint, for as long as it makes progress.
#
#   tpu/supervise.sh RUN COMMAND...      tpu/supervise.sh /data/run siren-rope train /data/log.toml --out /data/run
#
# Run it on every host. Where one process dies the others end too, with 75 or 134, so that all start again together.
#
#   the command's exit code                                   what follows
#   75 another process lost, 134 aborted, 137 killed,         starts again, after a pause that doubles each time
#   143 stopped by a signal that came from elsewhere
#   any other: 0 done, 2 bad input, 3 diverged, 1 a bug ...   ends with that code: a restart would not help
#
# It ends with 69 after SUPERVISE_RETRIES (8) starts in a row without a newer checkpoint in RUN, and with 64 if called
# wrongly. SIGTERM and SIGINT are passed on; then it waits for the command, and ends with its code.
set -uo pipefail
set -m # gives the command a process group of its own: Ctrl-C in a terminal reaches it once, from here

readonly RETRIES=${SUPERVISE_RETRIES:-8}
readonly BASE_SECONDS=${SUPERVISE_BASE_SECONDS:-5}
# Well below the 300 s for which the processes of jax wait for each other: hosts pause for different times.
readonly LONGEST_SECONDS=${SUPERVISE_LONGEST_SECONDS:-120}

say() { echo "supervise.sh: $*" >&2; }

if (($# < 2)); then
  say "the folder of the run and a command are needed, but $# arguments were given"
  exit 64
fi
for setting in "$RETRIES" "$BASE_SECONDS" "$LONGEST_SECONDS"; do
  if ! [[ $setting =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
    say "SUPERVISE_RETRIES, _BASE_SECONDS and _LONGEST_SECONDS must be numbers, but one is $setting"
    exit 64
  fi
done
readonly RUN=$1
shift

child="" stopped=""

stop() {
  stopped=$1
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null
}
trap 'stop TERM' TERM
trap 'stop INT' INT

# Runs a command to its end. A signal that came just before its start is passed on now. One that comes later ends
# `wait` early; a second `wait` for a child that is gone still returns that child's code.
run() {
  "$@" &
  child=$!
  [[ -z $stopped ]] || stop "$stopped"
  while kill -0 "$child" 2>/dev/null; do wait "$child"; done
  wait "$child"
  code=$?
  child=""
}

newest_checkpoint() {
  local newest=-1 step
  for step in "$RUN"/checkpoints/*/ "$RUN"/seed-*/checkpoints/*/; do
    step=$(basename "$step")
    if [[ $step =~ ^[0-9]+$ ]] && ((10#$step > newest)); then newest=$((10#$step)); fi
  done
  echo "$newest"
}

# Doubles with each failure, and is spread over its upper half, so that hosts do not come back all at once.
pause() {
  awk -v failures="$1" -v base="$BASE_SECONDS" -v longest="$LONGEST_SECONDS" -v random="$RANDOM" 'BEGIN {
    seconds = base * 2 ^ (failures - 1)
    printf "%.3f", (seconds < longest ? seconds : longest) * (1 + random / 32768) / 2
  }'
}

failures=0
furthest=$(newest_checkpoint)
while true; do
  run "$@"
  if [[ -n $stopped ]]; then exit "$code"; fi
  case $code in
    75 | 134 | 137 | 143) ;;
    *) exit "$code" ;;
  esac
  newest=$(newest_checkpoint)
  if ((newest > furthest)); then failures=0 furthest=$newest; fi
  if ((failures >= RETRIES)); then
    say "gave up: ended with $code, and with no newer checkpoint than step $furthest after $RETRIES more starts"
    exit 69
  fi
  failures=$((failures + 1))
  seconds=$(pause "$failures")
  say "the command ended with $code; start $failures of at most $RETRIES without progress follows in $seconds s"
  run sleep "$seconds"
  if [[ -n $stopped ]]; then exit "$code"; fi
done
