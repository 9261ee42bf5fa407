#!/usr/bin/env bash
# Compares pooler with PgBouncer, with HAProxy as a plain TCP relay, and with no pooler at all.
#
# Usage: scripts/bench.sh [--quick] [--rounds N] [--seconds S] [--only WORKLOAD,..] [--against WHO,..]
#        scripts/bench.sh --list
#
# Installs what is missing, builds, starts a throwaway PostgreSQL, measures in interleaved rounds and
# writes ./bench-results/ (report.txt, report.md, ratios.svg, results.json). Fast comparison while working:
#   scripts/bench.sh --only simple,prepared --rounds 5 --seconds 4 --against pgbouncer,pooler
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${BENCH_CACHE:-${XDG_CACHE_HOME:-/var/tmp}/pooler-bench}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_missing() {
  local missing=()
  command -v haproxy >/dev/null || missing+=(haproxy)
  command -v python3 >/dev/null || missing+=(python3)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v cc >/dev/null || missing+=(build-essential)
  command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] || missing+=(cargo)
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
  compgen -G '/usr/lib/postgresql/*/bin/pgbench' >/dev/null || missing+=(postgresql-contrib)
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing ${missing[*]}" >&2
  as_root apt-get -qq update
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

install_missing
export PATH=$PATH:$HOME/.cargo/bin
if [[ " $* " != *" --list "* && " $* " != *" --help "* ]]; then
  echo "building" >&2
  cargo build --quiet --release --bin pooler
  cargo bench --quiet --no-run --bench load
  pgbouncer=$(benches/fetch-pgbouncer.sh "$cache/pgbouncer")
  export PGBOUNCER=$pgbouncer
fi
ulimit -n "$(ulimit -Hn)"
exec python3 benches/bench.py "$@"
