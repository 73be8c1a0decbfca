"""The checkpoints that lie beside these tests, written by the real libraries (`make_checkpoints.py`)."""

import json
from pathlib import Path

FOLDER = Path(__file__).with_name("checkpoints")
NAMES = {
    "recbole_sasrec.pth": {},
    "recbole_gru4rec.pth": {},
    "recbole_bert4rec.pth": {},
    "replay_sasrec.ckpt": {},
    "replay_sasrec_new.ckpt": {"heads": 2},
    "rectools_sasrec.pkl": {},
}
"""Files, and the settings that they don't tell."""


def read_expected(name):
    """Return what the library itself scores: tokens of the items in the file's order, histories and scores."""
    return json.loads((FOLDER / name).with_suffix(".json").read_text())
