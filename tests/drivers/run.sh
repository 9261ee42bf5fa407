#!/usr/bin/env bash
# Runs real client libraries with their defaults against PostgreSQL itself and then through the pooler.
#
#   tests/drivers/run.sh [--direct] [--pooled] [--routed] [SUITE...]
#
# --direct      at PostgreSQL itself
# --pooled      through the pooler; frameworks get another server for each transaction than for the one before
# --routed      through the pooler, which sends reads to a streaming replica (default: all three)
# POOLER        the program to test (default: built from this tree)
# POOLER_CACHE  where installed drivers are kept (default: ~/.cache/pooler; of root: /var/cache/pooler)
#
# Every way has to pass the same checks. Installs what is missing on Debian and Ubuntu.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
all=(psql psycopg asyncpg pg postgresjs prisma jdbc tokio-postgres sqlx prisma-fresh sqlalchemy django rails hibernate)
# What one process has written, another reads at once. Routed, the replica is behind, and still does this share (percent) of all
# requests: what nobody is writing.
declare -A offloaded=([prisma-fresh]=2 [sqlalchemy]=4 [django]=3)
# Pooled, these change servers all the time. The others' checks take servers away themselves.
turning=(sqlalchemy django rails hibernate)
pool_size=5
ways=()
suites=()

for argument in "$@"; do
  case $argument in
    --direct | --pooled | --routed) ways+=("${argument#--}") ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *)
      [[ " ${all[*]} " == *" $argument "* ]] || { echo "no suite '$argument'; there are: ${all[*]}" >&2; exit 2; }
      suites+=("$argument")
      ;;
  esac
