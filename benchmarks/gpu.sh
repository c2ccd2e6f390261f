#!/usr/bin/env bash
# All that a GPU is measured for, in at most 6 minutes: `benchmarks/gpu.sh`, or with
# --cpu a small form of it, to see that it works. See benchmarks/gpu.py.
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
[ -x "$python" ] || python=python
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-$python}" benchmarks/gpu.py "$@"
