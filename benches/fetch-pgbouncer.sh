#!/usr/bin/env bash
# Prints the command that runs the newest PgBouncer that can be had as a Debian package.
#
# Usage: benches/fetch-pgbouncer.sh CACHE_DIR
#
# The package is unpacked, with the shared libraries it was built against and their loader, into CACHE_DIR;
# nothing of the system changes (own source list, own package lists). Suites are tried in the order of
# PGBOUNCER_SUITES. If none works: the distribution's own pgbouncer, unpacked the same way.
set -euo pipefail

cache=$(mkdir -p "$1" && cd "$1" && pwd)
suites=${PGBOUNCER_SUITES:-sid trixie}

# The mirror that this machine uses already.
mirror() {
  { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true; } |
    grep -v '^ *#' | grep -oE 'https?://[^] ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true
}

# run_command TREE: how the unpacked binary is started, by its own loader.
run_command() {
  local loader libs
  loader=$(find "$1" -name 'ld-linux-*.so.*' | head -n 1)
  libs=$(find "$1" -name 'lib*.so.*' -printf '%h\n' | sort -u | grep -v pam_ | paste -sd:)
  if [ -n "$loader" ]; then echo "$loader --library-path $libs $1/usr/sbin/pgbouncer"; else echo "$1/usr/sbin/pgbouncer"; fi
}

# libraries PACKAGE: it and the library packages it needs, directly or not.
libraries() {
  local queue=("$1") seen=" " package next
  while [ ${#queue[@]} -gt 0 ]; do
    package=${queue[0]} queue=("${queue[@]:1}")
    case $seen in *" $package "*) continue ;; esac
    seen+="$package "
    while read -r next; do queue+=("$next"); done < <(
      apt-cache depends --no-pre-depends "$package" | sed -n 's/^ *|\?Depends: \(lib[a-z0-9.+-]*\)$/\1/p' |
        grep -vE '^libpam-|-perl$' || true
    )
  done
  echo "$seen"
}

fetch() {
  local suite=$1 dir=$cache/$1
  if [ ! -e "$dir/ready" ]; then
    rm -rf "$dir"
    mkdir -p "$dir"/{lists/partial,archives/partial,tree}
    touch "$dir/status"
    if [ "$suite" = distribution ]; then
      echo 'Dir::State::status "/var/lib/dpkg/status";' >"$dir/apt.conf"
    else
      echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$dir/sources.list"
      cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
    fi
    (
      cd "$dir/archives"
      export APT_CONFIG=$dir/apt.conf
      [ "$suite" = distribution ] || apt-get -q update
      # shellcheck disable=SC2046 # one word per package
      apt-get -q download $(libraries pgbouncer)
      for package in *.deb; do dpkg-deb -x "$package" "$dir/tree"; done
    ) >"$dir/log" 2>&1 || return 1
    # shellcheck disable=SC2046
    $(run_command "$dir/tree") --version >>"$dir/log" 2>&1 || return 1
    rm -rf "$dir/archives" "$dir/lists" "$dir"/*.bin
    touch "$dir/ready"
  fi
  run_command "$dir/tree"
}

for suite in $suites distribution; do
  if fetch "$suite"; then exit 0; fi
  echo "fetch-pgbouncer: $suite does not work here, see $cache/$suite/log" >&2
done
exit 1
