#!/usr/bin/env bash
# The CUDA backend on a GPU in at most eight minutes, from the root of the checkout:
#
#     OUT=results bash accel/check_gpu.sh
#
# The machine needs Python with CuPy, NumPy, ml_dtypes, safetensors, tokenizers, typer, pytest, pytest-xdist and
# hypothesis; dsv4 need not be installed. Each step has its own limit, and what it finds is in $OUT at once: log.txt is
# what is shown, probe.jsonl has a line for each measurement, and each run of pytest its own file. Every step runs,
# whatever became of those before it; the exit status is that of the worst. With `host` as the argument everything but
# the GPU's own steps runs on what stands for a GPU in the tests.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
backend=${1:-cuda}
export OUT=${OUT:-gpu-check}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
DSV4_CUDA_CACHE=$(mktemp -d)
trap 'rm -rf "$DSV4_CUDA_CACHE"' EXIT
export DSV4_CUDA_CACHE CUPY_CACHE_DIR="$DSV4_CUDA_CACHE/cupy" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH="$PWD/ref:$PWD/accel${PYTHONPATH:+:$PYTHONPATH}"
exec > >(tee -a "$OUT/log.txt") 2>&1
worst=0

# step NAME SECONDS COMMAND...: say its name, run it for so long at most, and note how it ended.
step() {
    local name=$1 limit=$2 status
    shift 2
    printf '### %s %s\n' "$(date +%T)" "$name"
    timeout --kill-after=5 "$limit" "$@"
    status=$?
    if ((status)); then
        printf '!!! %s ended with %s\n' "$name" "$status"
        worst=1
    fi
}
probe() { step "$1" "$2" python3 accel/check_gpu.py "$backend" "$1"; }

# tests NAME SECONDS LEAST PATH...: the tests of the backend there; fewer than LEAST that pass are an error.
tests() {
    local name=$1 limit=$2 least=$3 required=cuda choice=(-m gpu)
    shift 3
    if [[ $backend == host ]]; then required=cuda-on-host choice=(-k cuda-on-host); fi
    DSV4_REQUIRE_BACKENDS=$required DSV4_REQUIRE_PASSED=$least step "$name" "$limit" \
        python3 -m pytest -p no:cacheprovider -n auto --dist worksteal -vv --tb=short --color=no "${choice[@]}" "$@" \
        > "$OUT/$name.txt" 2>&1
    printf '### %s: %s passed, %s failed\n' "$name" \
        "$(grep -cE '(^|\] )PASSED' "$OUT/$name.txt")" "$(grep -cE '(^|\] )(FAILED|ERROR) .*::' "$OUT/$name.txt")"
    grep -E '^(FAILED|ERROR|!!!|DSV4)' "$OUT/$name.txt" | sort -u | head -40
}

# sanitize TOOL: one of compute-sanitizer over an example of every operation, where it is installed.
sanitize() {
    if ! command -v compute-sanitizer > /dev/null; then
        echo "### $1: compute-sanitizer is not installed, nothing was checked"
        worst=1
        return
    fi
    step "$1" 40 compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 5 --log-file "$OUT/$1.txt" \
        python3 accel/check_gpu.py "$backend" examples packed
    tail -n 3 "$OUT/$1.txt"
}

probe machine 15
if [[ $backend == cuda ]]; then step driver 10 nvidia-smi; fi
probe compile 40
probe examples 35
probe packed 15
probe numerics 30
probe text 30
if [[ $backend == cuda ]]; then
    probe timing 45
    sanitize memcheck
    sanitize racecheck
fi
tests properties 120 1800 tests/ops
if [[ $backend == cuda ]]; then tests models 60 240 tests/model tests/text/test_generate.py; fi
echo "### $(date +%T) done: $([[ $worst == 0 ]] && echo 'every step passed' || echo 'something failed, see above')"
exit "$worst"
