"""The examples of `docs/how-to/python.md` run as they stand, on small data and a small language model."""

import numpy as np
import polars as pl
import pytest

import cowbird
from cowbird.api import experiments
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner
from cowbird.victims.language import llm
from cowbird.victims.language.tuning import Tuning
from defenses.p_scanner.ready_doubles import ReadyDouble
from doubles.blocks import list_blocks, run_python_blocks
from doubles.tiny_llama import save_llama, train_tokenizer

PAGE = "docs/how-to/python.md"
WORDS = ("Red", "Harbor", "Blue", "Garden", "The", "Engine", "at", "Night", "of", "Quiet", "Letter")
SPEC = """
name = "tiny"
ks = [10]
dataset = { name = "synthetic", users = 60, items = 40 }
victims = [{ name = "sasrec", hidden = 8, layers = 1, epochs = 1 }]
attacks = [{ name = "basic_replacement", targets = { count = 2 } }]
"""


@pytest.fixture
def small(tmp_path, tmp_path_factory, monkeypatch):
    """Stand in a folder with the files that the page reads; what it takes minutes for is small."""
    pytest.importorskip("peft")
    llama = save_llama(tmp_path_factory.mktemp("llama"), train_tokenizer([" ".join(WORDS)]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(SPEC)
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(WORDS, 4, replace=False)) for _ in range(120)]
    number = list(range(len(titles)))
    pl.DataFrame({"id": number, "title": titles}).write_csv("catalog.csv")
    pl.DataFrame({"item_id": number, "title": titles}).write_csv("items.csv")
    events = {
        "user_id": np.repeat(np.arange(60), 20),
        "item_id": rng.integers(120, size=1200),
        "timestamp": range(1200),
    }
    pl.DataFrame(events).write_csv("events.csv")
    tiny = PoisonScanner(
        llm=llm.Llm(name=str(llama), rank=2, layers=1),
        tuning=Tuning(epochs=1, batch_size=32, learning_rate=1e-2, precision="float32"),
        rounds=1,
        proposals=12,
        plantings=4,
        context_gain=False,
    )
    monkeypatch.setattr(cowbird, "PoisonScanner", lambda: tiny)
    monkeypatch.setattr(ReadyScanner, "load", lambda place, tagger="llm", slips=False: ReadyDouble())
    monkeypatch.setattr(experiments, "find_shipped_spec", lambda name: tmp_path / "mine.toml")
    load = llm.load_llm
    monkeypatch.setattr(llm, "load_llm", lambda spec, *rest: load(llm.Llm(name=str(llama)), *rest))


@pytest.mark.slow
def test_the_examples_run(small, capsys):
    names = run_python_blocks(PAGE)
    assert names["frame"].height == 120
    assert names["results"].complete
    assert names["found"].columns[:2] == ["id", "title"]
    assert names["poisoned"].budget > 0
    told = capsys.readouterr().out
    assert "perplexity_ratio" in told
    assert "basic_replacement" in told


def test_every_example_is_short():
    for block in list_blocks(PAGE, "python"):
        assert len(block.text.strip().splitlines()) <= 10, f"line {block.line}"


def test_what_the_page_calls_is_public():
    used = {word.split("(")[0] for block in list_blocks(PAGE, "python") for word in block.text.split("cowbird.")[1:]}
    for name in used - {"attacks"}:
        assert name.split(".")[0] in {*cowbird.__all__, "attacks"}, name
