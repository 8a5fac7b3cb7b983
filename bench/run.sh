#!/bin/bash
# Measures the program against what it stands on: the raw Docker API, wrk, and its own goals.
#
#   bench/run.sh                      all parts: docker docker-log local daemon followers many-builds pages build load
#   bench/run.sh local docker         some of them; `floor` measures the raw engine alone
#   bench/run.sh > docs/benchmarks.md the page in the documentation
#
# Progress goes to standard error, the table to standard output. Needs Python 3.11, a Docker engine, wrk (for `daemon` and
# `load`), nginx (for `load`), Chromium with chromedriver (for `pages`), and `cargo build --release` before. Run it on a
# machine with nothing else to do. Settings:
#   ORCHESTRATOR   the program (target/release/orchestrator)
#   BENCH_IMAGE    an image with sh, yes and head (orchestrator-test/busybox:1, which scripts/base-images.sh busybox makes)
#   BENCH_ROUNDS   how often everything is measured (5)
set -euo pipefail
cd "$(dirname "$0")/.."

parts=()
load=no
for part in "${@:-all}"; do
  case $part in
    all) parts+=(docker docker-log local daemon followers many-builds pages build) load=yes ;;
    load) load=yes ;;
    *) parts+=("$part") ;;
  esac
done

if [ ${#parts[@]} -gt 0 ]; then
  PYTHONDONTWRITEBYTECODE=1 python3 bench/run.py "${parts[@]}"
fi
if [ "$load" = yes ]; then
  printf '\n## Load engine beside wrk\n\nA bare nginx, 32 connections, one thread each, in turns. Goal: a ratio of at least 0.7.\n\n```text\n'
  bench/load.sh "${ORCHESTRATOR:-target/release/orchestrator}" "${BENCH_ROUNDS:-5}"
  echo '```'
fi
