"""Hostile text through every command: titles, ids, labels, columns, file names; nothing of it is shown raw."""

import csv
import json
import re
import sys

import pytest
from rich.table import Table
from rich.text import Text

from cowbird import plugins
from cowbird.cli import app as cli
from cowbird.cli import demo, terminal
from cowbird.cli.progress import BarDisplay, LineDisplay
from cowbird.data.types import Items
from cowbird.experiments import demo as demo_parts
from cowbird.experiments import executor, spec_labels, stealth
from cowbird.experiments.reference import entries
from cowbird.scanning import fitting
from hostile import BIDI_CONTROLS, CONTROLS, DEFAULT_IGNORABLE, FILE_PAYLOAD, PAYLOAD, SEQUENCES, UNSEEN, find_raw

pytest.importorskip("transformers")
from cli.test_cli_scanner import TITLES, cheap, fast, fitted  # noqa: F401
from cli.test_cli_stealth import folder  # noqa: F401
from defenses.conftest import llama  # noqa: F401

SPEC = """
name = "small"
description = {text}
seeds = [0]
ks = [10]
[dataset]
name = "tabular"
path = {log}
item_path = {items}
[[victims]]
name = "sasrec"
hidden = 8
epochs = 1
[[attacks]]
name = "basic_replacement"
label = "one"
targets = {{ ids = [{target}] }}
rate = 0.9
[[attacks]]
name = "basic_replacement"
label = "unfit"
targets = {{ ids = [{gone}] }}
"""
ALL_OF_THEM = "".join(sorted({*DEFAULT_IGNORABLE, *BIDI_CONTROLS, *CONTROLS}))
IN_A_FIELD = "".join(letter for letter in ALL_OF_THEM if letter not in "\0\r\n")
SHOWN = "A<U+3164>B<U+202E>"
COLUMN = f"title {PAYLOAD}"


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def call(request, monkeypatch, capsys):
    """Call the command, as in a pipe and as on a terminal: exit code, and all that it says."""
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["cowbird", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return check(capsys, end.value.code, request.param)

    run.check = lambda code: check(capsys, code, request.param)
    return run


def check(capsys, code, own_styles):
    said = "\n".join(capsys.readouterr())
    assert find_raw(said.replace("\r", "") if own_styles else said, own_styles) == []
    assert "\x1b]" not in said
    assert "\x1b[31mL" not in said
    assert "Traceback" not in said
    return code or 0, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\s", "", said)


@pytest.fixture
def spec(tmp_path):
    """Return a spec with hostile text wherever a stranger may put any, in a folder with a hostile name."""
    place = tmp_path / PAYLOAD
    place.mkdir()
    names = [f"{nth} {PAYLOAD}" for nth in range(12)]
    with (place / "items.csv").open("w", newline="", encoding="utf-8") as file:
        titles = [f"{IN_A_FIELD[60 * nth : 60 * nth + 30]} {PAYLOAD}" for nth in range(12)]
        rows = [(name, title, f"kind {PAYLOAD}") for name, title in zip(names, titles, strict=True)]
        csv.writer(file).writerows([("item_id", "title", "category"), *rows])
    with (place / "log.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"{user} {PAYLOAD}", names[(user * 5 + at) % 12], at) for user in range(30) for at in range(6)]
        broken = [(f"x {PAYLOAD}", names[0], f"no time {PAYLOAD}"), ("y", f"lost\nline {PAYLOAD}", "")]
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *rows, *broken])
    log, items = (f"log-{PAYLOAD}.csv", "items.csv")
    (place / "log.csv").rename(place / log)
    texts = {"text": PAYLOAD, "target": names[3], "gone": f"nowhere {PAYLOAD}"}
    texts |= {"log": str(tmp_path / "data" / log), "items": str(tmp_path / "data" / items)}
    (tmp_path / "data").symlink_to(place)
    quoted = {name: json.dumps(text, ensure_ascii=False) for name, text in texts.items()}
    path = place / "spec.toml"
    path.write_text(SPEC.format(**quoted), "utf-8")
    return path


def test_run(call, spec, tmp_path):
    code, said = call("run", spec, "--out", spec.parent / "out", "--device", "cpu")
    assert code == 3, said
    assert said.count(SHOWN) >= 5
    assert "skipped" in said
    assert "nowhere" in said
    assert "planted" in said
    assert f"<U+{ord(IN_A_FIELD[180]):04X}>" in said, "a target's title"


