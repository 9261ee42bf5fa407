#!/usr/bin/env bash
# Runs real client libraries with their defaults against PostgreSQL itself and then through the pooler.
#
#   tests/drivers/run.sh [--direct | --pooled] [SUITE...]
#
# --direct, --pooled  only that one (default: both)
# POOLER              the program to test (default: built from this tree)
# POOLER_CACHE        where installed drivers are kept (default: ~/.cache/pooler)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${POOLER_CACHE:-$HOME/.cache/pooler}
all=(psql psycopg asyncpg pg postgresjs prisma jdbc tokio-postgres sqlx)
pool_size=5
ways=(direct pooled)
suites=()

for argument in "$@"; do
  case $argument in
    --direct | --pooled) ways=("${argument#--}") ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      [[ " ${all[*]} " == *" $argument "* ]] || { echo "no suite '$argument'; there are: ${all[*]}" >&2; exit 2; }
      suites+=("$argument")
      ;;
  esac
done
# The others are not part of the run yet: see their failures by naming them (asyncpg: RESET ALL does not know startup values; psycopg: wording
# of a refused password; psql, tokio-postgres, sqlx: programs unfinished; postgresjs, prisma, jdbc: not yet seen through).
[[ ${#suites[@]} -gt 0 ]] || suites=(pg)

wants() { [[ " ${suites[*]} " =~ \ ($1)\  ]]; }

# --- What is missing -------------------------------------------------------------------------------

packages() {
  local missing=()
  [[ -n $(postgres_bin) ]] || missing+=(postgresql)
  command -v psql > /dev/null || missing+=(postgresql-client)
  command -v python3 > /dev/null || missing+=(python3)
  if wants 'psycopg|asyncpg'; then python3 -c 'import ensurepip' 2> /dev/null || missing+=(python3-venv); fi
  if wants 'pg|postgresjs|prisma'; then command -v npm > /dev/null || missing+=(nodejs npm); fi
  if wants jdbc; then
    command -v java > /dev/null && java --list-modules 2> /dev/null | grep -q jdk.compiler || missing+=(default-jdk-headless)
    [[ -e /usr/share/java/postgresql.jar ]] || missing+=(libpostgresql-jdbc-java)
  fi
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "installing ${missing[*]}"
  local sudo=()
  [[ $EUID -eq 0 ]] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

postgres_bin() { ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -1; }

drivers() {
  mkdir -p "$cache"
  if wants 'psycopg|asyncpg' && ! cmp -s "$here/python/requirements.txt" "$cache/drivers-venv/installed.txt"; then
    echo "installing the Python drivers"
    python3 -m venv "$cache/drivers-venv"
    "$cache/drivers-venv/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"
    cp "$here/python/requirements.txt" "$cache/drivers-venv/installed.txt"
  fi
  if wants 'pg|postgresjs|prisma'; then
    cd "$here/node"
    if ! cmp -s package-lock.json node_modules/installed.json; then
      echo "installing the Node drivers"
      npm ci --ignore-scripts --no-audit --no-fund --loglevel=error > /dev/null
      cp package-lock.json node_modules/installed.json
    fi
    # Nothing to download: the schema engine is for migrations, which are not used here.
    ! wants prisma || PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 \
      npx prisma generate > "$work/prisma-generate.log" 2>&1 || { cat "$work/prisma-generate.log"; exit 1; }
  fi
  if wants 'tokio-postgres|sqlx'; then
    echo "building the Rust drivers"
    CARGO_TARGET_DIR=$cache/drivers-rust cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml"
  fi
}

# --- PostgreSQL and the pooler ---------------------------------------------------------------------

as_postgres=()
work=$(mktemp -d /tmp/pooler-drivers.XXXXXX)
pooler_pid=

stop() {
  [[ -z $pooler_pid ]] || kill "$pooler_pid" 2> /dev/null || true
  [[ ! -e $work/data/postmaster.pid ]] || "${as_postgres[@]}" "$(postgres_bin)/pg_ctl" -D "$work/data" -m immediate stop > /dev/null || true
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_postgres() {
  if [[ $EUID -eq 0 ]]; then # the server refuses to run as root
    as_postgres=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    chown postgres "$work"
  fi
  pg_port=$(free_port)
  echo postgres > "$work/password"
  "${as_postgres[@]}" "$(postgres_bin)/initdb" -D "$work/data" -U postgres --pwfile="$work/password" \
    -A scram-sha-256 -N -E UTF8 --locale=C.UTF-8 > "$work/initdb.log"
  "${as_postgres[@]}" "$(postgres_bin)/pg_ctl" -D "$work/data" -l "$work/postgres.log" -w start > /dev/null \
    -o "-p $pg_port -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
  PGPASSWORD=postgres psql -q -h 127.0.0.1 -p "$pg_port" -U postgres postgres \
    -c "create role app login password 'secret'" -c 'create database app owner app'
  DIRECT_URL=postgres://app:secret@127.0.0.1:$pg_port/app
}

start_pooler() {
  if [[ -z ${POOLER:-} ]]; then
    (cd "$root" && cargo build --quiet --release)
    POOLER=${CARGO_TARGET_DIR:-$root/target}/release/pooler
  fi
  local port
  port=$(free_port)
  cat > "$work/pooler.toml" << TOML
[pooler]
listen_addr = "127.0.0.1"
listen_port = $port
auth_type = "scram-sha-256"
default_pool_size = $pool_size
admin_users = ["admin"]

[databases.app]
host = "127.0.0.1"
port = $pg_port

[users.app]
password = "secret"

[users.admin]
password = "admin"
TOML
  "$POOLER" run -c "$work/pooler.toml" > "$work/pooler.log" 2>&1 &
  pooler_pid=$!
  POOLED_URL=postgres://app:secret@127.0.0.1:$port/app
  for _ in $(seq 100); do
    kill -0 "$pooler_pid" 2> /dev/null || break
    if psql -qAt "$POOLED_URL" -c 'select 1' > /dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "the pooler does not answer:" >&2
  tail -20 "$work/pooler.log" >&2
  return 1
}

# --- The suites ------------------------------------------------------------------------------------

suite() {
  cd "$here"
  case $1 in
    psql) python3 psql/psql.py ;;
    psycopg) "$cache/drivers-venv/bin/python" python/psycopg3.py ;;
    asyncpg) "$cache/drivers-venv/bin/python" python/asyncpg_suite.py ;;
    pg) node --no-deprecation node/pg.mjs ;;
    postgresjs) node node/postgresjs.mjs ;;
    prisma) cd node && node --import tsx prisma.mjs ;;
    jdbc) java -cp /usr/share/java/postgresql.jar jdbc/Jdbc.java ;;
    tokio-postgres) "$cache/drivers-rust/debug/tokio-postgres" ;;
    sqlx) "$cache/drivers-rust/debug/sqlx" ;;
  esac
}

