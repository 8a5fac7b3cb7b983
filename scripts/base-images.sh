#!/bin/bash
# Makes base images locally, for machines that cannot pull from a registry. Each is made only if it is missing.
#
#   scripts/base-images.sh busybox[=TAG] debian[=TAG] python[=TAG]
#
#   busybox   a static busybox and nothing else      (orchestrator-test/busybox:1)
#   debian    the release of this machine, by mmdebstrap from this machine's own package sources
#             (debian:bookworm-slim, with this release's name)
#   python    debian with python3, pip and venv      (python:3.11-slim, with that Debian's version)
#
# APT_SOURCES names another file of package sources.
# They stand in for the public images of these names and trust this machine's certificates: do not publish them.
set -euo pipefail

say() { printf 'base-images: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }
usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; }

# The classic builder: it is there without further parts, and takes local images as bases without asking a registry.
export DOCKER_BUILDKIT=0
bundle=/etc/ssl/certs/ca-certificates.crt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

present() { docker image inspect "$1" >/dev/null 2>&1; }

need() { # PROGRAM PACKAGE
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    fail "$1 is missing; install $2"
  fi
  say "installing $2"
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2"
}

release() { # shellcheck source=/dev/null
  (. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
}

# The file with this machine's package sources: the distribution's own, not those of third parties.
sources() {
  local file
  for file in "${APT_SOURCES:-}" /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list.d/ubuntu.sources \
    /etc/apt/sources.list; do
    if [ -f "$file" ] && grep -qE '^(deb |Types:)' "$file"; then
      printf '%s' "$file"
      return
    fi
  done
  fail "cannot find this machine's package sources; name a file of them with APT_SOURCES"
}

make_busybox() { # TAG
  need busybox busybox-static
  local program
  program=$(command -v busybox)
  mkdir "$work/busybox"
  cp "$program" "$work/busybox/busybox"
  cat >"$work/busybox/Dockerfile" <<'DOCKERFILE'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
CMD ["sh"]
DOCKERFILE
  docker build -q -t "$1" "$work/busybox" >/dev/null ||
    fail "cannot build $1; is $program linked statically (busybox-static)?"
}

make_debian() { # TAG
  need mmdebstrap mmdebstrap
  local name
  name=$(release)
  [ -n "$name" ] || fail "this is no Debian-like system, so its packages cannot be used"
  [ -f "$bundle" ] || fail "$bundle is missing; install ca-certificates"
  local from
  from=$(sources)
  # What is installed later leaves out the same, and starts no services.
  printf 'path-exclude=/usr/share/%s/*\n' man doc locale >"$work/leave-out"
  mkdir -p "$work/late/usr/sbin"
  printf '#!/bin/sh\nexit 101\n' >"$work/late/usr/sbin/policy-rc.d"
  chmod 755 "$work/late/usr/sbin/policy-rc.d"
  local options=(--variant=minbase --include=ca-certificates)
  for folder in man doc locale; do options+=("--dpkgopt=path-exclude=/usr/share/$folder/*"); done
  # A later update of the certificates makes the bundle anew: out of these.
  if [ -d /usr/local/share/ca-certificates ]; then
    options+=("--customize-hook=sync-in /usr/local/share/ca-certificates /usr/local/share/ca-certificates")
  fi
  mmdebstrap "${options[@]}" \
    --customize-hook="upload $work/leave-out /etc/dpkg/dpkg.cfg.d/docker" \
    --customize-hook="upload $bundle $bundle" \
    "$name" "$work/debian.tar" "$from"
  # Not by a hook: mmdebstrap has a file of this name itself and removes it at its end.
  tar --append --owner=0 --group=0 -f "$work/debian.tar" -C "$work/late" ./usr/sbin/policy-rc.d
  docker import --change 'CMD ["bash"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change "ENV SSL_CERT_FILE=$bundle" --change "ENV REQUESTS_CA_BUNDLE=$bundle" --change "ENV PIP_CERT=$bundle" \
    "$work/debian.tar" "$1" >/dev/null
  rm "$work/debian.tar"
}

make_python() { # TAG
  local base=${debian:-debian:$(release)-slim}
  ensure debian "$base"
  mkdir "$work/python"
  cat >"$work/python/Dockerfile" <<DOCKERFILE
FROM $base
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \\
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \\
 && ln -s /usr/bin/python3 /usr/local/bin/python && ln -s /usr/bin/python3 /usr/local/bin/python3
CMD ["python3"]
DOCKERFILE
  docker build -t "$1" "$work/python"
}

ensure() { # KIND TAG
  if present "$2"; then
    say "$2 is there"
    return
  fi
  say "making $2"
  "make_$1" "$2"
  say "made $2"
}

[ $# -gt 0 ] || { usage >&2; exit 2; }
case $1 in -h | --help) usage; exit 0 ;; esac
command -v docker >/dev/null 2>&1 || fail "the docker client is missing"
debian=
for wanted in "$@"; do
  kind=${wanted%%=*}
  tag=
  case $wanted in *=*) tag=${wanted#*=} ;; esac
  case $kind in
    busybox) ensure busybox "${tag:-orchestrator-test/busybox:1}" ;;
    debian)
      debian=${tag:-debian:$(release)-slim}
      ensure debian "$debian"
      ;;
    python) ensure python "${tag:-python:3.11-slim}" ;;
    *) usage >&2; fail "unknown image \`$kind\`" ;;
  esac
done
