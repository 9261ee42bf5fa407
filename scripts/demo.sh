#!/usr/bin/env bash
# Shows pooler at work: installs what is missing, builds, and runs `pooler demo` (options go there).
# Ctrl-C ends it and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
need_postgres
say "Building pooler (some minutes the first time)"
cargo build --release --locked --bin pooler
exec "${CARGO_TARGET_DIR:-target}/release/pooler" demo "$@"
