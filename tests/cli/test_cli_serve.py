"""`cowbird serve`: what it refuses before it serves."""

import socket
import sys

import pytest

from doubles.command import call_command
from doubles.service import TOKEN

RULES = ("--detector", "character_rules")


def call(monkeypatch, capsys, folder, *words):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("A_TOKEN", TOKEN)
    return call_command(monkeypatch, capsys, "serve", "--log", folder / "log", "--port", "0", *words)


FAILURES = {
    "no token": (RULES, "who may ask"),
    "two tokens": ((*RULES, "--token-env", "A_TOKEN", "--token-file", "x"), "who may ask"),
    "a token and none": ((*RULES, "--no-token", "--token-env", "A_TOKEN"), "lets everybody ask"),
    "an empty variable": ((*RULES, "--token-env", "NO_SUCH_NAME"), "holds no token"),
    "no token for others": ((*RULES, "--no-token", "--host", "0.0.0.0"), "only this machine"),
    "no such host": ((*RULES, "--token-env", "A_TOKEN", "--host", "256.1.1.1.1"), "Nothing can listen"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_can_not_be_served_is_an_error(tmp_path, monkeypatch, capsys, name):
    words, said = FAILURES[name]
    code, _, err = call(monkeypatch, capsys, tmp_path, *words)
    assert code == 2 and said in err and TOKEN not in err


def test_a_port_that_is_taken_and_a_log_that_is_held_are_errors(tmp_path, monkeypatch, capsys):
    from cowbird.service.audit import AuditLog

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = call(monkeypatch, capsys, tmp_path, *RULES, "--no-token", "--port", port)
        assert code == 2 and "Nothing can listen" in err
    with AuditLog(tmp_path / "log", 1 << 20):
        code, _, err = call(monkeypatch, capsys, tmp_path, *RULES, "--no-token")
    assert code == 2 and "Another service" in err


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("cowbird.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = call(monkeypatch, capsys, tmp_path, *RULES, "--no-token")
    assert code == 2 and "pip install 'cowbird[serve]'" in err


def test_a_scanner_that_can_not_be_opened_ends_the_service(tmp_path, monkeypatch, capsys):
    from cowbird.errors import UserError
    from cowbird.service import state

    async def refuse(source):
        raise UserError("There is no such scanner.", "Make one.")

    monkeypatch.setattr(state, "open_in_process", refuse)
    code, _, err = call(monkeypatch, capsys, tmp_path, *RULES, "--no-token")
    assert code == 2 and "There is no such scanner." in err and "Listening at http://127.0.0.1:" in err
