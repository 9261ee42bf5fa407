#!/usr/bin/env bash
# Guests who browse and order, with a line of what happens each second; at the end it looks whether each order that was
# acknowledged is there once. Needs the system that start.sh has started.
#
#   examples/restaurant/load.sh [URL] [--seconds 30] [--browsing 10] [--ordering 5]
set -euo pipefail
case " $* " in *" -h "* | *" --help "*) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

need_node_for_prisma
cd "$here"
need_modules
exec node --import tsx load/main.ts "$@"
