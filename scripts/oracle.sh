#!/usr/bin/env bash
# Judges the classifier of statements (src/sql) by PostgreSQL's own scanner and parser: the regression tests of
# PostgreSQL, and mutations of them for a minute. Installs what is missing; the first run builds for minutes.
# More of it: scripts/oracle.sh --seconds 3600 --mutations 100000000 --seed 7
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || apt_install clang libclang-dev

source=$(cache_dir)/postgres-source
need_postgres_source "$source"
say "Oracle"
exec cargo run --locked --release --quiet --manifest-path tests/oracle/Cargo.toml -- "$source" "$@"
