#!/bin/bash
# A Swift toolchain for a machine that has none: Debian 13's, in a root folder of its own under the cache.
#
#   swift.sh TOOL ARGUMENTS…    run swift-test, swiftc, … on the repository, which lies at /repo inside
#
# A toolchain on the PATH is used instead. Exit code 3, with the reason, where neither can be had.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
root=${ELIR_MOBILE_CACHE:-$HOME/.cache/elir-mobile}/swift-6.0.3
# What the compiler links against, and base-files for the links /lib and /bin.
packages=swiftlang,libc6-dev,libstdc++-14-dev,base-files

lacking() {
  echo "no Swift toolchain: $1" >&2
  exit 3
}

if command -v swiftc >/dev/null; then
  exec env REPOSITORY="$repository" "$@"
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || lacking "install Swift from swift.org"
unshare --map-root-user --mount --pid --fork true 2>/dev/null ||
  lacking "unshare (Debian package util-linux) may make no namespaces here"
if [ ! -d "$root" ]; then
  command -v mmdebstrap >/dev/null || lacking "mmdebstrap is missing (Debian package mmdebstrap)"
  [ -f /usr/share/keyrings/debian-archive-trixie-stable.gpg ] ||
    lacking "the keys of Debian 13 are missing (Debian package debian-archive-keyring)"
  mkdir -p "$(dirname "$root")"
  staging=$(mktemp -d "$(dirname "$root")/.swift-XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  echo "fetching Debian's Swift 6.0.3 into $root (once; 2.5 GB unpacked)" >&2
  mmdebstrap --quiet --arch=amd64 --variant=extract --include="$packages" trixie "$staging/root" >&2 ||
    lacking "Debian's packages could not be fetched by mmdebstrap"
  mkdir -p "$staging/root/proc" "$staging/root/dev" "$staging/root/repo"
  mv "$staging/root" "$root"
fi

# Namespaces of its own: nothing stays mounted when the command ends. The shell stays as the first process, to
# reap what a crashed test leaves.
exec unshare --map-root-user --mount --pid --fork sh -c '
  root=$1; repository=$2; shift 2
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --bind "$repository" "$root/repo"
  env HOME=/tmp REPOSITORY=/repo PATH=/usr/libexec/swift/bin:/usr/bin "$(command -v chroot || echo /usr/sbin/chroot)" "$root" "$@"
' sh "$root" "$repository" "$@"
