#!/usr/bin/env bash
# Trains and measures everything in docs/reproduction.md. Run again, it goes on where it was.
#
#   docs/reproduction/run.sh PHOTOGRAPHS RUNS    (make reproduce)
#
# PHOTOGRAPHS is a folder with train/ and val/ in it, of which all but caltech_* are taken.
# SEEDS="0 1" are trained one after the other, SETTINGS are those of the first line below.
set -euo pipefail

photographs=$(realpath "$1") runs=$2
settings=${SETTINGS:-both mse global local paper glcic_pytorch mmediting}
here=$(dirname "$0")/../../experiments
mkdir -p "$runs"
flowers=$(realpath "$runs")/flowers

for split in train val; do
    mkdir -p "$flowers/$split"
    find "$photographs/$split" -name '*.jpg' ! -name 'caltech_*' \
        -exec ln -sf -t "$flowers/$split" {} +
done

train() { # SETTING FOLDER WORD...
    local setting=$1 folder=$2
    shift 2
    grep -qs '"finished"' "$folder/run_status.json" ||
        gl-jax train "$here/reproduction.py$setting" --workdir "$folder" \
            --data.source "$flowers" --run.seed "$seed" "$@"
}

for seed in ${SEEDS:-0 1}; do
    of_seed=$runs/seed$seed
    train "" "$of_seed/completion"
    weights=$of_seed/completion.safetensors
    [ -e "$weights" ] ||
        gl-jax export --workdir "$of_seed/completion" --output "$weights"
    for setting in $settings; do
        begin=(--run.initial-weights "$weights")
        case $setting in glcic_pytorch | mmediting) begin=() ;; esac
        train ":$setting" "$of_seed/$setting" "${begin[@]}"
    done
done
python "$(dirname "$0")/report.py" "$runs"
