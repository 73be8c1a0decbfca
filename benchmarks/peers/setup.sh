#!/usr/bin/env bash
# Builds the environments of the four peers, one for each, under the folder $1 (default: .venv-peers).
# torch 2.13.0 should resolve to a CPU build: where pip is not set up for that, point PIP_EXTRA_INDEX_URL at PyTorch's
# index of CPU builds first, or gigabytes of CUDA libraries come along.
# PYTHON names the interpreter (default: python3.11). Runs from anywhere; a second run repairs what is missing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-.venv-peers}
for name in recbole rectools replay cornac; do
    "${PYTHON:-python3.11}" -m venv "$folder/$name"
    pip=("$folder/$name/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" torch==2.13.0 # first, so that nothing below can bring another build of it
    "${pip[@]}" -r "$here/requirements-$name.txt"
    "$folder/$name/bin/python" -m pip check || echo "$name: pip reports the conflicts above" >&2
    echo "$folder/$name/bin/python"
done
