"""`cowbird fit-scanner` without `--p-scanner`: a calibration in a folder, with a tagger that is tuned or one's own."""

import json
import shutil

import polars
import pytest

import cowbird
from cowbird.defenses.p_scanner.small_tagger import SmallTagger, SmallTaggerRecord
from cowbird.defenses.p_scanner.small_tagger_network import SmallTaggerNetwork, SmallTaggerSizes
from cowbird.errors import ExitCode
from cowbird.scanning import calibrated_folder
from cowbird.victims import training_loop
from defenses.p_scanner.ready_doubles import make_titles
from doubles.command import call_command
from doubles.tiny_tagger import save_tagger


@pytest.fixture
def call(monkeypatch, capsys):
    monkeypatch.setattr(calibrated_folder, "_find_words", lambda: ("plain", "words"))
    return lambda *words: call_command(monkeypatch, capsys, *words, "--device", "cpu")


@pytest.fixture
def catalog(tmp_path):
    polars.DataFrame({"title": make_titles(160)}).write_csv(tmp_path / "items.csv")
    return tmp_path / "items.csv"


@pytest.fixture
def own(tmp_path):
    sizes = SmallTaggerSizes(embedding=2, width=4, blocks=1)
    record = SmallTaggerRecord(sizes=sizes)
    SmallTagger(record, SmallTaggerNetwork(sizes).eval(), "cpu").save(tmp_path / "own")
    return tmp_path / "own"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_judges_later_uploads(call, catalog, tmp_path):
    words = ("fit-scanner", catalog, "--out", tmp_path / "made", "--tagger", "small")
    code, said, err = call(*words, "--fpr", "0.05")
    assert code == ExitCode.CLEAN, err
    assert "Calibrated on 160 titles" in said
    assert sorted(contents(tmp_path / "made")) == ["calibration.safetensors", "fit.json"]
    polars.DataFrame({"title": ["Red River\u200b 5v!!"]}).write_csv(tmp_path / "new.csv")
    found = tmp_path / "found.csv"
    code, said, err = call("scan", tmp_path / "new.csv", "--scanner", tmp_path / "made", "--out", found)
    assert code == ExitCode.FINDINGS, err
    assert "160 titles of the calibration" in " ".join(said.split())
    assert cowbird.load_scanner(tmp_path / "made").record.tagger == "small"
    code, said, _ = call(*words, "--fpr", "0.05", "--resume")
    assert (code, "nothing was done" in said) == (ExitCode.CLEAN, True)


@pytest.mark.slow
def test_a_tagger_is_tuned_on_half_and_an_interrupt_costs_nothing(call, catalog, own, tmp_path, monkeypatch):
    words = ("fit-scanner", catalog, "--tagger", own, "--tune", "--steps", "6", "--out")
    code, said, err = call(*words, tmp_path / "whole", "--json")
    assert code == ExitCode.CLEAN, err
    told = json.loads(said)
    assert (told["titles"], told["tuned_on"], told["finished_before"]) == (80, 80, False)
    step = training_loop.TrainingLoop._report_and_save

    def interrupt(self):
        step(self)
        if self.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", interrupt)
    code, _, err = call(*words, tmp_path / "made")
    assert (code, "--resume" in err) == (ExitCode.INCOMPLETE, True)
    monkeypatch.setattr(training_loop.TrainingLoop, "_report_and_save", step)
    assert call(*words, tmp_path / "made")[0] == ExitCode.ERROR, "an unfinished fit is not passed over"
    assert call(*words, tmp_path / "made", "--resume")[0] == ExitCode.CLEAN
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")
    assert contents(own)["weights.safetensors"] != contents(tmp_path / "made" / "tagger")["weights.safetensors"]
    assert cowbird.load_scanner(tmp_path / "made").scanner.folder == tmp_path / "made" / "tagger"
    code, _, err = call(*words, tmp_path / "made", "--resume", "--seed", "1")
    assert (code, "other titles or with other options" in " ".join(err.split())) == (ExitCode.ERROR, True)


