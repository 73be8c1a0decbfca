"""What is said in the environment before libraries are loaded, and never over what the user said."""

import os

import pytest

from cowbird.__main__ import set_thread_policy

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in (*VARIABLES, "OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)


def test_threads_sleep():
    set_thread_policy()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_NUM_THREADS" not in os.environ, "sums depend on it"


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_said_stands(monkeypatch, name):
    monkeypatch.setenv(name, "1000")
    set_thread_policy()
    assert {key: os.environ[key] for key in VARIABLES if key in os.environ} == {name: "1000"}


def test_it_is_said_before_anything_is_imported(monkeypatch):
    """The command line imports torch later than that, and workers inherit it."""
    from cowbird import __main__ as module

    seen = []
    app = __import__("cowbird.cli.app", fromlist=["main"])
    monkeypatch.setattr(app, "main", lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    module.main()
    assert seen == ["PASSIVE"]


@pytest.mark.parametrize(("said", "then"), [(None, "1"), ("0", "0")])
def test_the_hub_is_off_line_before_anything_is_imported(monkeypatch, said, then):
    from cowbird import __main__ as module

    if said is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", said)
    seen = []
    app = __import__("cowbird.cli.app", fromlist=["main"])
    monkeypatch.setattr(app, "main", lambda: seen.append(os.environ["HF_HUB_OFFLINE"]))
    module.main()
    assert seen == [then]
