#!/bin/sh
# fetch_novels.sh DIR: Jane Austen's six novels (public domain, 4 MB) as DIR/*.txt, out of Debian's package
# r-cran-janeaustenr, which is unpacked and never installed. Needs build/extract_novels (or the program that
# EXTRACT_NOVELS names); does nothing when DIR already has them.
set -eu

hint='use your own text instead: make demo TEXT=my.txt'
die() {
  echo "error: $1; $hint" >&2
  exit 1
}

[ $# -eq 1 ] || { echo 'usage: fetch_novels.sh DIR' >&2; exit 2; }
directory=$1
extract=${EXTRACT_NOVELS:-$(dirname "$0")/../build/extract_novels}

# Written last, so it says that all six are there.
[ -f "$directory/.complete" ] && exit 0

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  die 'the novels come from a Debian package, and this system has no apt-get and dpkg-deb'
[ -x "$extract" ] || { echo "error: '$extract' is missing; run make first" >&2; exit 1; }

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT TERM

# Run by root, apt downloads as a user of its own: give it the directory, to spare its warning.
if [ "$(id -u)" = 0 ]; then chown _apt "$temporary" 2>/dev/null || true; fi
(cd "$temporary" && apt-get -q download r-cran-janeaustenr >apt.log 2>&1) ||
  die "apt-get could not download r-cran-janeaustenr ($(grep -m1 '^E:' "$temporary/apt.log" || echo 'offline?'))"
dpkg-deb -x "$temporary"/r-cran-janeaustenr_*.deb "$temporary/unpacked"
"$extract" "$temporary/unpacked/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb" "$directory"
: >"$directory/.complete"
