"""The command line, called in this process."""

import sys

import pytest


def call_command(monkeypatch, capsys, *words, unseen="\x1b\x07\u202e"):
    """Call `cowbird` and return its exit code, output and errors; none holds a traceback or what must not be seen."""
    from cowbird.cli import app

    monkeypatch.setattr(sys, "argv", ["cowbird", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        app.main()
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "Traceback" not in text, text
        assert not set(text) & set(unseen)
    return end.value.code or 0, out, err
