#!/usr/bin/env bash
# Usage: setup_llvm.sh PYTHON
# Brings the LLVM library that ray tracing on a CPU needs, where apt-get may be used; otherwise says
# the one line to run. Never fails: everything but tracing works without LLVM.
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1

found() {
    "$python" -c 'import sys; from lwmt_sionna.rt.tracing.llvm import find_libllvm; sys.exit(find_libllvm() is None)' 2>/dev/null
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends libllvm19
}

found && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing libllvm19 for ray tracing"
    apt_install >/dev/null 2>&1 || { apt-get update --quiet=2 && apt_install; } >/dev/null 2>&1
    found && exit 0
fi
sudo=$([ "$(id -u)" -eq 0 ] || echo "sudo ")
echo "setup: no LLVM library for ray tracing (all else works without); on Debian or Ubuntu: ${sudo}apt-get install libllvm19" >&2
exit 0