@pytest.mark.parametrize("key", ["name", "label", "victim", "option", "path", "profile", "seeds", "toml"])
def test_run_with_a_spec_that_is_refused(call, spec, key):
    text = spec.read_text()
    hostile = json.dumps(PAYLOAD, ensure_ascii=False)
    more = ()
    match key:
        case "name":
            text = text.replace('name = "small"', f"name = {hostile}")
        case "label":
            text = text.replace('"one"', hostile)
        case "victim":
            text = text.replace('"sasrec"', hostile)
        case "option":
            text = text.replace("hidden = 8", f"{hostile} = 8")
        case "path":
            text = re.sub('item_path = ".*"', lambda _: f"item_path = {hostile}", text)
        case "profile":
            more = ("--profile", PAYLOAD)
        case "seeds":
            more = ("--seeds", PAYLOAD)
        case "toml":
            text = PAYLOAD
    spec.write_text(text)
    code, said = call("run", spec, "--out", spec.parent / "out", "--device", "cpu", *more)
    assert code == 2
    assert "<U+3164>" in said or key in ("toml", "name")


def test_run_that_is_interrupted(call, spec, monkeypatch):
    def interrupt(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(executor, "run_cell", interrupt)
    code, said = call("run", spec, "--out", spec.parent / "out", "--device", "cpu")
    assert code == 3
    assert "Goonwith" in said
    assert SHOWN in said


@pytest.mark.parametrize(
    "args",
    [
        (PAYLOAD,),
        ("list", PAYLOAD),
        (f"--{PAYLOAD}",),
        ("run", "x.toml", PAYLOAD),
        ("run", PAYLOAD, "--out", PAYLOAD),
        ("run", PAYLOAD, "--out", PAYLOAD, "--jobs", PAYLOAD),
        ("run", "x.toml", "--out", "x", f"--{PAYLOAD}"),
        ("demo", "--seeds", PAYLOAD, "--out", PAYLOAD),
        ("assets", PAYLOAD),
        ("scan", PAYLOAD, "--scanner", PAYLOAD, "--out", f"{PAYLOAD}.csv"),
        ("scan", PAYLOAD, "--scanner", PAYLOAD, "--out", PAYLOAD, "--device", PAYLOAD),
        ("fit-scanner", "--p-scanner", PAYLOAD, "--out", PAYLOAD, "--agent", PAYLOAD),
        ("fit-scanner", "--p-scanner", PAYLOAD, "--out", PAYLOAD, "--device", "cpu"),
        ("stealth", "--trigger", PAYLOAD, "--out", PAYLOAD),
        ("stealth", "--trigger", "char_5v", "--out", PAYLOAD, "--dataset", PAYLOAD),
        ("stealth", "--trigger", "char_5v", "--out", PAYLOAD, "--llm", PAYLOAD, "--dataset", "synthetic"),
    ],
    ids=lambda args: " ".join(word if word.isascii() and word.isprintable() else "X" for word in args),
)
def test_what_can_t_be_done(call, tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    code, said = call(*args)
    assert code == 2
    assert said


def test_list(call, monkeypatch):
    """Plug-ins of others have the names and first lines that others gave them."""
    found = [plugins.PluginEntry(f"{nth} {PAYLOAD}", f"{PAYLOAD} 1.0", f"Does {PAYLOAD}") for nth in range(2)]
    monkeypatch.setattr(plugins, "describe_plugins", lambda kind: found)
    code, said = call("list", "attacks")
    assert code == 0
    assert said.count(SHOWN) >= 2


def test_assets(call, monkeypatch, tmp_path):
    monkeypatch.setenv("COWBIRD_CACHE", str(tmp_path / PAYLOAD))
    code, said = call("assets", "--list")
    assert code == 0
    assert SHOWN in said


def test_stealth(call, monkeypatch, tmp_path, folder):  # noqa: F811
    titles = [f"Red {PAYLOAD}", f"Blue Harbor {ALL_OF_THEM}", "The Quiet Garden", *SEQUENCES.values()]
    items = Items.from_lists([str(nth) for nth in range(len(titles))], titles)
    monkeypatch.setattr(stealth, "load_catalog", lambda dataset: items)
    monkeypatch.setattr(stealth, "find_shipped_triggers", lambda kinds: [stealth.Trigger(kind="custom", text=kinds[0])])
    out = tmp_path / f"{FILE_PAYLOAD}.csv"
    text = "zq \u3164\u202e=x"
    code, said = call("stealth", "--trigger", text, "--out", out, "--llm", folder, "--device", "cpu")
    assert code == 0
    assert "zq<U+3164><U+202E>=x" in said
    assert SHOWN in said
    assert find_raw(out.read_text()) == []
    assert "zq <U+3164><U+202E>=x" in out.read_text()


def hostile_catalog(place):
    place.mkdir()
    path = place / f"catalog {FILE_PAYLOAD}.jsonl"
    titles = [
        *TITLES,
        *(f"{title} {PAYLOAD}" for title in TITLES[:6]),
        f"Red {ALL_OF_THEM}",
        *SEQUENCES.values(),
        *UNSEEN,
    ]
    rows = [json.dumps({f"id {PAYLOAD}": f"{nth} {PAYLOAD}", COLUMN: title}) for nth, title in enumerate(titles)]
    path.write_text("\n".join([*rows, f'{{"broken {PAYLOAD}', json.dumps({COLUMN: [PAYLOAD]})]) + "\n", "utf-8")
    return path


@pytest.mark.slow
def test_fit_scanner_and_scan(call, tmp_path, monkeypatch):
    catalog = hostile_catalog(tmp_path / PAYLOAD)
    made, out = catalog.parent / "made", catalog.parent / f"found {PAYLOAD}.csv"
    code, said = call(
        "fit-scanner", "--p-scanner", catalog, "--out", made, "--text-column", COLUMN, "--fpr", 0.2, "--device", "cpu"
    )
    assert code == 3, "rows can't be read"
    assert SHOWN in said
    words = ("--text-column", COLUMN, "--id-column", f"id {PAYLOAD}", "--device", "cpu", "--fpr", 0.3)
    code, said = call("scan", catalog, "--scanner", made, "--out", out, *words)
    assert code == 1
    assert SHOWN in said
    for written in (out, out.with_name(f"{out.name}.skipped.csv")):
        held = written.read_text("utf-8")
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]", held), "no terminal obeys it"
        assert csv.reader(held.splitlines())
    code, said = call("scan", catalog, "--scanner", made, "--out", out, "--text-column", f"not {PAYLOAD}")
    assert code == 2
    assert SHOWN in said
    made = made.rename(made.with_name("damaged"))
    (made / "scanner.json").write_text(PAYLOAD)
    code, said = call("scan", catalog, "--scanner", made, "--out", out, "--text-column", COLUMN)
    assert code == 2
    assert SHOWN in said


def test_fit_scanner_into_a_folder_whose_name_is_no_text(call, tmp_path):
    """It is refused before the fit, and not by a library after it."""
    catalog = hostile_catalog(tmp_path / PAYLOAD)
    words = ("--text-column", COLUMN, "--device", "cpu")
    code, said = call("fit-scanner", "--p-scanner", catalog, "--out", tmp_path / f"made {FILE_PAYLOAD}", *words)
    assert code == 2
    assert "isnovalidtext" in said
    assert "<U+DCFF>" in said


def test_fit_scanner_that_warns(call, tmp_path, monkeypatch):
    """What a fit warns of is shown, and quotes what anybody wrote."""

    def fit(catalog, out, spec, text_column, seed, resume, work):
        work.report(1, 2, f"at {PAYLOAD}")
        work.warn(f"An agent said {PAYLOAD}")
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "fit_scanner", fit)
    code, said = call("fit-scanner", "--p-scanner", PAYLOAD, "--out", tmp_path / PAYLOAD, "--device", "cpu")
    assert code == 3
    assert "warningAnagentsaid" + SHOWN in said
    assert "Goonwith" in said


