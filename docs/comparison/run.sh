#!/usr/bin/env bash
# Trains the comparators and makes everything in docs/comparison.md. Run again, it goes on.
#
#   docs/comparison/run.sh PHOTOGRAPHS KODAK RUNS
#
# PHOTOGRAPHS is a folder with train/ and val/ in it, KODAK the 24 photographs of Kodak's
# PhotoCD.
set -euo pipefail

photographs=$(realpath "$1") kodak=$(realpath "$2") runs=$3
experiments=$(dirname "$0")/../../experiments
mkdir -p "$runs"

train() { # EXPERIMENT NAME WORD...
    local experiment=$1 name=$2
    shift 2
    grep -qs '"finished"' "$runs/$name/run_status.json" ||
        gl-jax train "$experiments/$experiment" --workdir "$runs/$name" \
            --data.source "$photographs" "$@"
}

train context_encoder.py:small context_encoder --schedule.total-steps 1500
train dcgan.py:small dcgan --schedule.total-steps 800 --model.width 0.375
[ -e "$runs/context_encoder.safetensors" ] || gl-jax export \
    --workdir "$runs/context_encoder" --output "$runs/context_encoder.safetensors"
[ -e "$runs/dcgan.safetensors" ] || gl-jax export --discriminators \
    --workdir "$runs/dcgan" --output "$runs/dcgan.safetensors"

methods=demo,demo-sharp,mean,telea,ns,biharmonic,patchmatch,shift_map,criminisi
methods+=,context_encoder=$runs/context_encoder.safetensors,semantic=$runs/dcgan.safetensors
for masks in center box; do
    gl-jax compare --methods "$methods" --masks $masks --image-size 128 \
        --data "$kodak" --count 24 --output "$runs/kodak24-$masks"
    gl-jax compare --methods "$methods" --masks $masks --image-size 128 \
        --data "$photographs/val" --count 48 --output "$runs/validation-$masks"
done
# Seconds and memory by themselves: nothing else should run beside this one.
gl-jax compare --methods "$methods" --masks center --image-size 128 --metrics psnr \
    --data "$kodak" --count 6 --output "$runs/time"
gl-jax compare --protocol yeh --metrics psnr --data "$photographs/val" --count 12 \
    --methods "mean,${methods#*criminisi,}" --output "$runs/yeh"
python "$(dirname "$0")/report.py" "$runs"
