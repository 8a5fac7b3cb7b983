#!/usr/bin/env bash
# Seeds for `cargo +nightly fuzz run payload`: GitHub's own payloads, each behind the two bytes that choose event and form.
#
#   scripts/payload-corpus.sh [FOLDER]      # default: fuzz/corpus/payload
set -euo pipefail
cd "$(dirname "$0")/.."
into=${1:-fuzz/corpus/payload}
mkdir -p "$into"
events=(push pull_request release ping check_run create workflow_dispatch other)
while IFS= read -r -d '' file; do
    name=$(basename "$file" .json)
    number=7
    for at in "${!events[@]}"; do
        [[ ${name%%.*} == "${events[at]}" ]] && number=$at
    done
    { printf "\\x0$number\\x00"; cat "$file"; } >"$into/$name"
done < <(find tests/fixtures/github-webhooks -name '*.json' -print0)
echo "payload-corpus: $(find "$into" -type f | wc -l) seeds in $into"
