#!/bin/sh
# llmc.sh CHECKOUT LAYERS HEADS CHANNELS VOCABULARY CONTEXT BATCH SEQ STEPS: training steps of llm.c's CPU reference, with
# the flags of its own Makefile. CHECKOUT is a copy of github.com/karpathy/llm.c; nothing of it is kept here. The last
# line printed is JSON; OMP_NUM_THREADS is the caller's business. ./bench --compare --llmc CHECKOUT calls this.
set -eu
[ $# -eq 9 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
checkout=$1
shift
[ -e "$checkout/train_gpt2.c" ] || {
  echo "error: '$checkout' has no train_gpt2.c; give a checkout of github.com/karpathy/llm.c" >&2
  exit 1
}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC:-gcc} -Ofast -march=native -fopenmp -DOMP -w -I"$checkout" "$here/llmc_step.c" -lm -o "$work/step"
"$work/step" "$work/model.bin" "$@"
