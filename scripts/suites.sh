#!/usr/bin/env bash
# Runs other people's tests straight at PostgreSQL and through pooler, each transaction on another of a few servers, and
# compares how each of them goes. Installs what is missing. Names of suites run these alone, with more arguments some of their
# tests: scripts/suites.sh libpq_pipeline prepared
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

all=(libpq_pipeline)
if [ $# = 0 ]; then
    failed=()
    for suite in "${all[@]}"; do "$0" "$suite" || failed+=("$suite"); done
    [ ${#failed[@]} = 0 ] || fail "failed: ${failed[*]}"
    exit
fi
suite=$1
shift
[[ " ${all[*]} " == *" $suite "* ]] || fail "no suite '$suite'; there are: ${all[*]}"

need_build
need_postgres
command -v python3 >/dev/null || apt_install python3
cache=$(cache_dir)
pg=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
pg=${pg%/bin}

# Compiles libpq_pipeline of the source of PostgreSQL.
libpq_pipeline() {
    local dir=$cache/postgres-source/src/test/modules/libpq_pipeline
    need_postgres_source "$cache/postgres-source"
    [ -f "$pg/lib/libpgcommon.a" ] || apt_install "postgresql-server-dev-${pg##*/}"
    cc -O1 -o "$cache/libpq_pipeline" "$dir/libpq_pipeline.c" -I"$("$pg/bin/pg_config" --includedir)" \
        -I"$("$pg/bin/pg_config" --includedir-server)" "$pg"/lib/libpg{common,port}.a -lpq
    arguments=("$cache/libpq_pipeline" "$dir")
}

arguments=()
"$suite"
say "Building"
cargo build --quiet --locked --release --bin pooler
PYTHONPATH=benches exec python3 "tests/suites/$suite.py" "${CARGO_TARGET_DIR:-target}/release/pooler" "${arguments[@]}" "$@"
