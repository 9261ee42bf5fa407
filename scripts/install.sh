#!/usr/bin/env bash
# Installs what building, the demo and the tests need. The other scripts call what they need of it themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
need_postgres
need_postgres_18
need_test_tools
need_companions
say "Everything is there: $(cargo --version), $(psql --version)"
