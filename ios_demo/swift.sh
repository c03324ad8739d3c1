#!/bin/bash
# A Swift toolchain for a machine that has none: Debian 13's, in a root folder of its own under the cache.
#
#   swift.sh TOOL ARGUMENTS…    run swift-test, swiftc, … in the repository, with paths inside it
#
# A toolchain on the PATH is used instead. Exit code 3, with the reason, where neither can be had.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
cache=$HOME/.cache/elir-mobile
root=$cache/swift-6.0.3
# What the compiler links against, and base-files for the links /lib and /bin.
packages=swiftlang,libc6-dev,libstdc++-14-dev,base-files

lacking() {
  echo "$1" >&2
  exit 3
}

if command -v swiftc >/dev/null; then
  # Toolchains from elsewhere have no swift-test on the PATH, but a "swift test".
  if [ "$1" = swift-test ] && ! command -v swift-test >/dev/null; then
    shift
    exec swift test "$@"
  fi
  exec "$@"
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || lacking "no Swift here: install it from swift.org"
unshare --map-root-user --mount --pid --fork true 2>/dev/null ||
  lacking "no Swift here, and unshare (Debian package util-linux) may make no namespaces to run Debian's in"
if [ ! -d "$root" ]; then
  command -v mmdebstrap >/dev/null ||
    lacking "no Swift here: install the Debian package mmdebstrap, which fetches Debian 13's"
  [ -f /usr/share/keyrings/debian-archive-trixie-stable.gpg ] ||
    lacking "no Swift here: install a debian-archive-keyring that has the keys of Debian 13"
  mkdir -p "$cache"
  staging=$(mktemp -d "$cache/.swift-XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  echo "fetching Debian's Swift 6.0.3 into $root (once; 2.5 GB unpacked)" >&2
  mmdebstrap --quiet --arch=amd64 --variant=extract --include="$packages" trixie "$staging/root" >&2 ||
    lacking "no Swift here: mmdebstrap could not fetch Debian 13's packages"
  mv "$staging/root" "$root"
fi
mkdir -p "$root/proc" "$root/dev" "$root/$repository"

# Namespaces of its own: nothing stays mounted when the command ends. The shell stays as the first process, to
# reap what a crashed test leaves.
exec unshare --map-root-user --mount --pid --fork sh -c '
  root=$1; repository=$2; shift 2
  mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
    mount --bind "$repository" "$root/$repository" || exit 3
  PATH=/usr/libexec/swift/bin:$PATH:/usr/sbin HOME=/tmp unshare --root="$root" --wd="$repository" "$@"
' sh "$root" "$repository" "$@"
