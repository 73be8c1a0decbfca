"""A scorer that needs no model, and files of rows."""

import gzip
import json

import numpy as np
import pytest

from cowbird.scanning.verdicts import FlaggedSuspicion


class Finds:
    """Flags titles with `xq` or U+202E, by the first of them; counts what it is asked and stops when told to."""

    key = "finds"

    def __init__(self, stop=None):
        self.asked = []
        self.stop = stop

    def scan(self, titles):
        if len(self.asked) == self.stop:
            raise KeyboardInterrupt
        self.asked.append(list(titles))
        places = [[(title.find(mark), len(mark)) for mark in ("xq", "\u202e") if mark in title] for title in titles]
        first = [min(found, default=(-1, 0)) for found in places]
        start = np.array([at for at, _ in first])
        end = np.array([at + size for at, size in first])
        return FlaggedSuspicion(np.where(start < 0, 0.1, 0.9), start, end, start >= 0)


@pytest.fixture
def finds():
    return Finds


@pytest.fixture
def jsonl(tmp_path):
    """Return a function that writes objects (or raw bytes) as JSON Lines."""

    def write(*rows, name="catalog.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        data = b"".join(line + b"\n" for line in lines)
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write
