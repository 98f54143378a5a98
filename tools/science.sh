#!/bin/sh
# science.sh: the study of the README, on the demo's text: topographic models (alpha 2.5) and their controls (alpha 0)
# from five seeds, with checkpoints along the way; the curve over alpha; what ./atlas measures of each; the tables and
# figures of all together. Resumable: what is done is not done again. SEEDS="1 2" and STEPS=100 make it smaller.
set -eu

seeds=${SEEDS:-1 2 3 4 5}
steps=${STEPS:-300}
alphas=${ALPHAS:-0.25 1 5}
out=${OUT:-science}
data=${DATA:-demo/data}

train() { # ALPHA SEED FLAGS...: a model, unless it is there
  alpha=$1 seed=$2 model=$out/alpha-$1/seed-$2
  shift 2
  [ -d "$(printf '%s/checkpoint-%06d' "$model" "$steps")" ] && return
  resume=
  ls -d "$model"/checkpoint-?????? >/dev/null 2>&1 && resume=--resume
  echo "-- alpha $alpha, seed $seed"
  ./train_topolm "$data/train.bin" --out "$model" --preset tiny --alpha "$alpha" --seed "$seed" --steps "$steps" \
    --save-every 50 --keep 0 --eval-every 0 --eval-batches 0 "$@" $resume
  # What only a resumed run would need of the checkpoints along the way.
  for old in "$model"/checkpoint-??????/optimizer.safetensors; do
    [ "${old%/*}" = "$(printf '%s/checkpoint-%06d' "$model" "$steps")" ] || rm "$old"
  done
}

if [ ! -f "$data/train.bin" ]; then
  sh tools/fetch_novels.sh demo/text
  ./tokenize demo/text/*.txt -o "$data"
fi
for seed in $seeds; do
  for alpha in 2.5 0; do train $alpha "$seed" --save-at 1,2,5,10,15,20,25,30,40; done  # when clusters form
done
for seed in $seeds; do
  for alpha in $alphas; do train "$alpha" "$seed"; done
done

measure() { # ALPHA SEED FLAGS...: what ./atlas finds in a model, unless it is there
  model=$out/alpha-$1/seed-$2
  shift 2
  [ -f "$model/atlas/atlas.json" ] && return
  echo "-- $model"
  ./atlas "$model" --out "$model/atlas" "$@"
}

for seed in $seeds; do
  for alpha in 2.5 0; do measure $alpha "$seed" --null 1000; done
  for alpha in $alphas; do measure "$alpha" "$seed" --checkpoints 1 --null 0 --permutations 0; done
done
first=${seeds%% *}
./atlas "topographic=$out/alpha-2.5/seed-$first" "control=$out/alpha-0/seed-$first" --out "$out/atlas"
build/science "$out"
