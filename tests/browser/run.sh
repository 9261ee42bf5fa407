#!/usr/bin/env bash
# Looks at pooler's status page in a real browser: logs in, watches load and a failover, and tries to get markup in.
#
#   tests/browser/run.sh
#
# POOLER     the program to test (default: built from this checkout)
# CHROMIUM   the browser (default: /usr/bin/chromium)
# PICTURES   a directory for pictures of the page
#
# Installs what is missing on Debian and Ubuntu (as root, or with sudo). Takes half a minute.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
. scripts/lib.sh

need_postgres
need_node
need_chromium
if [ -z "${POOLER:-}" ]; then
    need_build
    cargo build --locked --bin pooler
    POOLER=${CARGO_TARGET_DIR:-target}/debug/pooler
fi
"$POOLER" --version >/dev/null 2>&1 || fail "POOLER is no program that runs: $POOLER"
POOLER=$(realpath "$POOLER")
export POOLER
cd "$here"
if ! cmp -s package-lock.json node_modules/installed.json; then
    say "Installing the packages of package-lock.json"
    npm ci --ignore-scripts --no-update-notifier --no-audit --no-fund --loglevel=error >/dev/null ||
        fail "npm ci failed; is this machine online?"
    cp package-lock.json node_modules/installed.json
fi
say "Testing"
exec node --test-reporter spec --test-timeout 180000 --test test.mjs
