#!/usr/bin/env bash
# Start, show and stop a Flink cluster on loopback: flink_cluster.sh fetch|up|status|down [--help].
# PYTHON is the interpreter of the Python workers: one with this package installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
if ! command -v "$python" >/dev/null; then
    echo "flink_cluster: error: no $python; run make corpus, or set PYTHON" >&2
    exit 1
fi
exec "$python" "$here/flink_cluster.py" "$@"
