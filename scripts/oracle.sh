#!/usr/bin/env bash
# Judges the classifier of statements (src/sql) by PostgreSQL's own scanner and parser: the regression tests of
# PostgreSQL, and mutations of them for a minute. Installs what is missing; the first run builds for minutes.
# More of it: scripts/oracle.sh --seconds 3600 --mutations 100000000 --seed 7
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_build
compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || apt_install clang libclang-dev

# The distribution's source of PostgreSQL: regression tests and pg_proc.dat. The lists of the system stay as they are.
need_postgres_source() {
    local dir temporary file package version options
    dir=$1
    [ -d "$dir/src/test/regress/sql" ] && [ -f "$dir/src/include/catalog/pg_proc.dat" ] && return
    say "Fetching the source of PostgreSQL into $dir"
    command -v bzip2 >/dev/null || apt_install bzip2
    temporary=$(mktemp -d)
    mkdir -p "$temporary"/{parts,lists/partial,cache/archives/partial}
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        grep -qsE '(debian|ubuntu)\.(org|com)' "$file" || continue
        sed -e 's/^Types: deb$/Types: deb-src/' -e 's/^deb /deb-src /' "$file" >"$temporary/parts/$(basename "$file")"
    done
    options=(-qq -o APT::Sandbox::User=root -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$temporary/parts"
        -o "Dir::State::lists=$temporary/lists" -o "Dir::Cache=$temporary/cache")
    apt-get "${options[@]}" update || fail "apt-get update failed; is this machine online?"
    package=$(apt-cache pkgnames postgresql- | grep -E '^postgresql-[0-9]+$' | sort -V | tail -n 1)
    # Mirrors do not have every version that their lists name.
    for version in $(apt-cache "${options[@]}" showsrc "$package" | sed -n 's/^Version: //p' | sort -uV); do
        (cd "$temporary" && apt-get "${options[@]}" source --download-only --tar-only "$package=$version" 2>/dev/null) && break
    done
    file=$(printf '%s\n' "$temporary"/*.orig.tar.*)
    [ -f "$file" ] || fail "Could not fetch the source of $package with apt-get."
    mkdir -p "$dir"
    tar -xf "$file" -C "$dir" --strip-components=1 --wildcards \
        '*/src/test/regress/sql/*' '*/src/pl/plpgsql/src/sql/*' '*/src/include/catalog/pg_proc.dat'
    rm -rf "$temporary"
}

source=$(cache_dir)/postgres-source
need_postgres_source "$source"
say "Oracle"
exec cargo run --locked --release --quiet --manifest-path tests/oracle/Cargo.toml -- "$source" "$@"
