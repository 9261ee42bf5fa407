#!/usr/bin/env bash
# Passes every test: installs what is missing, then formatting, lints, documentation, tests and drivers.
# Ends with a summary and fails if any part failed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
need_postgres
need_postgres_18
need_test_tools
need_companions
need_pgbouncer
need_chromium

failed=0
summary=()
part() {
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then
        summary+=("ok      $name ($((SECONDS - start)) s)")
    else
        summary+=("FAILED  $name ($((SECONDS - start)) s): $*")
        failed=1
    fi
}

part "formatting" cargo fmt --check
part "lints" cargo clippy --locked --all-targets -- -D warnings
part "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
part "build" cargo build --locked
part "drivers" env POOLER="$(realpath "${CARGO_TARGET_DIR:-target}")/debug/pooler" tests/drivers/run.sh
part "status page in a browser" env POOLER="$(realpath "${CARGO_TARGET_DIR:-target}")/debug/pooler" tests/browser/run.sh
part "classifier against PostgreSQL's parser" scripts/oracle.sh
# Clusters with replicas are of the distribution's version either way, and only that has the programs of replication: they come in
# the last part.
# What they leave is asked of servers behind every transaction; one test counts what servers are sent.
part "tests on PostgreSQL 18, with clients that move and are looked after" \
    env POOLER_TEST_POSTGRES=18 POOLER_TEST_PLACEMENT=rotate POOLER_TEST_SESSION=always \
    cargo test --locked --no-fail-fast --test it -- \
    --skip failover:: --skip replication:: --skip switchover:: --skip freshness:: --skip routing_ --skip replicas:: --skip equal_settings_are_not_set_again
# Last, so that the output ends with its result.
part "tests" cargo test --locked --no-fail-fast

say "Summary"
printf '%s\n' "${summary[@]}"
exit "$failed"
