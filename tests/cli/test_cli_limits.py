"""Little memory is an error in words: libraries would end the process with codes that mean something else."""

import subprocess
import sys

import pytest

from cowbird import __main__ as launcher
from cowbird.__main__ import MIN_ADDRESS_MB, refuse_low_limits

resource = pytest.importorskip("resource")


def limit(monkeypatch, kind, mb):
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda each: (mb << 20, free[1]) if each == kind else free)


@pytest.mark.parametrize("kind", ["AS", "DATA"])
@pytest.mark.parametrize("mb", [1, 199, 250, 511])
def test_little_memory_is_refused_before_anything_is_loaded(monkeypatch, capsys, kind, mb):
    limit(monkeypatch, getattr(resource, f"RLIMIT_{kind}"), mb)
    monkeypatch.setattr(launcher, "set_thread_policy", lambda: pytest.fail("it goes on"))
    with pytest.raises(SystemExit) as end:
        launcher.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"may have {mb:,} MB" in said
    assert "Raise the limit: ulimit -" in said


@pytest.mark.parametrize("mb", [MIN_ADDRESS_MB, 1 << 20])
def test_enough_memory_is_not(monkeypatch, mb):
    limit(monkeypatch, resource.RLIMIT_AS, mb)
    refuse_low_limits()
    refuse_low_limits()


def test_no_limit_is_none(monkeypatch):
    limit(monkeypatch, None, 0)
    refuse_low_limits()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
@pytest.mark.parametrize("mb", [120, 250, 1100])
def test_what_a_process_returns(mb):
    words = ["bash", "-c", f'ulimit -v {mb << 10}; exec "$0" -m cowbird list attacks', sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: This process may have {mb:,} MB")
