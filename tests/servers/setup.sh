#!/usr/bin/env bash
# Builds an environment for the tests against real servers in the folder $1: its own packages come first, and what it
# lacks (torch, polars, pytest, Cowbird) is that of the environment $2.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv-servers}
other=${2:-.venv}
"$other/bin/python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/servers/requirements.txt
list='import sysconfig; print(sysconfig.get_path("purelib"))'
mine=$("$folder/bin/python" -c "$list")
"$other/bin/python" -c "$list" > "$mine/others.pth"
