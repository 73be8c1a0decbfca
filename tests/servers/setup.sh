#!/usr/bin/env bash
# Builds an environment for the tests against real servers in the folder $1: its own packages come first, and what it
# lacks (torch, polars, pytest, Cowbird) is that of the environment $2. Without npm there is no server for az://, and its
# test is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv-servers}
other=${2:-.venv}
"$other/bin/python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/servers/requirements.txt
list='import sysconfig; print(sysconfig.get_path("purelib"))'
mine=$("$folder/bin/python" -c "$list")
theirs=$("$other/bin/python" -c "$list")
# A line of a .pth file that is a path alone would leave out the .pth files there, such as that of Cowbird's own sources.
echo "import site; site.addsitedir('$theirs')" > "$mine/others.pth"
if command -v npm > /dev/null; then
  npm install --no-audit --no-fund --silent --prefix "$folder/azurite" azurite@3 || echo "Azurite can't be installed." >&2
fi
