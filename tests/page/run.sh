#!/bin/sh
# run.sh: the Atlas page in headless Chromium; ATLAS_HTML=FILE tests a page that ./atlas wrote, too.
# Installs what is missing: Chromium as Debian's package; playwright-core, which drives it, in build/page_tests.
set -eu
cd "$(dirname "$0")/../.."
PLAYWRIGHT=$PWD/${BUILD:-build}/page_tests
[ -z "${ATLAS_HTML:-}" ] || ATLAS_HTML=$(realpath "$ATLAS_HTML")
export PLAYWRIGHT ATLAS_HTML="${ATLAS_HTML:-}"
version=1.65.1

if [ ! -x "${CHROMIUM:-/usr/bin/chromium}" ]; then
  [ "$(id -u)" = 0 ] || { echo 'error: Chromium is missing; run: sudo apt-get install chromium' >&2; exit 1; }
  echo 'installing chromium'
  apt-get update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium >/dev/null
fi
mkdir -p "$PLAYWRIGHT"
if ! grep -qs "\"version\": \"$version\"" "$PLAYWRIGHT/node_modules/playwright-core/package.json"; then
  npm install --prefix "$PLAYWRIGHT" --no-save --no-package-lock --silent playwright-core@$version ||
    { echo "error: npm could not install playwright-core@$version (offline?)" >&2; exit 1; }
fi

status=0
node --test --test-reporter=spec tests/page/test_page.mjs >"$PLAYWRIGHT/log" 2>&1 || status=$?
[ $status = 0 ] || cat "$PLAYWRIGHT/log"
grep -oE '(size): .*' "$PLAYWRIGHT/log" || true
node tests/page/measure.mjs || status=1
count() { sed -n "s/^ℹ $1 //p" "$PLAYWRIGHT/log" | grep . || echo "$2"; }
echo "page: $(count pass 0) passed, $(count fail 1) failed"
exit $status
