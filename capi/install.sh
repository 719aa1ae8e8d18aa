#!/bin/sh
# Installs the C libraries, their headers and low2g.pc where cargo-c is not at hand:
#   cargo build --release && capi/install.sh /usr/local [FOLDER OF THE LIBRARIES]
# DESTDIR, if set, goes before the prefix.
set -eu
prefix=${1:?usage: capi/install.sh PREFIX [FOLDER OF THE LIBRARIES]}
top=$(cd "$(dirname "$0")/.." && pwd)
built=${2:-$top/target/release}
to=${DESTDIR:-}$prefix
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$top/Cargo.toml")
install -d "$to/include" "$to/lib/pkgconfig"
(cd "$top/include" && find . -type f \( -name '*.h' -o -name '*.hpp' \)) | while read -r header; do
    install -D -m 644 "$top/include/$header" "$to/include/$header"
done
install -m 644 "$built/liblow2g.a" "$to/lib/"
install -m 755 "$built/liblow2g.so" "$to/lib/"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$top/capi/low2g.pc.in" \
    >"$to/lib/pkgconfig/low2g.pc"
