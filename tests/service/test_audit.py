"""The audit log: on disk before an answer, numbered without gaps, whole after a kill."""

import json
import os

import pytest

from cowbird.errors import OutageError, UserError
from cowbird.service.audit import AUDIT_FILE, AuditLog


def read(folder):
    paths = [*sorted(folder.glob("audit-*.jsonl")), folder / AUDIT_FILE]
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_records_are_numbered_across_restarts_and_files(tmp_path):
    for _ in range(3):
        with AuditLog(tmp_path, 1024) as log:
            firsts = [log.append([{"title": "x" * 100}, {"title": "\ud800"}]).result() for _ in range(9)]
    assert firsts[-1] == 53
    assert [record["number"] for record in read(tmp_path)] == list(range(1, 55))
    files = sorted(path.name for path in tmp_path.glob("audit-*"))
    assert len(files) > 3 and files[0] == "audit-000000000001.jsonl"
    for name in files:
        first = json.loads((tmp_path / name).read_text().splitlines()[0])["number"]
        assert name == f"audit-{first:012}.jsonl"
    assert all((tmp_path / name).stat().st_size < 2048 for name in files)


@pytest.mark.parametrize("torn", [b'{"number": 4, "ti', b"x" * 200_000], ids=["half a line", "long"])
def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path, torn):
    with AuditLog(tmp_path, 1 << 20) as log:
        log.append([{"title": "a"}, {"title": "b"}]).result()
    with (tmp_path / AUDIT_FILE).open("ab") as file:
        file.write(torn)
    with AuditLog(tmp_path, 1 << 20) as log:
        assert log.append([{"title": "c"}]).result() == 4
    found = read(tmp_path)
    assert [record["number"] for record in found] == [1, 2, 3, 4]
    assert found[2]["event"] == "recovered" and found[2]["cut"] == len(torn)


def test_a_full_disk_is_told_and_leaves_no_half_record(tmp_path, monkeypatch):
    write = os.write

    def run_out(handle, data):
        if b"planted" in bytes(data):
            write(handle, bytes(data)[:10])
            raise OSError(28, "No space left on device")
        return write(handle, data)

    with AuditLog(tmp_path, 1 << 20) as log:
        log.append([{"title": "a"}]).result()
        monkeypatch.setattr(os, "write", run_out)
        with pytest.raises(OutageError, match="No space left"):
            log.append([{"title": "planted"}]).result()
        assert log.failure == "No space left on device"
        monkeypatch.setattr(os, "write", write)
        assert log.append([{"title": "b"}]).result() == 2
        assert log.failure is None
    assert [record["title"] for record in read(tmp_path)] == ["a", "b"]


def test_what_waits_is_written_together(tmp_path):
    with AuditLog(tmp_path, 1 << 20) as log:
        waiting = [log.append([{"title": str(nth)}]) for nth in range(200)]
        assert [each.result() for each in waiting] == list(range(1, 201))
        assert log.commits < 200


def test_a_second_process_and_damaged_logs_are_refused(tmp_path):
    with AuditLog(tmp_path, 1 << 20) as log:
        log.append([{}]).result()
        with pytest.raises(UserError, match="Another service"), AuditLog(tmp_path, 1 << 20):
            pass
    (tmp_path / AUDIT_FILE).write_bytes(b"not json\n")
    with pytest.raises(UserError, match="should be an audit log"), AuditLog(tmp_path, 1 << 20):
        pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("mine\n")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / AUDIT_FILE).symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="link"), AuditLog(tmp_path / "log", 1 << 20):
        pass
    assert (tmp_path / "other").read_text() == "mine\n"


def test_a_folder_that_stands_there_keeps_its_permissions(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    with AuditLog(shared, 1 << 20) as log:
        log.append([{"event": "begun"}]).result()
    assert shared.stat().st_mode & 0o777 == 0o755
    assert (shared / AUDIT_FILE).stat().st_mode & 0o077 == 0, "the log itself is its owner's"
    with AuditLog(tmp_path / "new", 1 << 20):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
