#!/usr/bin/env bash
# Runs other people's tests straight at PostgreSQL and through pooler, each transaction on another of a few servers, and
# compares how each of them goes. Installs what is missing. Names of suites run these alone, with more arguments some of their
# tests: scripts/suites.sh libpq_pipeline prepared
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

all=(libpq_pipeline isolation psycopg2 asyncpg node-postgres)
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

# The distribution's isolationtester, with the tests of the source.
isolation() {
    local library=$cache/session_of_pid.so
    need_postgres_source "$cache/postgres-source"
    [ -f /usr/include/postgresql/libpq-fe.h ] || apt_install libpq-dev
    cc -shared -fPIC -O1 -o "$library" tests/suites/session_of_pid.c -I"$("$pg/bin/pg_config" --includedir)"
    arguments=("$pg/lib/pgxs/src/test/isolation" "$cache/postgres-source/src/test/isolation" "$library")
}

# The packages of requirements.txt, and the tests of one of them, which come with its source.
python_driver() {
    local name=$1 version venv=$cache/suites-venv requirements=tests/suites/requirements.txt
    version=$(sed -n "s/^$name\(-binary\)\?==//p" "$requirements")
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    if ! cmp -s "$requirements" "$venv/installed.txt"; then
        say "Installing Python packages"
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
        cp "$requirements" "$venv/installed.txt"
    fi
    if [ ! -d "$cache/$name-$version/tests" ]; then
        say "Fetching the source of $name"
        # What psycopg2 is built for is asked of pg_config.
        command -v pg_config >/dev/null || apt_install libpq-dev
        (cd "$cache" && "$venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: "$name==$version" &&
            tar -xf "$name-$version.tar.gz" "$name-$version/tests" && rm "$name-$version.tar.gz")
    fi
    program=drivers arguments=("$name" "$cache/$name-$version" "$venv/bin/python")
}
psycopg2() { python_driver psycopg2; }
asyncpg() { python_driver asyncpg; }

# The packages of package.json, with their tests from the source.
node-postgres() {
    local dir=$cache/node-postgres name
    need_node
    if ! cmp -s tests/suites/package-lock.json "$dir/node_modules/installed.json"; then
        say "Installing node-postgres"
        mkdir -p "$dir"
        cp tests/suites/package{,-lock}.json "$dir"
        (cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null)
        [ -d "$dir/source" ] || need_source node-postgres "$dir/source" '*/packages/*/test' '*/packages/pg/script'
        for name in pg pg-pool pg-cursor pg-query-stream; do cp -r "$dir/source/packages/$name/test" "$dir/node_modules/$name"; done
        cp -r "$dir/source/packages/pg/script" "$dir/node_modules/pg"
        cp tests/suites/package-lock.json "$dir/node_modules/installed.json"
    fi
    program=drivers arguments=(node-postgres "$dir" node)
}

program=$suite arguments=()
mkdir -p "$cache"
"$suite"
say "Building"
cargo build --quiet --locked --release --bin pooler
PYTHONPATH=benches exec python3 "tests/suites/$program.py" "${CARGO_TARGET_DIR:-target}/release/pooler" "${arguments[@]}" "$@"
