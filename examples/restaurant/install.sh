# Sourced by the scripts next to it: installs what the example needs, quickly when all is there, and builds it. Sets POOLER.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
. scripts/lib.sh

node_needed=20.19 # of Prisma and Vite; Debian 12 has an older one
node_from_npm=22.20.0

# Services that packages bring are not started: the example has processes of its own.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        ours=yes
    fi
    # In a shell of its own: a failure ends that, and the policy goes in any case.
    if (apt_install "$@"); then set -- 0; else set -- 1; fi
    [ -z "$ours" ] || as_root rm "$policy"
    [ "$1" = 0 ] || exit 1
}

need_node_for_prisma() {
    local machine dir
    need_node
    at_least "$(node --version | tr -d v)" "$node_needed" && return
    case $(uname -m) in
        x86_64) machine=x64 ;;
        aarch64) machine=arm64 ;;
        *) fail "Install Node.js $node_needed or newer: there is no ready one for $(uname -m)." ;;
    esac
    dir=$(cache_dir)/node
    PATH=$dir/node_modules/node-linux-$machine/bin:$PATH
    [ "$(node --version)" = "v$node_from_npm" ] && return
    say "Fetching Node.js $node_from_npm into $dir"
    mkdir -p "$dir"
    npm install --prefix "$dir" --no-audit --no-fund --loglevel=error "node-linux-$machine@$node_from_npm" >/dev/null ||
        fail "Could not fetch Node.js $node_from_npm with npm."
}

need_packages() {
    local missing=()
    [ -x /usr/sbin/nginx ] || missing+=(nginx)
    [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
    command -v redis-server >/dev/null || missing+=(redis-server)
    command -v setpriv >/dev/null || missing+=(util-linux)
    [ ${#missing[@]} = 0 ] || install_quietly "${missing[@]}"
    need_postgres
    need_node_for_prisma
}

need_modules() {
    cmp -s package-lock.json node_modules/installed.json && return
    say "Installing the packages of package-lock.json"
    npm ci --ignore-scripts --no-update-notifier --no-audit --no-fund --loglevel=error >/dev/null || fail "npm ci failed; is this machine online?"
    cp package-lock.json node_modules/installed.json
}

need_pooler() {
    if [ -z "${POOLER:-}" ]; then
        need_build
        say "Building pooler (some minutes the first time)"
        cargo build --release --locked --bin pooler
        POOLER=${CARGO_TARGET_DIR:-$root/target}/release/pooler
    fi
    "$POOLER" --version >/dev/null 2>&1 || fail "POOLER is no program that runs: $POOLER"
    POOLER=$(realpath "$POOLER")
    export POOLER
}

build_example() {
    say "Building the example"
    local said
    said=$(npm run --silent generate 2>&1) || fail "prisma generate failed:" "$said"
    said=$(npm run --silent pages 2>&1) || fail "vite build failed:" "$said"
}

need_example() {
    need_packages
    need_pooler
    cd "$here"
    need_modules
    build_example
}
