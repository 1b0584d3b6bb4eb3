#!/bin/sh
# All that needs a GPU, in some 8 minutes, from a machine with Python and PyTorch for CUDA:
#
#     sh bench/gpu.sh [OUT]            # OUT: folder of the results, out/gpu by default
#
# Every figure is a line of OUT/gpu.jsonl, and OUT/gpu.md is the table for docs/PERFORMANCE.md. What fails, or takes
# longer than its share of the time, is named in OUT/gpu.log; the rest goes on.
set -u
cd "$(dirname "$0")/.."
OUT=$(mkdir -p "${1:-out/gpu}" && cd "${1:-out/gpu}" && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONPATH=src:.
: > "$OUT/gpu.jsonl"
: > "$OUT/gpu.log"

run() {  # run SECONDS LABEL COMMAND...: its last line is a result, if it is JSON
    limit=$1 label=$2
    shift 2
    echo "== $label" | tee -a "$OUT/gpu.log"
    if timeout "$limit" "$@" > "$OUT/last.txt" 2>> "$OUT/gpu.log"; then
        tail -n 1 "$OUT/last.txt" | sed -n "s/^{/{\"case\": \"$label\", /p" >> "$OUT/gpu.jsonl"
    else
        echo "$label failed (code $?)" | tee -a "$OUT/gpu.log"
    fi
    cat "$OUT/last.txt" >> "$OUT/gpu.log"
}

step() {  # step CASE BATCH: a training step of so many crops of 4 s
    label="training step, $1, $((4 * $2)) s"
    run 60 "$label" "$PYTHON" bench/train_step.py --device "$DEVICE" --case "$1" --seconds "$SECONDS_A_CROP" \
        --batch "$2" --steps 5 --json "$OUT/step.json"
    [ -f "$OUT/step.json" ] || return 0
    "$PYTHON" -c 'import json, sys
row = json.load(open(sys.argv[1]))[0]
print(json.dumps(row | {"case": sys.argv[2]}))' "$OUT/step.json" "$label" >> "$OUT/gpu.jsonl" && rm "$OUT/step.json"
}

DEVICE=${DEVICE:-cuda}
SECONDS_A_CROP=${SECONDS_A_CROP:-4}
"$PYTHON" -m pip install --quiet --constraint constraints.txt -e '.[speech,media,train,adapter,dev]' || exit 1
"$PYTHON" -c 'import json
from tests.release.real_params import REAL
print(json.dumps(REAL))' > "$OUT/params.json"
PARAMS=${PARAMS:-$OUT/params.json}
run 180 "tests" "$PYTHON" -m pytest -m gpu --timeout=150 -q
step ours 8
step ours 16
step community 8
run 60 "speech, one voice" "$PYTHON" bench/tts.py --params "$PARAMS" --device "$DEVICE" --seconds 10
run 90 "speech, 64 voices at once" "$PYTHON" bench/tts.py --params "$PARAMS" --device "$DEVICE" --seconds 10 --batch 64 \
    --runs 1
"$PYTHON" - "$OUT/gpu.jsonl" > "$OUT/gpu.md" <<'TABLE'
import json, sys

print("| case | metrics |\n|---|---|")
for line in open(sys.argv[1]):
    row = json.loads(line)
    metrics = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items() if k != "case"}
    print(f"| {row['case']} | {', '.join(f'{k} {v}' for k, v in metrics.items())} |")
TABLE
cat "$OUT/gpu.md"
