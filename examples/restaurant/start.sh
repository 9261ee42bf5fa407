#!/usr/bin/env bash
# Starts the whole system and says where it is: pages, three instances of an API behind a balancer, Redis, pooler, a primary and two
# replicas. Ctrl-C stops all of it and leaves nothing behind.
#
#   examples/restaurant/start.sh [--port 8080] [--balancer nginx|haproxy]
#
# POOLER   the program to use (default: built from this checkout)
#
# Installs what is missing on Debian and Ubuntu (as root, or with sudo).
set -euo pipefail
case " $* " in *" -h "* | *" --help "*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
. "$(dirname "${BASH_SOURCE[0]}")/install.sh"

need_example
say "Starting"
exec node --import tsx system/start.ts "$@"
