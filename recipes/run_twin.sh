#!/usr/bin/env bash
# Runs the settings of an open twin's table, one after the other, for the given seeds.
# A finished run is skipped and a killed one goes on, so the command can be repeated.
#
# usage: recipes/run_twin.sh RECIPE OUTPUT "SETTINGS" "SEEDS" [OPTION VALUE ...]
#   RECIPE    folder below recipes/, such as RAVDESS_CREMA-D
#   OUTPUT    folder for the runs; results.json of each is copied to a folder of the same
#             name in RECIPE/measured
#   SETTINGS  of the list below, or "all"; with shared_ before it, only those emotions of
#             the source are used that the target has
#   OPTION    passed to train.py, such as --source_folder
set -euo pipefail

recipes=$(cd "$(dirname "$0")" && pwd)
recipe=$1 output=$2 settings=$3 seeds=$4
shift 4
python=${PYTHON:-python}
emotion_only=(--lambda_aug 0.0 --lambda_cont 0.0 --lambda_im 0.0)
[ "$settings" != all ] ||
    settings="source_only target_only emotion_only labelled statistics unlabelled"

for seed in $seeds; do
    for setting in $settings; do
        case ${setting#shared_} in
            source_only) switches=(--use_target False "${emotion_only[@]}") ;;
            target_only) switches=(--use_source False "${emotion_only[@]}") ;;
            emotion_only) switches=("${emotion_only[@]}") ;;
            labelled) switches=(--target_labels True) ;;
            statistics) switches=(--use_target False --target_labels False
                --target_statistics True "${emotion_only[@]}") ;;
            unlabelled) switches=(--target_labels False) ;;
            without_aug) switches=(--lambda_aug 0.0) ;;
            without_im_aug) switches=(--lambda_im 0.0 --lambda_aug 0.0) ;;
            without_cont_aug) switches=(--lambda_cont 0.0 --lambda_aug 0.0) ;;
            without_domain_norm) switches=(--domain_norm False) ;;
            speakers) switches=(--target_split speaker) ;;
            *) echo "unknown setting: $setting" >&2; exit 2 ;;
        esac
        [[ $setting != shared_* ]] || switches+=(--shared_emotions True)
        run=$output/$setting/$seed
        copy=$recipes/$recipe/measured/$(basename "$output")/$setting/$seed
        if [ ! -e "$run/results.json" ]; then
            echo "$(date +%T) $recipe $setting, seed $seed"
            "$python" "$recipes/$recipe/train.py" hparams/multitask_da.yaml \
                --seed "$seed" --output_folder "$run" \
                --data_folder "$output/data" "${switches[@]}" "$@"
        fi
        mkdir -p "$copy"
        cp "$run/results.json" "$copy/"
    done
done