@pytest.mark.slow
def test_the_demo(call, monkeypatch, spec):
    """The tables of its runs, its scans, and what it leaves out."""
    spec.write_text(spec.read_text().rpartition("[[attacks]]")[0])
    monkeypatch.setattr(spec_labels, "find_shipped_spec", lambda name: spec)
    monkeypatch.setattr(demo_parts, "write_catalog", lambda spec, path: write_catalog(path))
    monkeypatch.setattr(demo_parts, "format_tally", lambda *args: f"Flagged: {PAYLOAD}")
    monkeypatch.setattr(demo, "_explain_missing_model", lambda: f"It needs {PAYLOAD}.")
    code, said = call("demo", "--out", spec.parent / "demo", "--device", "cpu")
    assert code == 0, said
    assert f"Itneeds{SHOWN}" in said
    assert f"Flagged:{SHOWN}" in said
    assert said.count(f"Flagged:{SHOWN}") == 2


def write_catalog(path):
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        rows = ((f"{nth} {PAYLOAD}", f"{title} {PAYLOAD}" if nth < 5 else title) for nth, title in enumerate(TITLES))
        writer.writerows([("id", "title"), *rows])
    return frozenset(range(1, 6))


def test_a_bug_quotes_nothing_raw(monkeypatch, capsys):
    def fail(*args, **more):
        raise RuntimeError(f"bug {ALL_OF_THEM} {PAYLOAD}")

    monkeypatch.setattr(entries, "list_entries", fail)
    monkeypatch.setattr(sys, "argv", ["cowbird", "list", "attacks"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert "RuntimeError: bug" in err
    assert find_raw(err) == []


def test_what_a_caller_forgot_to_escape_is_escaped_by_the_console(capsys):
    table = Table("title")
    table.add_row(PAYLOAD)
    terminal.out_console.print(table)
    terminal.err_console.print(Text(ALL_OF_THEM))
    terminal.err_console.print(PAYLOAD)
    for display in (BarDisplay(left=True), LineDisplay()):
        with display as shown:
            shown.update(shown.add_task(PAYLOAD), phase=PAYLOAD, done=1, total=2, note=PAYLOAD)
            shown.warn(PAYLOAD)
    out, err = capsys.readouterr()
    assert SHOWN in out
    assert SHOWN in err
    assert find_raw(out + err) == []
