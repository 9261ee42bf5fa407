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

. scripts/lib.sh

need_build
need_postgres
for command in haproxy python3 openssl; do
    command -v "$command" >/dev/null || apt_install "$command"
done
if [[ " $* " != *" --list "* && " $* " != *" --help "* ]]; then
    say "Building" >&2
    cargo build --quiet --locked --release --bin pooler
    cargo bench --quiet --locked --no-run --bench load
    pgbouncer=$(benches/fetch-pgbouncer.sh "${BENCH_CACHE:-$(cache_dir)}/pgbouncer")
    export PGBOUNCER=$pgbouncer
fi
ulimit -n "$(ulimit -Hn)"
exec python3 benches/bench.py "$@"
