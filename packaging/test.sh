#!/usr/bin/env bash
# packaging/test.sh PACKAGE.deb: linters, and then a Debian of its own, in which a real systemd installs, starts, reloads,
# stops, upgrades and purges it, in front of a real PostgreSQL. It has its own processes, mounts and network: nothing of it is left
# behind, and nothing on this machine changes. As root.
set -euo pipefail
deb=$(realpath "$1")
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ "$(id -u)" = 0 ] || fail "packaging/test.sh needs root, for a Debian of its own."
need_postgres
for program in lintian mandoc debootstrap zsh fish unshare nsenter ip; do
    case $program in
        unshare | nsenter) package=util-linux ;;
        ip) package=iproute2 ;;
        *) package=$program ;;
    esac
    command -v "$program" >/dev/null || apt_install "$package"
done
postgres=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

work=$(mktemp -d)
chmod 755 "$work"
first=
cleanup() {
    # The first process ends all others, and their mounts go with it.
    if [ -n "$first" ]; then kill -9 "$first" || true; fi
    # PostgreSQL is in the same network, but no process of that Debian.
    if [ -f "$work/data/postmaster.pid" ]; then kill -QUIT "$(head -n 1 "$work/data/postmaster.pid")" || true; fi
    sleep 1
    rm -rf "$work"
}
trap cleanup EXIT
wrong() { fail "FAILED: $*"; }
ok() { printf '  ok  %s\n' "$*"; }
eventually() {
    local _
    for _ in {1..150}; do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    wrong "still not after 30 s: $*"
}

