#!/usr/bin/env bash
# Makes what is given to those who run it, into target/release/package: the Debian package, the list of its parts (SBOM,
# CycloneDX) and their licences.
# --test: tries all of it, and installs the package in a Debian of its own (packaging/test.sh; takes root and some minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

cargo_deb=3.8.0
cargo_cyclonedx=0.5.9

test=
for argument; do
    case $argument in
        --test) test=yes ;;
        *) fail "usage: scripts/package.sh [--test]" ;;
    esac
done

# A program of cargo's in this very version, kept for the next time.
need_tool() {
    local name=$1 version=$2 dir
    dir=$(cache_dir)/tools/$name-$version
    PATH=$dir/bin:$PATH
    [ -x "$dir/bin/$name" ] && return
    say "Building $name $version"
    cargo install --quiet --locked --root "$dir" --target-dir "$dir/target" "$name@$version" ||
        fail "Could not build $name $version."
    rm -rf "$dir/target"
}

need_build
command -v python3 >/dev/null || apt_install python3
command -v dpkg-shlibdeps >/dev/null || apt_install dpkg-dev
need_tool cargo-deb "$cargo_deb"
need_tool cargo-cyclonedx "$cargo_cyclonedx"

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=$target/release/package
rm -rf "$out"
mkdir -p "$out"

say "Licences and parts"
packaging/licences.py --report "$out/third-party-licences.txt"
# It writes beside Cargo.toml.
trap 'rm -f package.cdx.json' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename package.cdx
mv package.cdx.json "$out/pooler.cdx.json"
packaging/sbom.py "$out/pooler.cdx.json"

say "Program"
cargo build --release --locked
pooler=$target/release/pooler
"$pooler" man --directory "$out/man"
gzip --best --no-name "$out"/man/*.1
"$pooler" completions bash >"$out/pooler.bash"
"$pooler" completions zsh >"$out/pooler.zsh"
"$pooler" completions fish >"$out/pooler.fish"

say "Debian package"
# What debuggers and backtraces want is a package of its own (.ddeb).
cargo deb --quiet --locked --no-build --dbgsym --output "$out/"
deb=$(printf '%s\n' "$out"/pooler_*.deb)
[ -f "$deb" ] || fail "cargo-deb has made no package in $out."

if [ -n "$test" ]; then
    packaging/test.sh "$deb"
fi

say "Made in $out"
(cd "$out" && sha256sum -- *.deb *.ddeb *.json third-party-licences.txt | tee SHA256SUMS)
