#!/bin/sh
# lint.sh BUILD: the formatting of every source; includes that run upwards; and the code of each instruction set:
# a weak symbol outside the set's namespace could be the copy that the linker keeps, for a machine that cannot run
# it.
set -eu
build=${1:-build}
status=0

if command -v clang-format >/dev/null; then
  clang-format --dry-run -Werror $(git ls-files '*.h' '*.cpp' '*.cu') || status=1
else
  echo "error: clang-format is missing; run: apt-get install clang-format" >&2
  status=1
fi

upward() { # ROOM, what it must not include
  if grep -nE "^#include \"($2)/" -r "$1"; then
    echo "error: $1 must not include $2" >&2
    status=1
  fi
}
upward engine 'kernels|model|tokenizer|tools'
upward kernels 'model|tokenizer|tools'
upward model 'tokenizer|tools'
upward tokenizer 'kernels|model|tools'

check_weak() { # SET NAMESPACES OBJECT...
  set=$1 own=$2
  shift 2
  [ -e "$1" ] || return 0
  leaked=$(nm -C "$@" | grep -E '^[0-9a-f]* [WVu] ' |
    grep -vE "topolm::($own)::|typeinfo (name )?for topolm::Kernels|DW.ref" || true)
  if [ -n "$leaked" ]; then
    printf 'error: compiled for %s, but weak and outside its namespace:\n%s\n' "$set" "$leaked" >&2
    status=1
  fi
}
for isa in avx2 avx512 avx512_bf16 amx amx_emulated; do
  check_weak $isa $isa $(cd kernels/cpu && ls ./*.cpp | sed "s|.*/\(.*\)\.cpp|$build/obj/kernels/cpu/$isa/\1.o|")
done
# The simt device's kernels use FMA: only a processor that has it is let near them.
check_weak FMA 'simt_kernels|simt' $(cd kernels/cuda && ls ./*.cu | sed "s|.*/\(.*\)\.cu|$build/obj/kernels/simt/cuda/\1.o|")
exit $status
