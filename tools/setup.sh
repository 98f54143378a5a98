#!/bin/sh
# setup.sh: installs what building, testing and the demo need and this machine lacks. Says nothing when nothing
# is missing; without root, says the one line to run.
set -eu

missing=
need() { # PACKAGE, then a command or header that it brings
  case $2 in
    /*) for place in "$2" /usr/include/*-linux-gnu"${2#/usr/include}"; do [ -e "$place" ] && return; done ;;
    *) command -v "$2" >/dev/null && return ;;
  esac
  missing="$missing $1"
}

need g++ "${CXX:-g++}"
need nlohmann-json3-dev /usr/include/nlohmann/json.hpp
need doctest-dev /usr/include/doctest/doctest.h
need libcli11-dev /usr/include/CLI/CLI.hpp
need libfmt-dev /usr/include/fmt/format.h
need libutf8proc-dev /usr/include/utf8proc.h
need zlib1g-dev /usr/include/zlib.h
need libboost-dev /usr/include/boost/math/distributions/students_t.hpp
need libcsv-dev /usr/include/csv.h
need libmd-dev /usr/include/sha2.h
need libcairo2-dev /usr/include/cairo/cairo.h
need pkg-config pkg-config
need fonts-dejavu-core /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
need npm npm

[ -z "$missing" ] && exit 0
install="apt-get update && apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null; then
  echo "error: this machine lacks what these Debian packages bring; install it with your own package manager:$missing" >&2
  exit 1
elif [ "$(id -u)" != 0 ]; then
  echo "error: something is missing; run: sudo sh -c '$install'" >&2
  exit 1
fi
echo "installing$missing"
DEBIAN_FRONTEND=noninteractive sh -c "$install" >/dev/null
