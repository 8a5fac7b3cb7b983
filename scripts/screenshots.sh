#!/bin/bash
# Pictures of every page in both schemes, of a demo that is made for it: scripts/screenshots.sh [PROGRAM] [FOLDER]
#
# They go to docs/images (or FOLDER). It needs chromium (Debian: `chromium`), and makes them smaller with pngquant if that is there.
# What it starts it ends again.
set -euo pipefail
program=$(realpath "${1:-target/release/orchestrator}")
images=$(realpath -m "${2:-docs/images}")
work=$(mktemp -d)
# The pictures show this path.
demo=/tmp/orchestrator-demo
[ ! -e "$demo" ] || { echo "$demo is there already: remove it" >&2; exit 1; }
beside=/tmp/orchestrator-start
[ ! -e "$beside" ] || { echo "$beside is there already: remove it" >&2; exit 1; }
readonly program images work demo beside
daemon=
finish() {
  [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
  "$program" --data-dir "$demo/data" deployments stop player-stats >/dev/null 2>&1 || true
  rm -rf "$work" "$demo" "$beside"
}
trap finish EXIT
unset ORCHESTRATOR_DATA_DIR ORCHESTRATOR_SERVER ORCHESTRATOR_CONFIG

mkdir -p "$images" "$demo"
"$program" demo --folder "$demo"
cd "$demo"
# A port of its own: somebody may look at another demo.
port=$((20000 + RANDOM % 10000))
sed -i "s/127.0.0.1:8484/127.0.0.1:$port/" orchestrator.toml
"$program" serve >"$work/serve.log" 2>&1 &
daemon=$!
base=http://127.0.0.1:$port
for _ in $(seq 100); do
  curl -fs "$base/healthz" >/dev/null && break
  sleep 0.1
done

# The newest build of a project with a commit message like this.
build() {
  curl -fs "$base/api/v1/builds?project=$1&limit=100" |
    python3 -c 'import json, sys; print(next(b["id"] for b in json.load(sys.stdin)["items"] if sys.argv[1] in (b["title"] or "")))' "$2"
}

picture() { # name, scheme, path, height, width
  local name=$1 scheme=$2 path=$3 height=$4 width=$5
  # As Blink counts them.
  local number=1
  [ "$scheme" = light ] || number=0
  chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$work/chromium-$scheme" \
    --blink-settings=preferredColorScheme="$number" \
    --window-size="$width,$height" --timeout=4000 --screenshot="$images/$name-$scheme.png" "$base$path" >/dev/null 2>&1
  [ -s "$images/$name-$scheme.png" ] || { echo "no picture of $path" >&2; exit 1; }
  ! command -v pngquant >/dev/null || pngquant --force --skip-if-larger --quality 70-95 --output "$images/$name-$scheme.png" \
    "$images/$name-$scheme.png" || true
}

shoot() { # name, path, height, width
  local scheme
  for scheme in light dark; do
    picture "$1" "$scheme" "$2" "$3" "${4:-1280}"
  done
  echo "$1: $2"
}

# A page of a build that runs: a new one for each picture, since a picture takes longer than its load test.
live() { # name, path behind the build, height
  local scheme id
  for scheme in light dark; do
    curl -fs -X POST -H 'content-type: application/json' -d '{"branch": "main", "no_reuse": true}' \
      "$base/api/v1/projects/player-stats/builds" >/dev/null
    for _ in $(seq 200); do
      id=$(curl -fs "$base/api/v1/builds?project=player-stats&limit=1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["id"])')
      ! curl -fs "$base/builds/$id" | grep -q 'live charts' || break
      sleep 0.1
    done
    sleep 2
    picture "$1" "$scheme" "/builds/$id$2" "$3" 1280
    for _ in $(seq 300); do
      curl -fs "$base/api/v1/builds/$id" | grep -q '"status":"\(passed\|failed\)"' && break
      sleep 0.1
    done
  done
  echo "$1: /builds/$id$2"
}

# Another daemon, with a configuration of its own: configuration, then what is to be done while it runs.
beside() {
  local configuration=$1 other
  shift
  mkdir -p "$beside"
  printf '[server]\nlisten = "127.0.0.1:%s"\n[data]\ndir = "%s"\n%b' "$((port + 1))" "$beside/data" "$configuration" >"$beside/orchestrator.toml"
  "$program" serve --config "$beside/orchestrator.toml" >"$work/beside.log" 2>&1 &
  other=$!
  local base=http://127.0.0.1:$((port + 1))
  for _ in $(seq 100); do
    curl -fs "$base/healthz" >/dev/null && break
    sleep 0.1
  done
  "$@"
  kill "$other" && wait "$other" || true
  rm -rf "$beside"
}

good=$(build player-stats 'A forest of 60 trees')
bad=$(build player-stats 'in place of')
keys=$(build feature-service 'Features by player')
newest=$(build player-stats 'Load it for longer')
readonly good bad keys newest
shoot home / 560
shoot project /projects/player-stats 1700
shoot build "/builds/$good" 820
shoot build-failed "/builds/$bad" 960
shoot build-phone "/builds/$good" 900 360
shoot log "/builds/$keys/stages/keys/attempts/1" 760
shoot loadtest "/builds/$newest/stages/loadtest/attempts/1/loadtest" 1700
shoot models /models 620
shoot model /models/player-stats 1500
shoot version /models/player-stats/versions/4 1300
shoot compare '/models/player-stats/compare?a=2&b=4' 1150
shoot promote /models/player-stats/versions/5/promote 520
shoot deployments /deployments 620
shoot queue /queue 620
shoot deliveries /deliveries 620
shoot settings /settings 1500
shoot audit /audit 620
shoot search '/search?q=forest' 520
shoot delivery /deliveries/1 1100
shoot error /nothing 420
shoot build-cancelled "/builds/$(build feature-service 'Warm the cache')" 620
live build-running '' 760
live loadtest-running /stages/loadtest/attempts/1/loadtest 900
beside '[auth]\nmode = "none"\n' shoot start / 720
beside '[auth]\nmode = "token"\n' shoot sign-in / 420
