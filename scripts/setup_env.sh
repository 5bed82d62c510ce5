#!/usr/bin/env bash
# Usage: setup_env.sh PYTHON VENV LOCK
# Makes the virtual environment of the file LOCK with this package in it (editable).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
venv=$2
lock=$3

fail() {
    echo "setup: $1" >&2
    exit 1
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    command -v "$python" >/dev/null || fail "no interpreter '$python'; name one of Python 3.11 or 3.12: make PYTHON=python3.12"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed, '$python' is $("$python" -V 2>&1); name another: make PYTHON=python3.12"
    "$python" -c 'import ensurepip' 2>/dev/null ||
        fail "'$python' cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv"
    "$python" -m venv --clear "$venv"
fi

echo "setup: installing $lock into $venv (3 GB on disk; a few minutes the first time)"
pip=("$venv/bin/python" -m pip install -qq --disable-pip-version-check)
"${pip[@]}" --requirement "$lock"
# The lock already brings every dependency and the build backend.
"${pip[@]}" --no-deps --no-build-isolation --editable .
touch "$venv/.installed"
