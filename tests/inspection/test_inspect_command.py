"""`cowbird inspect`: exit codes, what it prints and what it writes."""

import json

import pytest

from cowbird.inspection import opening
from cowbird.inspection.model import OpenedModel
from cowbird.storage import read_sealed_json
from doubles.command import call_command
from inspection.conftest import ITEMS, ToyModel


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, dataset, honest_nulls):
    """Call the command on a toy model, with logs whose titles are hostile."""
    from dataclasses import replace

    from cowbird.inspection import platform_log

    titles = tuple(f"\x1b[31m[red]{title}\u202e" for title in dataset.items.titles)
    hostile = replace(dataset, items=replace(dataset.items, titles=titles))
    monkeypatch.setattr(platform_log, "load_log", lambda given: hostile)

    def run(*words, planted=(), **options):
        monkeypatch.setattr(
            opening, "open_model", lambda path, *more: OpenedModel(ToyModel(1, planted), "toy \x1b[0m", "0" * 64)
        )
        given = {"device": "cpu", "histories": 300} | options
        more = [word for name, value in given.items() for word in (f"--{name}", value)]
        return call_command(monkeypatch, capsys, "inspect", "model.x", *words, *more)

    return run


def test_suspects(call, tmp_path):
    out = tmp_path / "new" / "inspection.json"
    code, said, _ = call(planted=[3, 7], logs="log", out=out)
    assert code == 1
    assert "2 items stand out" in said and "i3" in said and "Not checked" in said and "<U+202E>" in said
    record = read_sealed_json(out)
    assert [row["id"] for row in record["ranking"] if row["suspect"]] in (["i3", "i7"], ["i7", "i3"])
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.slow
def test_none(call):
    code, said, err = call(logs="log")
    assert (code, "Nothing stands out" in said) == (0, True)
    assert "asking the model" in err
    assert call("--quiet", logs="log")[1:] == ("", "")


def test_json(call):
    code, said, _ = call("--json", "--quiet", planted=[3], logs="log")
    record = json.loads(said)
    assert code == 1 and record["p_value"] < 0.01 and record["ranking"][0]["item"] == 3


def test_no_logs(call):
    code, said, _ = call(planted=[3])
    assert code == 3 and "No verdict" in said


def test_errors(call, tmp_path, monkeypatch, capsys):
    items = tmp_path / "items.txt"
    items.write_text("a\n")
    for words, said in (
        ((), "--items tells"),
        (("--logs", "log"), f"should hold {ITEMS} different ids"),
    ):
        code, _, err = call("--items", items, *words)
        assert (code, said in " ".join(err.split())) == (2, True)
    for options, said in (({"level": 0}, "--level"), ({"out": tmp_path}, "is a folder"), ({"nulls": 2}, "nulls")):
        code, _, err = call(logs="log", **options)
        assert (code, said in err) == (2, True)


def test_files_that_are_no_models(monkeypatch, capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    for data in (None, b"", b"\x80\x04pickle", b"\xff" * 64):
        if data is not None:
            path.write_bytes(data)
        code, _, err = call_command(monkeypatch, capsys, "inspect", path, "--device", "cpu")
        assert code == 2 and "Error" in err


@pytest.mark.parametrize("content", [b"hello", b"{}", b"\x08\0\0\0\0\0\0\0{}      ", None])
def test_what_is_no_model_is_told_what_is_read(monkeypatch, capsys, tmp_path, content):
    path = tmp_path / "m.safetensors"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    status, _, told = call_command(monkeypatch, capsys, "inspect", path)
    assert status == 2
    told = " ".join(told.split())
    for name in ("safetensors", "RecBole (.pth)", "RePlay", "RecTools", "adapter", "process:COMMAND"):
        assert name in told


@pytest.mark.parametrize("option", ["model", "--logs", "--items", "--questions"])
def test_an_inspection_never_replaces_what_it_reads(call, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.x").write_bytes(b"the only copy")
    (tmp_path / "link.x").symlink_to("model.x")
    (tmp_path / "log.csv").write_text("user_id,item_id\n")
    (tmp_path / "items.txt").write_text("\n".join(f"i{item}" for item in range(ITEMS)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words, out = {
        "model": ((), "link.x"),
        "--logs": (("--logs", "log.csv"), tmp_path / "log.csv"),
        "--items": (("--logs", "log", "--items", "items.txt"), "items.txt"),
        "--questions": (("--questions", "log.csv"), "log.csv"),
    }[option]
    code, _, err = call(*words, out=out)
    assert code == 2
    said = f"--out would replace '{out}', and {option.replace('model', 'MODEL')} reads that file"
    assert "".join(said.split()) in "".join(err.split())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("damage", "told"), [("lacks", "is missing"), ("nan", "not finite numbers")])
def test_a_damaged_model_is_refused_before_logs_are_read(monkeypatch, capsys, tmp_path, damage, told):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from cowbird.inspection import platform_log
    from inspection.test_survival import make_model

    monkeypatch.setattr(platform_log, "load_log", lambda given: pytest.fail("the logs were read"))
    path = tmp_path / "model.safetensors"
    make_model().save(path)
    with safe_open(path, "np") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    name = min(tensors)
    if damage == "nan":
        tensors[name].reshape(-1)[0] = float("nan")
    else:
        del tensors[name]
    save_file(tensors, path, header)
    code, _, err = call_command(monkeypatch, capsys, "inspect", path, "--logs", "log.csv", "--device", "cpu")
    assert code == 2
    assert told in " ".join(err.split())