done
[[ ${#ways[@]} -gt 0 ]] || ways=(direct pooled routed)
[[ ${#suites[@]} -gt 0 ]] || suites=("${all[@]}")

wants() { [[ " ${suites[*]} " =~ \ ($1)\  ]]; }

# --- What is missing -------------------------------------------------------------------------------

cd "$root"
. scripts/lib.sh
cache=$(cache_dir)
node_needed=20.19 # of Prisma; Debian 12 has an older one
node_from_npm=22.20.0 # there for both kinds of machine

packages() {
  need_postgres
  command -v python3 > /dev/null || apt_install python3
  if wants 'psycopg|asyncpg|sqlalchemy|django'; then python3 -c 'import ensurepip' 2> /dev/null || apt_install python3-venv; fi
  if wants 'pg|postgresjs|prisma|prisma-fresh'; then need_node; fi
  if wants rails; then
    ruby -e 'require "pg"; require "active_record"' 2> /dev/null || apt_install ruby ruby-pg ruby-activerecord
  fi
  if wants 'jdbc|hibernate'; then
    command -v java > /dev/null && java --list-modules 2> /dev/null | grep -q jdk.compiler || apt_install default-jdk-headless
    [[ -e /usr/share/java/postgresql.jar && -e /usr/share/java/HikariCP.jar && -e /usr/share/java/slf4j-nop.jar ]] ||
      apt_install libpostgresql-jdbc-java libhikaricp-java libslf4j-java
  fi
  if wants hibernate; then
    [[ -e /usr/share/java/hibernate-core.jar && -e /usr/share/java/javassist.jar ]] || apt_install libhibernate3-java libjavassist-java
  fi
  if wants 'tokio-postgres|sqlx' || [[ -z ${POOLER:-} && ${ways[*]} != direct ]]; then need_build; fi
}

postgres_bin() { printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1; }

python_drivers() {
  local venv=$cache/drivers-venv
  ! cmp -s "$here/python/requirements.txt" "$venv/installed.txt" || return 0
  say "Installing the Python drivers"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/python/requirements.txt"
  cp "$here/python/requirements.txt" "$venv/installed.txt"
}

node_drivers() {
  cd "$here/node"
  if ! cmp -s package-lock.json node_modules/installed.json; then
    say "Installing the Node drivers"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error > /dev/null
    cp package-lock.json node_modules/installed.json
  fi
  wants 'prisma|prisma-fresh' || return 0
  if ! at_least "$(node --version | tr -d v)" "$node_needed"; then
    local machine=x64
    [[ $(uname -m) == x86_64 ]] || machine=arm64
    PATH=$cache/node/node_modules/node-linux-$machine/bin:$PATH
    [[ $(node --version) == "v$node_from_npm" ]] ||
      npm install --prefix "$cache/node" --no-audit --no-fund --loglevel=error "node-linux-$machine@$node_from_npm" > /dev/null
  fi
  # Nothing to download: the schema engine is for migrations, which are not used here.
  PRISMA_SCHEMA_ENGINE_BINARY=/bin/true CHECKPOINT_DISABLE=1 \
    node node_modules/prisma/build/index.js generate > "$work/prisma-generate.log" 2>&1 ||
    fail "$(cat "$work/prisma-generate.log")"
}

rust_drivers() {
  # A directory of their own: neither their lock file nor their target has to do with the pooler's.
  CARGO_TARGET_DIR=$cache/drivers-rust cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml"
}

drivers() {
  mkdir -p "$cache"
  if wants 'psycopg|asyncpg|sqlalchemy|django'; then python_drivers; fi
  if wants 'pg|postgresjs|prisma|prisma-fresh'; then node_drivers; fi
  if wants 'tokio-postgres|sqlx'; then rust_drivers; fi
}

# --- PostgreSQL and the pooler ---------------------------------------------------------------------

as_postgres=()
work=$(mktemp -d /tmp/pooler-drivers.XXXXXX)
pooler_pid=

stop() {
  [[ -z $pooler_pid ]] || kill "$pooler_pid" 2> /dev/null || true
  for data in "$work/replica" "$work/data"; do
    [[ ! -e $data/postmaster.pid ]] || "${as_postgres[@]}" "$(postgres_bin)/pg_ctl" -D "$data" -m immediate stop > /dev/null || true
  done
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
  start_server data "$pg_port"
  PGPASSWORD=postgres psql -q -h 127.0.0.1 -p "$pg_port" -U postgres postgres \
    -c "create role app login password 'secret'" -c 'create database app owner app'
  DIRECT_URL=postgres://app:secret@127.0.0.1:$pg_port/app
}

start_server() { # start_server DIRECTORY PORT
  "${as_postgres[@]}" "$(postgres_bin)/pg_ctl" -D "$work/$1" -l "$work/$1.log" -w start > /dev/null \
    -o "-p $2 -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
}

start_replica() {
  replica_port=$(free_port)
  PGPASSWORD=postgres "${as_postgres[@]}" "$(postgres_bin)/pg_basebackup" -D "$work/replica" -R -c fast -X stream -N \
    -d "host=127.0.0.1 port=$pg_port user=postgres password=postgres"
  start_server replica "$replica_port"
  # Only routed: what runs may run there. Suites look at both.
  export REPLICA_URL=postgres://app:secret@127.0.0.1:$replica_port/app
}

start_pooler() { # start_pooler WAY
  local port place="host = \"127.0.0.1\"
port = $pg_port"
  stop_pooler
  if [[ $1 == routed ]]; then
    start_replica
    place="nodes = [\"127.0.0.1:$pg_port\", \"127.0.0.1:$replica_port\"]"
  fi
  if [[ -z ${POOLER:-} ]]; then
    (cd "$root" && cargo build --quiet --release)
    POOLER=${CARGO_TARGET_DIR:-$root/target}/release/pooler
  fi
  port=$(free_port)
  cat > "$work/pooler.toml" << TOML
[pooler]
listen_addr = "127.0.0.1"
listen_port = $port
auth_type = "scram-sha-256"
default_pool_size = $pool_size
admin_users = ["admin"]

[databases.app]
$place

[users.app]
password = "secret"

[users.admin]
password = "admin"
TOML
  "$POOLER" run -c "$work/pooler.toml" > "$work/pooler.log" 2>&1 &
  pooler_pid=$!
  POOLED_URL=postgres://app:secret@127.0.0.1:$port/app
  CONSOLE_URL=postgres://admin:admin@127.0.0.1:$port/pooler
  for _ in $(seq 100); do
    kill -0 "$pooler_pid" 2> /dev/null || break
    if psql -qAt "$POOLED_URL" -c 'select 1' > /dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "the pooler does not answer:" >&2
  tail -20 "$work/pooler.log" >&2
  return 1
}

delay_replica() { # delay_replica TIME: what is committed is seen there so much later
  PGPASSWORD=postgres psql -q -h 127.0.0.1 -p "$replica_port" -U postgres postgres \
    -c "alter system set recovery_min_apply_delay = '$1'" -c 'select pg_reload_conf()' > /dev/null
}

take_turns() { # take_turns SUITE
  local turn=()
  if [[ " ${turning[*]} " == *" $1 "* ]]; then
    turn=(-c "SET server_round_robin = true" -c "SET client_placement = 'rotate'" -c "SET min_pool_size = $pool_size")
  fi
  psql -qAt "$CONSOLE_URL" -c RELOAD "${turn[@]}" > /dev/null
}

stop_pooler() {
  [[ -n $pooler_pid ]] || return 0
  if ! kill "$pooler_pid" 2> /dev/null; then
    echo "the pooler did not survive:"
    tail -20 "$work/pooler.log"
    failed=$((failed + 1))
  fi
  wait "$pooler_pid" 2> /dev/null || true
  pooler_pid=
}

# How often requests went where and why, one a line: `replica: read 123`.
routes() {
  psql -qAt -F ' ' "$CONSOLE_URL" -c 'show routes' | awk '{ count[$3 " " $4] += $5 } END { for (route in count) print route, count[route] }' | sort
}

jars=$(printf '/usr/share/java/%s.jar:' postgresql HikariCP slf4j-api slf4j-nop)
hibernate_jars=$(printf '/usr/share/java/%s.jar:' hibernate3 hibernate-core hibernate-commons-annotations geronimo-jpa_2.0_spec \
  geronimo-jta-1.2-spec dom4j javassist antlr commons-collections3)

# --- The suites ------------------------------------------------------------------------------------

suite() {
  cd "$here"
  case $1 in
    psql) python3 psql/psql.py ;;
    psycopg) "$cache/drivers-venv/bin/python" python/psycopg3.py ;;
    asyncpg) "$cache/drivers-venv/bin/python" python/asyncpg_suite.py ;;
    pg) node --no-deprecation node/pg.mjs ;;
    postgresjs) node node/postgresjs.mjs ;;
    prisma | prisma-fresh) cd node && node --import tsx "$1.mjs" ;;
    sqlalchemy | django) "$cache/drivers-venv/bin/python" "python/$1_suite.py" ;;
    jdbc) javac -cp "$jars" -d "$work/jdbc" jdbc/Checks.java jdbc/Jdbc.java && java -cp "$jars$work/jdbc" Jdbc ;;
    rails) ruby ruby/rails.rb ;;
    hibernate) # which looks for classes by name, and makes others of them: it needs them in files, and Java's leave
      javac -cp "$jars$hibernate_jars" -d "$work/hibernate" jdbc/Checks.java jdbc/Hibernate.java &&
        java --add-opens java.base/java.lang=ALL-UNNAMED -cp "$jars$hibernate_jars$work/hibernate" Hibernate
      ;;
    tokio-postgres | sqlx) RUST_BACKTRACE=0 "$cache/drivers-rust/debug/$1" ;;
  esac
}

