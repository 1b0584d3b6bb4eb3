#!/bin/sh
# All that needs a GPU, in some 8 minutes, from a machine with Python and PyTorch for CUDA:
#
#     sh bench/gpu.sh [OUT [WHEELS]]   # OUT: folder of the results, out/gpu by default; WHEELS: folder of packages
#                                      # for a machine without a network
#
# Every result is a line of OUT/gpu.jsonl, and a row of the table in docs/PERFORMANCE.md, "On a GPU". What fails, or
# takes longer than its share of the time, is named in OUT/gpu.log; the rest goes on. The machine's PyTorch stays.
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
    run 50 "$label" "$PYTHON" bench/train_step.py --device "$DEVICE" --case "$1" --seconds "$SECONDS_A_CROP" \
        --batch "$2" --steps 5 --json "$OUT/step.json"
    [ -f "$OUT/step.json" ] || return 0
    "$PYTHON" -c 'import json, sys
row = json.load(open(sys.argv[1]))[0]
print(json.dumps(row | {"case": sys.argv[2]}))' "$OUT/step.json" "$label" >> "$OUT/gpu.jsonl" && rm "$OUT/step.json"
}

DEVICE=${DEVICE:-cuda}
SECONDS_A_CROP=${SECONDS_A_CROP:-4}
grep -v '^torch==' constraints.txt > "$OUT/constraints.txt"
WHEELS=${2:+--no-index --no-build-isolation --find-links $2}
"$PYTHON" -m pip install --quiet $WHEELS --constraint "$OUT/constraints.txt" -e '.[speech,media,train,adapter,dev]' || exit 1
"$PYTHON" -c 'import json
from tests.release.real_params import REAL
print(json.dumps(REAL))' > "$OUT/params.json"
PARAMS=${PARAMS:-$OUT/params.json}
run 150 "tests" "$PYTHON" -m pytest -m gpu --timeout=120 -q tests/gpu tests/train/test_devices.py \
    tests/tts/test_static_batch.py tests/recipes/test_graph.py
"$PYTHON" -c 'import json, sys
print(json.dumps({"case": "tests", "result": sys.argv[1].strip("= ")}))' "$(tail -n 1 "$OUT/last.txt")" >> "$OUT/gpu.jsonl"
step ours 8
step ours 16
step community 8
run 50 "speech, one voice" "$PYTHON" bench/tts.py --params "$PARAMS" --device "$DEVICE" --seconds 10
run 80 "speech, 64 voices at once" "$PYTHON" bench/tts.py --params "$PARAMS" --device "$DEVICE" --seconds 10 --batch 64 \
    --runs 1
"$PYTHON" - "$OUT/gpu.jsonl" docs/PERFORMANCE.md <<'TABLE'
import json, re, subprocess, sys
from pathlib import Path

import torch

rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
LEFT_OUT = ("device", "dtype", "threads", "processor_time", "torch", "profile")
rows = [{k: v for k, v in row.items() if k not in LEFT_OUT} for row in rows]
shown = [{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
lines = [f"| {row.pop('case')} | {', '.join(f'{k} {v}' for k, v in row.items())} |" for row in shown]
commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
top = f"## On a GPU\n\n`sh bench/gpu.sh`, {name}, PyTorch {torch.__version__}, commit {commit}:\n\n| case | result |\n|---|---|"
page = Path(sys.argv[2])
section = re.compile(r"## On a GPU\n.*?(?=\n## |\Z)", re.DOTALL)
if lines and torch.cuda.is_available():
    page.write_text(section.sub(lambda _: "\n".join([top, *lines, ""]), page.read_text()))
print("\n".join(lines))
TABLE
