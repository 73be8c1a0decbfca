"""Processes of this machine: they are ready early, start few threads, and end at once if the work fails."""

import time

import pytest

from cowbird.errors import UserError
from cowbird.local_cluster import LocalCluster
from cowbird.processes import count_processors

pytestmark = pytest.mark.slow  # each starts processes
LOADED, THREADS = "'colorsys' in __import__('sys').modules", "__import__('os').environ.get('OMP_NUM_THREADS')"


def test_workers_import_a_module_before_they_are_asked():
    with LocalCluster(1, "colorsys") as ready, LocalCluster(1) as other:
        assert [each.get(each.submit(eval, LOADED)) for each in (ready, other)] == [True, False]


def test_workers_share_the_processors_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with LocalCluster(2) as cluster:
        assert cluster.get(cluster.submit(eval, THREADS)) == str(max(1, count_processors() // 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with LocalCluster(2) as cluster:
        assert cluster.get(cluster.submit(eval, THREADS)) == "7"


def test_workers_end_at_once_when_the_work_fails():
    with LocalCluster(1) as cluster:
        cluster.get(cluster.submit(eval, "1"))
        began = time.monotonic()
    ended = time.monotonic() - began
    with pytest.raises(UserError), LocalCluster(1) as cluster:
        cluster.get(cluster.submit(eval, "1"))
        cluster.submit(time.sleep, 60)
        began = time.monotonic()
        raise UserError("It failed.", "Do it otherwise.")
    assert time.monotonic() - began < ended + 10
