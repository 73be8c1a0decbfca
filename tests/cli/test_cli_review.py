"""`cowbird review`: an export without a page, and what is refused."""

import socket

from cowbird.review.store import ReviewStore
from doubles.command import call_command
from doubles.findings import write_findings


def test_an_export_needs_no_page(tmp_path, monkeypatch, capsys):
    path = write_findings(tmp_path)
    store = ReviewStore(path)
    group = store.list_groups(0, 1).rows[0]
    store.decide("group", group["id"], "dismissed", group["mark"])
    store.close()
    code, out, _ = call_command(monkeypatch, capsys, "review", path, "--export", tmp_path / "allow.txt")
    assert code == 0 and "2 texts in" in out
    assert (tmp_path / "allow.txt").read_text().splitlines() == ["5v", "5V"]


def test_an_export_of_nothing_writes_no_file(tmp_path, monkeypatch, capsys):
    words = "review", write_findings(tmp_path), "--export", tmp_path / "allow.txt"
    code, out, err = call_command(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert "Nothing is dismissed yet, so 'allow.txt' is not written." in " ".join(err.split())
    assert not (tmp_path / "allow.txt").exists()


def test_what_can_not_be_reviewed_is_an_error(tmp_path, monkeypatch, capsys):
    assert call_command(monkeypatch, capsys, "review", tmp_path / "none.csv")[0] == 2
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    code, _, err = call_command(monkeypatch, capsys, "review", tmp_path / "other.csv")
    assert code == 2 and "has no column 'row'" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = call_command(monkeypatch, capsys, "review", write_findings(tmp_path), "--port", port)
    assert code == 2 and "Nothing can listen" in err


def test_an_export_that_can_not_be_written_is_an_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    words = "review", write_findings(tmp_path), "--export", tmp_path / "file" / "allow.txt"
    assert call_command(monkeypatch, capsys, *words)[0] == 2
