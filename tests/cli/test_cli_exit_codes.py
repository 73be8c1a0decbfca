"""What a process returns: 1 is for findings alone, whatever breaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each is a process of its own; CI runs them

SETUP = """
import sys
from cowbird import plugins
from cowbird.cli import app as cli
"""
ROOT = Path(__file__).parents[1]


def shell(code, *words, stdout=subprocess.PIPE, **options):
    """Run the command in a process of its own, after some code."""
    code = f"{SETUP}{code}\nsys.argv = {['cowbird', *map(str, words)]!r}\ncli.main()"
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=env, **options
    )


FAILURES = {
    "bug": "raise ZeroDivisionError('oh')",
    "memory": "raise MemoryError",
    "panic": "raise type('PanicException', (BaseException,), {})('index out of bounds')",
    "generator": "raise GeneratorExit",
    "library that ends the process": "sys.exit(1)",
    "library that ends the process with words": "sys.exit('no license')",
    "closed pipe elsewhere": "raise BrokenPipeError(32, 'Broken pipe')",
    "broken torch": "sys.modules['torch'] = None; import torch",
    "recursion": "def again(): again()\n    again()",
    "deleted folder": "import os; os.listdir('/nowhere')",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_nobody_expected_is_an_error(failure):
    done = shell(f"def fail(kind):\n    {FAILURES[failure]}\nplugins.describe_plugins = fail", "list", "attacks")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr, "it is told"


@pytest.mark.parametrize(
    ("end", "said"), [("SystemExit(1)", "exit code 1"), ("SystemExit('no license')", "no license")]
)
def test_a_library_that_ends_the_process_is_named(tmp_path, end, said):
    (tmp_path / "torch.py").write_text(f"raise {end}")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-m", "cowbird", "scan", "x.csv", "--out", "y.csv"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    told = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "torch.py:1,withthe" in told.replace(" ", "")  # a long path breaks lines
    assert said in told
    assert "Traceback" not in told


def test_an_error_is_told_where_torch_is_broken(tmp_path):
    """The handler of errors imports nothing that may be broken."""
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open shared object file')")
    (tmp_path / "polars.py").write_text("raise ImportError('broken')")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "cowbird", "scan", "x.csv", "--scanner", "x", "--out", "y.csv"],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )
    assert done.returncode == 2
    assert "libtorch.so" in done.stderr or "broken" in done.stderr


@pytest.mark.parametrize("name", ["typer", "rich", "cowbird.text"])
def test_a_broken_installation_is_an_error(tmp_path, name):
    code = f"import sys; sys.modules['{name}'] = None\nfrom cowbird.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert name in done.stderr


@pytest.mark.parametrize("given", ["2>&-", "2>/dev/full", "2>&1 >/dev/null | true"])
def test_a_broken_installation_is_an_error_though_nobody_reads_it(given):
    code = "import sys; sys.modules['typer'] = None; from cowbird.__main__ import main; main()"
    words = ["bash", "-c", f'"$0" -c "$1" {given}; exit "${{PIPESTATUS[0]}}"', sys.executable, code]
    for buffered in ("", "1"):  # what is left in a buffer must not speak at the end
        env = os.environ | {"PYTHONUNBUFFERED": buffered}
        assert subprocess.run(words, check=False, timeout=120, env=env).returncode == 2


def test_an_interrupt_is_incomplete():
    done = shell("def fail(kind):\n    raise KeyboardInterrupt\nplugins.describe_plugins = fail", "list", "attacks")
    assert done.returncode == 3
    assert "Interrupted" in done.stderr


def closed():
    """Return the writing end of a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


VERDICTS = """
import typer
from cowbird.cli.terminal import out_console, err_console
def speak(code):
    for nth in range(200):  # more than what a stream holds back
        out_console.print(f"line {nth} " * 9)
        err_console.print(f"note {nth} " * 9)
        print("raw")
    raise typer.Exit(code)
cli.app.command(name="speak")(lambda code: speak(int(code)))
"""


@pytest.mark.parametrize("code", [0, 1, 2, 3])
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_a_closed_pipe_keeps_the_verdict(code, which):
    pipe = closed()
    program = f"{SETUP}{VERDICTS}\nsys.argv = ['cowbird', 'speak', '{code}']\ncli.main()"
    streams = {name: pipe if which in (name, "both") else subprocess.DEVNULL for name in ("stdout", "stderr")}
    try:
        assert subprocess.run([sys.executable, "-c", program], check=False, **streams).returncode == code
    finally:
        os.close(pipe)


def test_a_list_whose_reader_leaves():
    pipe = closed()
    try:
        words = [sys.executable, "-m", "cowbird", "list", "attacks"]
        done = subprocess.run(words, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", [0, 1])
def test_closed_streams_keep_the_verdict(code):
    program = f"{SETUP}{VERDICTS}\nsys.argv = ['cowbird', 'speak', '{code}']\ncli.main()"
    words = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, program]
    assert subprocess.run(words, check=False).returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("code", [0, 1])
def test_output_that_can_t_be_written_is_an_error(code):
    program = f"{SETUP}{VERDICTS}\nsys.argv = ['cowbird', 'speak', '{code}']\ncli.main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "The output can't be written: No space left on device." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", [("peek", "items.csv", "--json"), ("--help",), ("describe", "spec")])
def test_output_of_any_form_that_can_t_be_written_is_an_error(words, buffered, tmp_path):
    (tmp_path / "items.csv").write_text("title\nQuiet River\n")
    env = os.environ | {"PYTHONUNBUFFERED": buffered}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cowbird", *words]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env, cwd=tmp_path, timeout=120
        )
    assert done.returncode == 2
    assert "The output can't be written: No space left on device." in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "code"),
    [(("scan", "/none"), 2), (("--none",), 2), (("scan", "/none", "--out", "found.csv"), 2), (("list", "attacks"), 0)],
)
def test_an_error_that_can_t_be_told_keeps_its_code(words, code, buffered, tmp_path):
    env = os.environ | {"PYTHONUNBUFFERED": buffered}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cowbird", *words]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=full, check=False, env=env, cwd=tmp_path, timeout=120
        )
    assert done.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_remarks_that_can_t_be_told_keep_the_verdict():
    program = f"{SETUP}{VERDICTS}\nsys.argv = ['cowbird', 'speak', '1']\ncli.main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=full, check=False)
        assert done.returncode == 1
        both = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full, check=False)
    assert both.returncode == 2, "output that can't be written is an error, though nobody is told"


def test_letters_that_the_encoding_lacks_cost_no_verdict():
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    program = f"{SETUP}{VERDICTS.replace('line', '紅')}\nsys.argv = ['cowbird', 'speak', '1']\ncli.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=env)
    assert done.returncode == 1
    assert b"\\u7d05 0" in done.stdout


@pytest.mark.parametrize("words", [("fly",), ("list", "birds"), (), ("list", "attacks", "more")], ids=" ".join)
def test_usage_errors_are_errors(words):
    assert shell("", *words).returncode == 2
