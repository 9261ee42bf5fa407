#!/usr/bin/env bash
# Runs PostgreSQL's regression tests through pooler, each transaction on another of three servers, and straight to PostgreSQL,
# and compares what psql prints. Installs what is missing. Names of tests run these alone (with what they build on):
# scripts/regress.sh temp guc
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
need_postgres
command -v python3 >/dev/null || apt_install python3
source=$(cache_dir)/postgres-source
need_postgres_source "$source"
say "Building"
cargo build --quiet --locked --release --bin pooler
PYTHONPATH=benches:tests/suites exec python3 tests/regress/run.py "${CARGO_TARGET_DIR:-target}/release/pooler" "$source/src/test/regress" "$@"
