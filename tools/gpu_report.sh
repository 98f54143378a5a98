#!/bin/sh
# gpu_report.sh BUILD DEVICE: everything a machine with a GPU can say, in gpu-report.md: all tests on it,
# compute-sanitizer over the kernels' tests, then the times. DEVICE simt rehearses it in small.
set -u
build=${1:-build} device=${2:-cuda}
directory=$build/gpu-report
report=gpu-report.md
[ "$device" = simt ] && report=$directory/rehearsal.md
mkdir -p "$directory"
failed=0

# Asks for the device first: without one there is one sentence to say, not a page.
if [ "$device" = simt ]; then small="--preset nano --batch 2 --seq 32 --steps 2 --tokens 8"; else small=; fi

section() { # NAME COMMAND...: its last lines go into the report, all of them into a file beside it
  name=$1
  log=$directory/$(echo "$name" | tr ' ' '-').log
  shift
  echo "== $name"
  if "$@" >"$log" 2>&1; then verdict=passed; else verdict=FAILED failed=1; fi
  printf '### %s: %s\n\n```\n%s\n```\n\n' "$name" "$verdict" "$(tail -n 4 "$log")" >>"$directory/checks.md"
  echo "   $verdict ($log)"
}

if ! "$build/gpu_report" --device "$device" $small --out "$directory/times.md"; then exit 1; fi

: >"$directory/checks.md"
section "tests on $device" env TOPOLM_DEVICE="$device" "$build/kernel_tests"
if [ "$device" = cuda ]; then
  section "golden sets and training on cuda" env TOPOLM_DEVICE=cuda "$build/tests" -tc='golden*,training*,generator*'
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
      section "compute-sanitizer $tool" env TOPOLM_DEVICE=cuda compute-sanitizer --tool "$tool" --error-exitcode 1 \
        "$build/kernel_tests"
    done
  else
    printf '### compute-sanitizer: not found\n\n' >>"$directory/checks.md"
  fi
fi

{
  printf '# GPU report\n\n%s, %s\n\n' "$(date -u +%Y-%m-%d)" "$(git rev-parse --short HEAD 2>/dev/null || echo 'no git')"
  cat "$directory/times.md"
  printf '## Checks\n\n'
  cat "$directory/checks.md"
} >"$report"
echo "wrote $report"
exit $failed