@pytest.mark.slow
def test_a_tagger_that_takes_contexts_still_does_when_it_is_tuned(call, catalog, tmp_path):
    pytest.importorskip("peft")
    own = save_tagger(tmp_path / "own", make_titles(60), context=64)
    words = ("fit-scanner", catalog, "--tagger", own, "--tune", "--steps", "1", "--out", tmp_path / "made")
    code, said, err = call(*words)
    assert code == ExitCode.CLEAN, err
    made = cowbird.load_scanner(tmp_path / "made")
    assert made.scanner.shows_context
    assert made.scanner.tagger.record.recipe["context"] == 64
    assert made.inventory.context
    shown = len(made.inventory.context.first) + len(made.inventory.context.second)
    assert f"The file holds {shown} of these titles" in " ".join(said.split())
    assert contents(own)["adapter.safetensors"] != contents(tmp_path / "made" / "tagger")["adapter.safetensors"]
    record = json.loads((own / "tagger.json").read_text())
    (own / "tagger.json").write_text(json.dumps(record | {"recipe": {"context": "many"}}))
    code, _, err = call(*words[:-1], tmp_path / "other")
    assert (code, "can't be trained further: its recipe is not valid" in " ".join(err.split())) == (
        ExitCode.ERROR,
        True,
    )


@pytest.mark.slow
def test_a_tuning_ends_when_its_time_is_over(call, catalog, own, tmp_path):
    words = ("fit-scanner", catalog, "--tagger", own, "--tune", "--steps", "5000", "--minutes", "0")
    assert call(*words, "--out", tmp_path / "made")[0] == ExitCode.CLEAN
    assert cowbird.load_scanner(tmp_path / "made").scanner.tagger.record.titles == 512, "one step"


def test_ones_own_tagger_travels_with_the_calibration(call, catalog, own, tmp_path):
    assert call("fit-scanner", catalog, "--out", tmp_path / "made", "--tagger", own)[0] == ExitCode.CLEAN
    moved = tmp_path / "moved"
    (tmp_path / "made").rename(moved)
    shutil.rmtree(own)
    polars.DataFrame({"title": make_titles(70, 1)}).write_csv(tmp_path / "new.csv")
    words = ("scan", tmp_path / "new.csv", "--scanner", moved, "--out")
    assert call(*words, tmp_path / "f.csv")[0] in (ExitCode.CLEAN, ExitCode.FINDINGS)
    (moved / "tagger" / "weights.safetensors").write_bytes(b"gone")
    code, _, err = call(*words, tmp_path / "g.csv")
    assert (code, "does not hold a small tagger" in err) == (ExitCode.ERROR, True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--rounds", "2"), "--rounds is for --p-scanner"),
        (("--agent", "openai"), "--agent is for --p-scanner"),
        (("--steps", "2"), "--steps is for --tune"),
        (("--p-scanner", "--tune"), "--tune is for the ready scanner"),
        (("--tagger", "gone"), "There is no tagger 'gone'"),
        (("--fpr", "2"), "between 0 and 1"),
        (("--review-fpr", "0.001"), "--review-fpr"),
    ],
)
def test_options_that_say_nothing_are_refused(call, catalog, tmp_path, more, said):
    code, _, err = call("fit-scanner", catalog, "--out", tmp_path / "made", *more)
    assert code == ExitCode.ERROR
    assert said in " ".join(err.split())
    assert not (tmp_path / "made").exists()


def test_too_few_titles_are_told(call, tmp_path):
    polars.DataFrame({"title": make_titles(70)}).write_csv(tmp_path / "few.csv")
    words = ("fit-scanner", tmp_path / "few.csv", "--out", tmp_path / "made", "--tagger", "small", "--tune")
    code, _, err = call(*words)
    assert code == ExitCode.ERROR
    assert "35 different ones are left to set thresholds by" in " ".join(err.split())


def test_an_old_or_foreign_folder_names_the_command(call, catalog, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "scanner.json").write_text('{"version": 5}')
    for folder in ("old", "gone"):
        code, _, err = call("scan", catalog, "--scanner", tmp_path / folder, "--out", tmp_path / "f.csv")
        assert (code, "cowbird fit-scanner" in " ".join(err.split())) == (ExitCode.ERROR, True)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "calibration.safetensors").write_bytes(b"x")
    code, _, err = call("scan", catalog, "--scanner", tmp_path / "made", "--out", tmp_path / "f.csv")
    assert (code, "cowbird fit-scanner" in " ".join(err.split())) == (ExitCode.ERROR, True)
