#!/bin/sh
# The load engine against wrk: the same bare server, 32 connections, in turns. Prints the ratio of each round.
# Needs: wrk, nginx, python3, and a release build (cargo build --release).
# Usage: bench/load.sh [PROGRAM] [ROUNDS] [SECONDS]
set -eu
program=${1:-target/release/orchestrator}
rounds=${2:-5}
seconds=${3:-10}
port=${PORT:-8077}
url=http://127.0.0.1:$port/
folder=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT INT TERM

cat > "$folder/nginx.conf" <<CONF
worker_processes 1;
daemon off;
pid $folder/nginx.pid;
error_log $folder/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $folder; proxy_temp_path $folder; fastcgi_temp_path $folder;
    uwsgi_temp_path $folder; scgi_temp_path $folder;
    server { listen 127.0.0.1:$port; location / { return 200 "hello world\n"; } }
}
CONF
nginx -c "$folder/nginx.conf" -e "$folder/error.log" & server=$!
sleep 1 # nginx does not say when it listens

echo "round  wrk/s  ours/s  ratio  generator busy  p50 wrk / ours"
round=1
while [ "$round" -le "$rounds" ]; do
    wrk -t1 -c32 -d"${seconds}s" --latency "$url" > "$folder/wrk"
    # The verdict may be `invalid`: a bare server is as fast as its generator. The figures count here.
    "$program" loadtest "$url" --users 32 --threads 1 --duration "${seconds}s" --json > "$folder/ours" 2> "$folder/err" || true
    python3 - "$round" "$folder" <<'PYTHON'
import json, re, sys

number, folder = sys.argv[1:]
wrk = open(f"{folder}/wrk").read()
rate = float(re.search(r"Requests/sec:\s*([\d.]+)", wrk).group(1))
median = re.search(r"50%\s+(\S+)", wrk).group(1)
ours = json.load(open(f"{folder}/ours"))
total = ours["total"]
assert total["failed"] == 0, ours["errors"]
p50 = next(line["ms"] for line in total["latency"]["percentiles"] if line["quantile"] == 0.5)
busy = ours["generator"]["busy_share"]
print(f"{number:>5}  {rate:.0f}  {total['rps']:.0f}  {total['rps'] / rate:.2f}  {busy:.0%}  {median} / {p50:.3f}ms")
PYTHON
    round=$((round + 1))
done