run() { # run WAY SUITE: one line of summary; the output only of what failed
  local log=$work/$1-$2.log status=0 begun=$SECONDS good bad
  if [[ $1 == pooled ]]; then export DATABASE_URL=$POOLED_URL POOL_SIZE=$pool_size; else
    export DATABASE_URL=$DIRECT_URL
    unset POOL_SIZE
  fi
  export DIRECT_URL
  (suite "$2") > "$log" 2>&1 || status=$?
  good=$(grep -c '^ok ' "$log" || true)
  bad=$(grep -c '^not ok ' "$log" || true)
  # A suite that crashed or hung, or ran nothing, has failed as well.
  if [[ $bad -eq 0 ]] && [[ $status -ne 0 || $good -eq 0 ]]; then bad=1; fi
  printf '%-6s %-15s %3d passed, %d failed  (%ds)\n' "$1" "$2" "$good" "$bad" $((SECONDS - begun))
  if [[ $bad -gt 0 ]]; then grep -v '^ok ' "$log" | head -80 | sed 's/^/    /'; else sed -n 's/^note /    note /p' "$log"; fi
  passed=$((passed + good))
  failed=$((failed + bad))
}

packages
drivers
start_postgres
passed=0 failed=0
for way in "${ways[@]}"; do
  [[ $way == direct ]] || start_pooler
  for name in "${suites[@]}"; do run "$way" "$name"; done
done
if [[ -n $pooler_pid ]]; then
  if kill -0 "$pooler_pid" 2> /dev/null; then :; else
    echo "the pooler did not survive:"
    tail -20 "$work/pooler.log"
    failed=$((failed + 1))
  fi
fi
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