say "The package"
lintian --allow-root --fail-on error "$deb"
dpkg-deb -x "$deb" "$work/files"
for page in "$work"/files/usr/share/man/man1/*.gz; do
    # Without a date (builds are to be the same again), and with paragraphs that only look superfluous to it.
    problems=$(gzip -dc "$page" | mandoc -T lint -W warning | grep -v -e 'cannot parse date' -e 'skipping paragraph macro' || true)
    [ -z "$problems" ] || wrong "$page: $problems"
done
bash -n "$work/files/usr/share/bash-completion/completions/pooler"
zsh -n "$work/files/usr/share/zsh/vendor-completions/_pooler"
fish --no-execute "$work/files/usr/share/fish/vendor_completions.d/pooler.fish"
ok "lintian, mandoc, bash, zsh, fish"

base=$(cache_dir)/debian-systemd
if [ ! -f "$base.done" ]; then
    say "Fetching a Debian into $base"
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,passwd bookworm "$base" >"$work/debootstrap.log" 2>&1 ||
        fail "debootstrap failed:" "$(tail -n 5 "$work/debootstrap.log")"
    touch "$base.done"
fi

say "Starting it"
# Everything that is written goes to memory.
cat >"$work/boot" <<'BOOT'
set -euo pipefail
base=$1 work=$2
root=$work/root
mount --make-rprivate /
mkdir -p "$work/memory" "$root"
mount -t tmpfs memory "$work/memory"
mkdir "$work/memory/upper" "$work/memory/work"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$work/memory/upper,workdir=$work/memory/work" "$root"
mount -t proc proc "$root/proc"
# The kernel is everybody's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$root/dev"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/full" c 1 7
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for unit in systemd-sysctl systemd-modules-load systemd-udevd systemd-networkd sys-kernel-debug.mount dev-hugepages.mount; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
exec env -i container=pooler-test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" /lib/systemd/systemd --log-target=console
BOOT
unshare --fork --pid --mount --uts --ipc --net --cgroup --kill-child bash "$work/boot" "$base" "$work" >"$work/systemd.log" 2>&1 </dev/null &
starter=$!
for _ in {1..50}; do
    first=$(pgrep -P "$starter" || true)
    [ -n "$first" ] && break
    sleep 0.1
done
[ -n "$first" ] || wrong "it did not start: $(cat "$work/systemd.log")"
inside() { nsenter -t "$first" -p -m -u -i -n -C -r -w -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
network() { nsenter -t "$first" -n -- "$@"; }
for _ in {1..100}; do
    state=$(inside systemctl is-system-running 2>&1 || true)
    case $state in running | degraded) break ;; esac
    kill -0 "$first" 2>/dev/null || wrong "it ended: $(cat "$work/systemd.log")"
    sleep 0.2
done
case $state in running | degraded) ok "systemd $(inside systemctl --version | head -n 1 | cut -d ' ' -f 2): $state" ;; *) wrong "systemd: $state" ;; esac
network ip link set lo up
etc=/proc/$first/root/etc/pooler

mkdir "$work/data"
chown postgres "$work/data"
as_postgres() { network setpriv --reuid postgres --regid postgres --clear-groups env PATH="$postgres:$PATH" "$@"; }
(
    cd /
    as_postgres initdb -D "$work/data" -A trust >/dev/null
    as_postgres pg_ctl -D "$work/data" -l "$work/data/log" -o "-c listen_addresses=127.0.0.1 -k $work/data" -w start >/dev/null
    as_postgres psql -qXh 127.0.0.1 postgres -c "CREATE ROLE app LOGIN PASSWORD 'secret'"
)
sql() { network env PGPASSWORD=secret PGCONNECT_TIMEOUT=20 psql -XAtq -h "${host:-127.0.0.1}" -p 6432 -U app "${database:-postgres}" -c "$1"; }
pid() { inside systemctl show --value -p MainPID pooler; }
is() { [ "$(inside systemctl "$1" "$2" || true)" = "$3" ] || wrong "$2: $(inside systemctl "$1" "$2" || true) and not $3: $(inside systemctl status pooler)"; }
# dpkg has what it needs in the Debian of the test, and nothing from elsewhere.
install_package() { inside dpkg "$@" >"$work/dpkg.log" 2>&1 || wrong "dpkg: $(cat "$work/dpkg.log")"; }

say "Installation"
cp "$deb" "/proc/$first/root/root/pooler.deb"
install_package -i /root/pooler.deb
is is-active pooler.service active
is is-enabled pooler.service enabled
is is-enabled pooler.socket disabled
[ "$(inside stat -c '%U:%G %a' /etc/pooler/pooler.toml)" = "root:pooler 640" ] || wrong "pooler.toml: $(inside stat -c '%U:%G %a' /etc/pooler/pooler.toml)"
[ "$(inside stat -c '%U:%G %a' /run/pooler)" = "pooler:pooler 755" ] || wrong "/run/pooler: $(inside stat -c '%U:%G %a' /run/pooler)"
[ "$(inside ps -o user= -p "$(pid)" 2>/dev/null || inside stat -c %U "/proc/$(pid)")" = pooler ] || wrong "it does not run as pooler"
ok "it runs as pooler, and starts with the system"
problems=$(inside systemd-analyze verify --man=no pooler.service pooler.socket 2>&1) || true
[ -z "$problems" ] || wrong "systemd-analyze verify: $problems"
inside systemd-analyze security --no-pager --threshold=20 pooler.service >"$work/security" || wrong "$(cat "$work/security")"
ok "systemd-analyze verify, security: $(grep -o 'Overall.*' "$work/security")"
# Some machines let nobody have more than they have.
files=65536
(ulimit -n "$files") 2>/dev/null || files=$(ulimit -Hn)
[ "$(inside sed -n 's/^Max open files *\([0-9]*\) .*/\1/p' "/proc/$(pid)/limits")" -ge "$files" ] || wrong "it may not open $files files"

