"""TALLRec's files, and fits that go on from a provider's adapter."""

import functools
import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch

from cowbird.errors import OutageError, UserError
from doubles.tiny_tallrec import ITEMS, asked, tiny, weights

pytestmark = pytest.mark.slow

pytest.importorskip("transformers")
pytest.importorskip("peft")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(llama):
    return functools.partial(tiny, llama)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("llm", [{}, {"layers": 1}, {"tuning": "full", "layers": 1}], ids=str)
def test_save_and_load(spec, llm, precision, tmp_path):
    given, judgments = spec({"precision": precision}, **llm), asked(users=2, seed=7)
    fitted = given.fit(asked(users=2), ITEMS, 1)
    fitted.save(tmp_path / "new" / "model")
    loaded = given.load(tmp_path / "new" / "model", CPU)
    assert np.array_equal(loaded.margins(judgments, ITEMS), fitted.margins(judgments, ITEMS))
    assert not loaded.model.training
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]
    assert not list(tmp_path.rglob("*.bin")), "nothing is pickled"


def test_a_save_that_fails_leaves_the_older_one(spec, fitted, tmp_path, monkeypatch):
    folder, judgments = tmp_path / "model", asked(users=2)
    wanted, other = fitted.margins(judgments, ITEMS), spec().fit(judgments, ITEMS, 2)

    def fail(*args, **more):
        raise OSError("the disk is full")

    for older in (False, True):
        with monkeypatch.context() as broken:
            broken.setattr(type(other.loaded.tokenizer), "save_pretrained", fail)
            with pytest.raises(OutageError, match="full"):
                other.save(folder)
        assert folder.exists() == older
        fitted.save(folder)
        assert np.array_equal(spec().load(folder, CPU).margins(judgments, ITEMS), wanted)
        assert list(tmp_path.iterdir()) == [folder]
    other.save(folder)
    assert np.array_equal(spec().load(folder, CPU).margins(judgments, ITEMS), other.margins(judgments, ITEMS))


@pytest.fixture(scope="module")
def fitted(spec):
    return spec().fit(asked(), ITEMS, 1)


@pytest.fixture(scope="module")
def original(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return folder


def test_a_save_is_quiet_where_the_base_lies_nowhere_any_more(spec, tmp_path):
    """As a base does that was made of a GGUF file in a temporary folder."""
    made = spec().fit(asked(users=2), ITEMS, 1)
    for config in made.loaded.model.peft_config.values():
        config.base_model_name_or_path = str(tmp_path / "gone")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made.save(tmp_path / "model")


def test_a_saved_model_is_readable_as_the_umask_says(fitted, tmp_path):
    """Libraries write some files for their owner alone, and a folder is for whoever may read it."""
    before = os.umask(0o027)
    try:
        fitted.save(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*")}
    assert len(modes) > 3
    assert set(modes.values()) == {0o640}, modes
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750


def test_a_save_follows_no_link_that_somebody_laid(fitted, tmp_path):
    """The name under which a model is written first can't be guessed."""
    (tmp_path / "mine").write_text("precious")
    laid = tmp_path / ".model.partial"
    laid.mkdir()
    for name in ("adapter_config.json", "tokenizer.json", "README.md"):
        (laid / name).symlink_to(tmp_path / "mine")
    fitted.save(tmp_path / "model")
    assert (tmp_path / "mine").read_text() == "precious"
    assert len(list(laid.iterdir())) == 3
    assert not list((tmp_path / "model").glob("*.partial"))


@pytest.fixture
def saved(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


@pytest.mark.parametrize("llm", [{"rank": 3}, {"layers": 1}, {"tuning": "full"}, {"name": "other"}], ids=str)
def test_another_language_model_is_refused(spec, saved, llm):
    spec({"epochs": 9}).load(saved, CPU)  # no part of the model
    given = spec()
    with pytest.raises(UserError, match="does not hold"):
        given.model_copy(update={"llm": given.llm.model_copy(update=llm)}).load(saved, CPU)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"victim": "TALLRec", "spec": {"llm": 3}}', '{"victim": 1}'])
def test_a_damaged_record_is_a_user_error(spec, saved, text):
    (saved / "cowbird.json").unlink()
    if text is not None:
        (saved / "cowbird.json").write_text(text)
    with pytest.raises(UserError, match="does not hold"):
        spec().load(saved, CPU)


def damage(folder, how):
    """Harm a saved adapter."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    held = load_file(path)
    if how == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "gone":
        path.unlink()
    elif how == "pickled":
        path.unlink()
        torch.save(held, folder / "adapter_model.bin")
    elif how == "incomplete":
        save_file({name: tensor for name, tensor in held.items() if "lora_B" not in name}, path)
    else:
        save_file(held | {"base_model.model.model.norm.weight": torch.zeros(32)}, path)


@pytest.mark.parametrize("how", ["cut short", "gone", "pickled", "incomplete", "of other layers"])
def test_a_damaged_adapter_is_a_user_error(spec, saved, how):
    damage(saved, how)
    with pytest.raises(UserError):
        spec().load(saved, CPU)


@pytest.mark.parametrize("change", [{"r": 3}, {"r": "x"}, {"lora_alpha": 1}, {"init_lora_weights": "pissa"}], ids=str)
def test_no_adapter_config_makes_it_another_model(spec, fitted, saved, change):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    try:
        found = spec().load(saved, CPU)
    except UserError:
        return
    judgments = asked(users=2)
    assert np.array_equal(found.margins(judgments, ITEMS), fitted.margins(judgments, ITEMS))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_not_a_model_is_not_replaced(fitted, what, tmp_path):
    path = tmp_path / "thesis"
    if what == "folder":
        path.mkdir()
    precious = path / "chapter" if what == "folder" else path
    precious.write_text("years of work")
    with pytest.raises(UserError):
        fitted.save(path)
    assert precious.read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


# Going on from a provider's adapter


@pytest.mark.parametrize("llm", [{}, {"tuning": "full"}], ids=str)
@pytest.mark.parametrize("read", [False, True])
def test_a_fit_goes_on_from_another(spec, llm, read, tmp_path):
    judgments = asked(users=2)
    start = spec(**llm).fit(judgments, ITEMS, 1)
    before = weights(start)
    if read:
        start.save(tmp_path / "model")
        start = spec(**llm).load(tmp_path / "model", CPU)
    found = weights(spec({"learning_rate": 1e-9}, **llm).fit(judgments, ITEMS, 2, start=start))
    for name, weight in found.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-7)
        assert weights(start)[name].equal(before[name]), "the start is left alone"
    on = weights(spec(**llm).fit(judgments, ITEMS, 2, start=start))
    assert all(not weight.equal(before[name]) for name, weight in on.items() if llm or "lora_" in name)


@pytest.mark.parametrize(
    "llm", [{"rank": 3}, {"tuning": "full"}, {"modules": ("q_proj",)}, {"layers": 1}, {"alpha": 1.0}], ids=str
)
def test_a_start_from_another_model_is_refused(spec, llm):
    start = spec(**llm).fit(asked(users=1), ITEMS, 1)
    with pytest.raises(UserError) as error:
        spec().fit(asked(users=1), ITEMS, 1, start=start)
    assert error.value.hint
