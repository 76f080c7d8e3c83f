#!/bin/sh
# Print the first of the given interpreters that runs and is supported:
#   scripts/find_python.sh [NAME ...]     default: python3.11 python3.12 python3.13 python3
# A name on the PATH is not enough: pyenv has shims for versions that are not installed, and Debian
# ships Pythons that cannot create a virtual environment. So each candidate is run. If pythonX.Y does
# not run, the versions that pyenv has installed are tried too.
set -u
check='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
[ "$#" -gt 0 ] || set -- python3.11 python3.12 python3.13 python3
for name in "$@"; do
    for python in "$name" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/${name#python}".*/bin/"$name"; do
        if "$python" -c "$check" >/dev/null 2>&1; then
            printf '%s\n' "$python"
            exit 0
        fi
    done
done
echo "find_python: none of these runs as Python 3.11, 3.12 or 3.13 with venv: $*" \
    "(choose one: PYTHON=/path/to/python)" >&2
exit 1
