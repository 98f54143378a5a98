#!/bin/sh
# demo.sh: TopoLM on real text, start to finish: text, tokens, a topographic model and its control from the same
# seed, what they write, what their sheets look like, and what their units respond to. TEXT=FILE uses another text,
# STEPS=N another length.
set -eu

steps=${STEPS:-500}
prompt=${PROMPT:-She had never}
say() { printf '\n== %s\n\n' "$1"; }

if [ -n "${TEXT:-}" ]; then
  [ -f "$TEXT" ] || { echo "error: there is no file '$TEXT'; name a text file: make demo TEXT=my.txt" >&2; exit 1; }
  texts=$TEXT
else
  say "Text: Jane Austen's six novels"
  sh tools/fetch_novels.sh demo/text
  texts=demo/text
fi

say "Tokens: a byte-pair vocabulary of 4096, learnt from the text"
if [ -d "$texts" ]; then
  ./tokenize "$texts"/*.txt -o demo/data
else
  ./tokenize "$texts" -o demo/data
fi

say "A topographic model: alpha 2.5"
./train_topolm demo/data/train.bin --out demo/topographic --overwrite --preset tiny --steps "$steps" --save-every 100 --keep 0
say "Its control, from the same seed: alpha 0"
./train_topolm demo/data/train.bin --out demo/control --overwrite --preset tiny --steps "$steps" --save-every 100 --keep 0 --alpha 0

for model in topographic control; do
  say "The $model model, asked to go on from \"$prompt\""
  ./infer "$prompt" --model "demo/$model" --tokens 80 --top-p 0.95
done

if [ -x build/report ]; then
  say "What the sheets look like"
  build/report --data demo/data/val.bin --out demo/report.png topographic=demo/topographic control=demo/control
else
  say "No figure: cairo is missing (make setup installs it)"
fi

say "What its units respond to, and where they lie: open demo/maps/atlas.html in a browser"
./atlas topographic=demo/topographic control=demo/control --out demo/maps
