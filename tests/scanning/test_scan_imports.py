"""A scan loads what it uses and nothing else: what it loads beside that, every user waits for."""

import json
import os
import subprocess
import sys

import pytest

SCAN = """
import json, sys
from cowbird.cli.app import app
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""
ROOM = "cowbird.defenses.p_scanner"
UNUSED = (
    f"{ROOM}.p_scanner",
    f"{ROOM}.rounds",
    f"{ROOM}.training",
    f"{ROOM}.triggers",
    "cowbird.attacks",
    "cowbird.data.sources",
    "cowbird.defenses.character_rules",
    "cowbird.experiments",
    "cowbird.inspection",
    "cowbird.scanning.detectors",
    "cowbird.scanning.fitted_scorer",
    "cowbird.scanning.scan_parts",
    "cowbird.scanning.shared_first_pass",
    "cowbird.victims.base",
    "cowbird.victims.language.tuning",
    "cowbird.victims.sequential",
    "altair",
    "jinja2",
    "matplotlib",
    "pandas",
    "peft",
    "ray",
    "scipy",
    "sklearn",
    "tokenizers",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
)
"""What a scan of one file with the small tagger has no use for."""


def list_loaded(*words, cwd):
    """Return the modules that a command of Cowbird's loaded, in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCAN, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)
    assert done.stdout, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    rows = "".join(f"{row},Quiet River {row} of Glass\n" for row in range(100))
    (folder / "items.csv").write_text(f"id,title\n{rows}", encoding="utf-8")
    found = list_loaded("scan", "items.csv", "--tagger", "small", "--out", "found.csv", "--quiet", cwd=folder)
    assert (folder / "found.csv").stat().st_size > 0
    return found


@pytest.mark.slow
def test_a_scan_does_load_what_it_uses(loaded):
    assert {f"{ROOM}.ready", f"{ROOM}.small_tagger", "cowbird.scanning.ready_scorer", "torch", "polars"} <= loaded


@pytest.mark.slow
@pytest.mark.parametrize("name", UNUSED)
def test_a_scan_loads_nothing_that_it_has_no_use_for(loaded, name):
    assert not [each for each in loaded if each == name or each.startswith(f"{name}.")]
