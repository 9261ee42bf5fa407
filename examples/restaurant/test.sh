#!/usr/bin/env bash
# Starts the whole system on free ports, orders in a browser, and kills what there is under load: no order may be lost or doubled.
#
#   examples/restaurant/test.sh
#
# POOLER     the program to test (default: built from this checkout)
# CHROMIUM   the browser (default: /usr/bin/chromium)
#
# Installs what is missing on Debian and Ubuntu (as root, or with sudo).
set -euo pipefail
case " $* " in *" -h "* | *" --help "*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

need_example
need_chromium
say "Checking types"
npm run --silent types
say "Testing"
exec node --import tsx --test-reporter spec test/main.ts "$@"
