#!/bin/sh
# Writes the arrivals of the published runs beside the traces: FOLDER/TRACE_SEED.txt and FOLDER/TRACE_SEED.ranks.
# usage: prepare.sh FOLDER [FIRST_SEED LAST_SEED]
# FOLDER holds openb_node_list_gpu_node.csv and openb_pod_list_*.csv. Needs Go.
set -eu
folder=${1:?usage: prepare.sh FOLDER [FIRST_SEED LAST_SEED]}
here=$(cd "$(dirname "$0")" && pwd)
program=$(mktemp)
trap 'rm -f "$program"' EXIT
go build -o "$program" "$here/gen_arrivals.go"
for pods in "$folder"/openb_pod_list_*.csv; do
    trace=$(basename "$pods" .csv)
    trace=${trace#openb_pod_list_}
    seed=${2:-42}
    while [ "$seed" -le "${3:-51}" ]; do
        "$program" "$pods" "$folder/openb_node_list_gpu_node.csv" "$seed" 1.3 "$folder/${trace}_$seed.ranks" \
            > "$folder/${trace}_$seed.txt"
        seed=$((seed + 1))
    done
done
