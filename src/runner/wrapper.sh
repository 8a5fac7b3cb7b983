nonce=$1 words=$2
shift 2
mark() {
  printf '\036%s %s %s %s\036\n' "$nonce" "$1" "$2" "$3"
  printf '\036%s %s %s %s\036\n' "$nonce" "$1" "$2" "$3" >&2
}
# From then on trapped, but not ignored: what is ignored here could not be handled in a step.
stop() {
  terminated=1 interrupted=1
  trap interrupted=1 TERM
  kill -TERM 0
}
terminated=
trap stop TERM
if [ "$words" -eq 0 ]; then
  if command -v bash >/dev/null 2>&1; then
    set -- bash -euo pipefail -c "$@"
    words=4
  else
    set -- sh -eu -c "$@"
    words=3
  fi
fi
# References to the shell's words, never their text: nothing from outside is evaluated.
shell=
at=1
while [ "$at" -le "$words" ]; do
  shell="$shell \"\${$at}\""
  at=$((at + 1))
done
step=0
while [ "$at" -le $# ]; do
  [ -z "$terminated" ] || exit 143
  mark begin $step 0
  eval "$shell \"\${$at}\" &"
  child=$!
  # A signal ends `wait` early, with a code of its own; the step's end counts. A shell that had it already when the signal
  # came may have forgotten it (127).
  code=
  while :; do
    interrupted=
    wait "$child"
    now=$?
    [ "$now" -eq 127 ] && [ -n "$code" ] || code=$now
    [ -n "$interrupted" ] || break
  done
  mark end $step $code
  [ "$code" -eq 0 ] || exit "$code"
  at=$((at + 1))
  step=$((step + 1))
done
