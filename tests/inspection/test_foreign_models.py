"""Models that are not Cowbird's, opened for inspection: checkpoints, functions and processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.inspection import served
from cowbird.inspection.opening import open_model
from cowbird.inspection.served import FunctionModel, ProcessModel
from cowbird.victims.loaders.opening import CheckpointOptions
from doubles.blocks import list_blocks

CPU = torch.device("cpu")
CHECKPOINTS = Path(__file__).parents[1] / "foreign" / "checkpoints"
HEADS = CheckpointOptions(settings={"heads": 2})


@pytest.mark.parametrize("file", sorted(CHECKPOINTS.glob("*.[pc]*[hlt]")), ids=lambda file: file.name)
def test_a_checkpoint_is_opened_asked_changed_and_written(file, tmp_path):
    opened = open_model(file, CPU, HEADS)
    model = opened.model
    assert opened.kind.partition(" ")[0].lower() == file.name.partition("_")[0]
    assert opened.shape is not None
    assert len(opened.sha256) == 64
    assert model.items == 12
    histories = [np.array([1]), np.array([3, 6, 5])]
    scores = model.score(histories)
    assert scores.shape == (2, 12)
    assert scores.dtype == np.float32
    assert np.allclose(model.compute_scores(histories).detach().numpy(), scores, atol=1e-5)
    with torch.no_grad():
        model.list_item_tables()[0][4] *= -1  # the bias of BERT4Rec is in the table
    model.save(tmp_path / file.name)
    again = open_model(tmp_path / file.name, CPU, HEADS).model.score(histories)
    assert np.allclose(again[:, 4], -scores[:, 4], atol=1e-5)
    assert np.allclose(np.delete(again, 4, axis=1)[0], np.delete(scores, 4, axis=1)[0], atol=1e-5)
    with pytest.raises(UserError, match="empty"):
        model.score([np.array([], dtype=np.int64)])


def test_scores_that_are_not_finite(tmp_path):
    model = open_model(CHECKPOINTS / "recbole_gru4rec.pth", CPU).model
    with torch.no_grad():
        model.module.merge.bias.fill_(3e38)
        model.module.item.weight.fill_(3e38)
    with pytest.raises(UserError, match="not finite"):
        model.score([np.array([1])])


def test_what_is_no_model(tmp_path):
    (tmp_path / "text").write_text("hello")
    for path, told in [(tmp_path / "nope", "there is none"), (tmp_path / "text", "no model that can be read")]:
        with pytest.raises(UserError, match=told):
            open_model(path, CPU)


# Functions


def write_module(folder, text):
    """Write a module of a name of its own and return the name."""
    name = f"served_{abs(hash(str(folder)))}"
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return name


def test_a_function(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    name = write_module(
        tmp_path,
        """
        import numpy
        def score(histories):
            return numpy.array([[len(history) + item for item in range(4)] for history in histories])
    """,
    )
    with pytest.raises(UserError, match="runs its code") as error:
        open_model(f"function:{name}:score", CPU)
    assert "--allow-plugins" in error.value.hint
    opened = open_model(f"function:{name}:score", CPU, allow_plugins=True)
    assert opened.model.items == 4
    assert opened.model.score([np.array([1, 2]), np.array([0])]).tolist() == [[2, 3, 4, 5], [1, 2, 3, 4]]
    assert opened.model.score([]).shape == (0, 4)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise RuntimeError('no')", "raised RuntimeError: no"),
        ("return None", "scores"),
        ("return [1, 2]", "should return scores"),
        ("return [[1, float('nan')]]", "not finite"),
        ("return [['a']]", "raised ValueError"),
        ("return [[]]", "should return scores"),
        ("return [[1, 2]] if len(histories[0]) == 1 else [[1, 2, 3]]", "should return scores"),
    ],
)
def test_functions_that_fail(tmp_path, monkeypatch, body, told):
    monkeypatch.syspath_prepend(tmp_path)
    name = write_module(tmp_path, f"def score(histories):\n    {body}\n")
    with pytest.raises(UserError, match=told):
        open_model(f"function:{name}:score", CPU, allow_plugins=True).model.score([np.array([1, 1])])


@pytest.mark.parametrize("name", ["nope:score", "json", "json:nope", "json:__doc__", "../x:y", ":", "os.path:a-b"])
def test_functions_that_are_not_there(name):
    with pytest.raises(UserError):
        open_model(f"function:{name}", CPU, allow_plugins=True)


def test_histories_are_checked():
    model = FunctionModel(lambda histories: np.zeros((len(histories), 3)), "function")
    for history, told in [([], "empty"), ([3], "none of the model's 3"), ([-1], "none of the model's 3")]:
        with pytest.raises(UserError, match=told):
            model.score([np.array(history, dtype=np.int64)])


# Processes

SERVER = """
    import json, struct, sys
    import numpy as np
    def say(header, data=b""):
        text = json.dumps(header).encode()
        sys.stdout.buffer.write(struct.pack("<I", len(text)) + text + data)
        sys.stdout.buffer.flush()
    def hear():
        start = sys.stdin.buffer.read(4)
        if not start:
            sys.exit()
        header = json.loads(sys.stdin.buffer.read(struct.unpack("<I", start)[0]))
        offsets = np.frombuffer(sys.stdin.buffer.read(8 * header["histories"] + 8), "<i8")
        return offsets, np.frombuffer(sys.stdin.buffer.read(4 * header["events"]), "<i4")
