#!/usr/bin/env bash
# Runs every command of an installed customcnn once, on a few drawn cells, in the current folder.
set -euo pipefail
customcnn --version
customcnn models
customcnn summary small --input-size 62
customcnn samples cells --subjects 3 --cells 8 --size 96
customcnn split cells parts --by group --group-pattern cnmc --ratio .67
customcnn audit parts --strict
customcnn crop parts cropped --size 85
customcnn augment cropped augmented --count 60
customcnn train augmented --model small --set input_size=62 --epochs 2 --out run
customcnn train augmented --out run --resume --epochs 3
customcnn evaluate run augmented --resamples 100
customcnn predict run cells/all --json
customcnn visualize run cells/all/UID_1_1_1_all.bmp
customcnn pretrain augmented --model small --set input_size=62 --epochs 1 --out start
customcnn train augmented --model small --set input_size=62 --epochs 1 --weights start --out warm
customcnn ensemble run warm --out together
customcnn crossval cropped --model small --set input_size=62 --epochs 1 --folds 2 --by group --out folds
customcnn doctor --no-measure
customcnn demo demo --epochs 1
python -m customcnn --help
