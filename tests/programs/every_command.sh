#!/usr/bin/env bash
# Runs every command of an installed customcnn once, on a few drawn cells, in the current folder.
set -euo pipefail
# The demo runs beside the others, for most of a command is its start, which needs one core.
customcnn demo demo --epochs 1 > demo.log 2>&1 &
demo=$!
trap 'kill "$demo" 2> /dev/null || true' EXIT
customcnn --version
customcnn models
customcnn completion bash > completion.bash
bash -n completion.bash
customcnn summary small --input-size 62
customcnn samples cells --subjects 3 --cells 8 --size 96
customcnn split cells parts --by group --group-pattern cnmc --ratio .67 --json > split.json
python -m json.tool split.json
customcnn audit parts --strict --page audit.html
customcnn crop parts cropped --size 85
customcnn augment cropped augmented --count 60
customcnn pack augmented --size 62
customcnn train augmented --model small --set input_size=62 --epochs 2 --out run
customcnn train augmented --out run --resume --epochs 3
customcnn evaluate run augmented --resamples 100
customcnn evaluate run augmented --resamples 100 --tta --clinical --strata group --out turned
customcnn predict run cells/all --json
customcnn calibrate run augmented --resamples 100
customcnn predict run cells/all --tta
customcnn report run
customcnn visualize run cells/all/UID_1_1_1_all.bmp
customcnn pretrain augmented --model small --set input_size=62 --epochs 1 --out start
customcnn train augmented --model small --set input_size=62 --epochs 1 --weights start --out warm
customcnn ensemble run warm --out together
customcnn evaluate warm augmented --resamples 100
customcnn compare run warm --resamples 100
customcnn leakage cells --model small --set input_size=62 --epochs 1 --seeds 2 --test .34 --ratio .5 --out priced
customcnn crossval cropped --model small --set input_size=62 --epochs 1 --folds 2 --by group --out folds
customcnn doctor --no-measure
customcnn --quiet doctor --no-measure --json > doctor.json
python -m json.tool doctor.json > /dev/null
wait "$demo" || { cat demo.log; exit 1; }
python -m customcnn --help