"""


def start(tmp_path, body, **limits):
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(SERVER) + textwrap.dedent(body))
    return ProcessModel([sys.executable, str(path)], **limits)


GOOD = """
    say({"protocol": "cowbird-score-1", "items": 5})
    while True:
        offsets, items = hear()
        sums = np.add.reduceat(items, offsets[:-1])
        say({"histories": len(sums), "items": 5}, (sums[:, None] + np.arange(5)).astype("<f4").tobytes())
"""


def test_a_process(tmp_path, monkeypatch):
    monkeypatch.setattr(served, "MAX_SCORES_ASKED", 15)  # three histories a request
    model = start(tmp_path, GOOD)
    assert model.items == 5
    histories = [np.arange(1 + number % 4) for number in range(8)]
    expected = [[sum(range(1 + number % 4)) + item for item in range(5)] for number in range(8)]
    assert model.score(histories).tolist() == expected
    assert model.score([]).shape == (0, 5)
    process = model._process
    model.close()
    model.close()
    assert process.poll() is not None
    with pytest.raises(UserError):
        model.score(histories)


def test_a_process_by_its_name(tmp_path):
    path = tmp_path / "a server.py"
    path.write_text(textwrap.dedent(SERVER) + textwrap.dedent(GOOD))
    name = f"process:{sys.executable} '{path}'"
    with pytest.raises(UserError, match="runs its code"):
        open_model(name, CPU)
    opened = open_model(name, CPU, allow_plugins=True)
    assert opened.model.items == 5
    opened.model.close()
    for command, told in [("", "empty"), ("'", "can't be split"), ("/no/such/program", "can't be started")]:
        with pytest.raises(UserError, match=told):
            open_model(f"process:{command}", CPU, allow_plugins=True)


def test_the_script_of_the_page_serves_a_model(tmp_path):
    (script,) = list_blocks("docs/how-to/foreign_models.md", "py")
    (tmp_path / "serve.py").write_text(script.text)
    model = ProcessModel([sys.executable, str(tmp_path / "serve.py")])
    scores = model.score([np.array([3, 5]), np.array([97])])
    assert model.items == 100
    assert scores.argmax(axis=1).tolist() == [6, 98]
    model.close()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("sys.exit('it is \\x1b[31mbroken')", r"ended.*<U\+001B>"),
        ("print('hello', flush=True)", "header of"),
        ("sys.stdout.buffer.write(struct.pack('<I', 1 << 30))", "header of"),
        ("sys.stdout.buffer.write(struct.pack('<I', 4) + b'[1]x')", "not a JSON object"),
        ("say([1])", "not a JSON object"),
        ("say({'protocol': 'other', 'items': 5})", "did not say hello"),
        ("say({'protocol': 'cowbird-score-1', 'items': -5})", "did not say hello"),
        ("say({'protocol': 'cowbird-score-1', 'items': 10**12})", "did not say hello"),
        ("say({'protocol': 'cowbird-score-1', 'items': True})", "did not say hello"),
        ("say({'protocol': 'cowbird-score-1', 'items': 5}); hear(); say({'histories': 2, 'items': 5})", "otherwise"),
        ("say({'protocol': 'cowbird-score-1', 'items': 5}); hear(); say({'histories': 1, 'items': 5}, b'a')", "ended"),
        (
            "say({'protocol': 'cowbird-score-1', 'items': 1}); hear()\n"
            "say({'histories': 1, 'items': 1}, np.float32('nan').tobytes())",
            "not finite",
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_processes_that_lie(tmp_path, body, told):
    with pytest.raises(UserError, match=told) as error:
        start(tmp_path, body).score([np.array([0])])
    assert "\x1b" not in str(error.value)


@pytest.mark.slow
def test_a_process_that_is_too_slow(tmp_path):
    began = time.monotonic()
    with pytest.raises(UserError, match="took too long"):
        start(tmp_path, "import time; time.sleep(60)", start_seconds=0.2)
    model = start(
        tmp_path, "say({'protocol': 'cowbird-score-1', 'items': 5}); import time; time.sleep(60)", answer_seconds=0.2
    )
    with pytest.raises(UserError, match="took too long"):
        model.score([np.array([0])])
    assert model._process.poll() is not None
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when its standard input does")
def test_a_process_ends_with_its_parent(tmp_path):
    """The parent is killed; the process, which never reads, ends all the same."""
    server = tmp_path / "server.py"
    server.write_text(
        textwrap.dedent(SERVER) + "say({'protocol': 'cowbird-score-1', 'items': 5})\nimport time; time.sleep(60)"
    )
    parent = f"""
import sys, time
from cowbird.inspection.served import ProcessModel
model = ProcessModel([sys.executable, {str(server)!r}])
print(model._process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        os.kill(child, 0)
        process.send_signal(signal.SIGKILL)
    for _ in range(100):
        try:
            os.kill(child, 0)
            if "zombie" in Path(f"/proc/{child}/status").read_text():
                break
        except (OSError, ProcessLookupError):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the process is still there")