tell_routes() { # what has come since $work/before; sets `share`, in percent of the replica
  routes | awk 'NR == FNR { before[$1 $2] = $3; next } $3 > before[$1 $2] { print $1, $2, $3 - before[$1 $2] }' \
    "$work/before" - > "$work/since"
  share=$(awk '{ all += $3 } /^replica/ { there += $3 } END { printf "%d", all ? 100 * there / all : 0 }' "$work/since")
  echo "    routes $(paste -s -d, "$work/since" | sed 's/,/, /g')"
}

run() { # run WAY SUITE: one line of summary; the output only of what failed
  local log=$work/$1-$2.log status=0 begun=$SECONDS good bad said=0 share=0
  [[ ! -e $work/pooler.log ]] || said=$(wc -l < "$work/pooler.log")
  [[ $1 != pooled ]] || take_turns "$2"
  if [[ $1 == routed ]]; then
    delay_replica "$([[ -n ${offloaded[$2]:-} ]] && echo 50ms || echo 0)"
    routes > "$work/before"
  fi
  if [[ $1 != direct ]]; then export DATABASE_URL=$POOLED_URL POOL_SIZE=$pool_size; else
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
  if [[ $1 == routed ]]; then
    tell_routes
    if ((share < ${offloaded[$2]:-0})); then
      echo "    of all requests $share % ran on the replica, not ${offloaded[$2]} %"
      bad=1
    fi
  fi
  # What passes directly has to be asked, and pass, through the pooler as well; and the other way round.
  sed -n 's/^ok //p' "$log" | sort > "$work/$1-$2.passed"
  if [[ $1 != direct && -e $work/direct-$2.passed ]] && ! diff "$work/direct-$2.passed" "$work/$1-$2.passed" > "$work/difference"; then
    sed -n 's/^< /    only direct: /p; s/^> /    not direct: /p' "$work/difference"
    [[ $bad -gt 0 ]] || bad=1
  fi
  if [[ $1 != direct && $bad -gt 0 ]]; then
    tail -n "+$((said + 1))" "$work/pooler.log" | grep -v 'login attempt\|client close request\|client unexpected eof\|new connection' |
      tail -40 | sed 's/^/    pooler: /' || true
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
}

packages
drivers
start_postgres
passed=0 failed=0
for way in "${ways[@]}"; do
  [[ $way == direct ]] || start_pooler "$way"
  for name in "${suites[@]}"; do run "$way" "$name"; done
done
stop_pooler
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