say "Use"
before=$(pid)
sed -i -e 's|^host = .*|host = "127.0.0.1"|' -e 's|^#admin_users = .*|admin_users = ["app"]|' "$etc/pooler.toml"
printf '[users.app]\npassword = "${APP_PASSWORD}"\n' >>"$etc/pooler.toml"
# A variable of /etc/default/pooler is there from the next start on.
printf 'APP_PASSWORD=secret\n' >"$etc/../default/pooler"
inside systemctl restart pooler || wrong "restart: $(inside journalctl --no-pager -u pooler -n 20)"
[ "$(sql 'SELECT current_user')" = app ] || wrong "no answer by TCP"
[ "$(host=/proc/$first/root/run/pooler sql 'SELECT 40 + 2')" = 42 ] || wrong "no answer by the unix socket"
ok "psql by TCP and by the unix socket"
before=$(pid)
sed -i 's|^shutdown_timeout = .*|shutdown_timeout = "50s"|' "$etc/pooler.toml"
inside systemctl reload pooler || wrong "reload: $(inside journalctl --no-pager -u pooler -n 20)"
[ "$(pid)" = "$before" ] || wrong "a reload has restarted it"
is_reloaded() { database=pooler sql 'SHOW CONFIG' | grep -q '^shutdown_timeout|50'; }
eventually is_reloaded
cp "$etc/pooler.toml" "$work/good.toml"
echo 'nonsense = 1' >>"$etc/pooler.toml"
if inside systemctl reload pooler 2>/dev/null; then wrong "a bad configuration is not told by systemctl reload"; fi
inside journalctl --no-pager -u pooler | grep -q nonsense || wrong "the journal does not tell what is wrong"
[ "$(sql 'SELECT 1')" = 1 ] && [ "$(pid)" = "$before" ] || wrong "a bad configuration has done harm"
cat "$work/good.toml" >"$etc/pooler.toml"
inside systemctl reload pooler || wrong "reload: $(inside journalctl --no-pager -u pooler -n 20)"
ok "reload: what is right counts, and what is wrong is told and changes nothing"
sql 'SELECT pg_sleep(3)' >/dev/null &
running=$!
is_running() { as_postgres psql -XAtq -h 127.0.0.1 postgres -c "SELECT 1 FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep' AND state = 'active'" | grep -q .; }
eventually is_running
inside systemctl stop pooler
wait "$running" || wrong "a running statement was cut off by systemctl stop"
[ "$(inside systemctl show --value -p Result pooler)" = success ] || wrong "stop: $(inside systemctl status pooler)"
ok "stop lets a running statement end"

say "Sockets of systemd"
inside systemctl enable --now pooler.socket 2>/dev/null
[ "$(sql 'SELECT 1')" = 1 ] || wrong "the first client does not start it"
before=$(pid)
for n in {1..60}; do sql "SELECT $n" >/dev/null 2>>"$work/refused" || echo "client $n" >>"$work/refused"; done &
clients=$!
sleep 0.5
inside systemctl restart pooler
wait "$clients"
[ "$(pid)" != "$before" ] || wrong "it was not restarted"
# Whoever is connected at the very moment has no transaction, and is told that it ends; nobody is refused.
if grep -E 'refused|No such file' "$work/refused"; then wrong "clients were refused at a restart"; fi
[ "$(host=/proc/$first/root/run/pooler sql 'SELECT 40 + 2')" = 42 ] || wrong "no answer by the unix socket"
ok "nobody is refused at a restart ($(grep -c '^client' "$work/refused" || true) of 60 were told to come again)"

say "Upgrade"
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
echo '# new' >>"$work/next/etc/pooler/pooler.toml"
rm -f "$work/next/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Znone -b "$work/next" "/proc/$first/root/root/next.deb" >/dev/null
before=$(pid)
cat "$etc/pooler.toml" >"$work/changed.toml"
install_package --force-confdef --force-confold -i /root/next.deb
cmp "$etc/pooler.toml" "$work/changed.toml" || wrong "an upgrade has changed the configuration"
[ "$(inside stat -c '%U:%G %a' /etc/pooler/pooler.toml)" = "root:pooler 640" ] || wrong "an upgrade has changed who may read it"
[ "$(pid)" != "$before" ] && [ "$(sql 'SELECT 1')" = 1 ] || wrong "the new one does not run"
is is-enabled pooler.socket enabled
ok "the configuration stays, and the new one runs"

say "Removal"
install_package -r pooler
[ "$(inside systemctl is-active pooler.service || true)" != active ] || wrong "it still runs"
cmp "$etc/pooler.toml" "$work/changed.toml" || wrong "removing it takes the configuration away"
install_package --force-confdef --force-confold -i /root/pooler.deb
[ "$(sql 'SELECT 1')" = 1 ] || wrong "it does not run when it is installed again"
install_package -P pooler
left=$(inside sh -c 'ls -d /etc/pooler /run/pooler; getent passwd pooler; getent group pooler; find /etc/systemd /var/lib/systemd -name "pooler*"' 2>/dev/null || true)
[ -z "$left" ] || wrong "left behind by purge: $left"
ok "purge leaves nothing"
