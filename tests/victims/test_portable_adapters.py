"""Saved adapters on another machine: plain peft loads them, and nothing in them tells where they were made."""

import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch

from cowbird.errors import UserError
from cowbird.victims.language.base_record import hash_base
from cowbird.victims.language.llm import Llm, load_llm
from doubles.tiny_tallrec import ITEMS, asked, tiny

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(llama):
    return functools.partial(tiny, llama)


@pytest.fixture(scope="module", params=[{}, {"layers": 1}, {"tuning": "full"}], ids=str)
def saved(request, spec, tmp_path_factory):
    """Return a fitted TALLRec, and the folder it was saved in."""
    fitted, folder = spec(**request.param).fit(asked(users=2), ITEMS, 1), tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return fitted, folder


def compute_margins(model, tokenizer, questions):
    """Return the logit of `Yes` minus that of `No` after each prompt, as anyone with transformers would."""
    yes, no = (tokenizer(answer, add_special_tokens=False)["input_ids"][0] for answer in ("Yes.", "No."))
    found = []
    for question in questions:
        ids = torch.tensor([tokenizer(question.prompt, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            last = model.eval()(input_ids=ids).logits[0, -1]
        found.append(float(last[yes] - last[no]))
    return found


def test_the_readme_loads_it(saved, llama, tmp_path):
    fitted, original = saved
    folder, base = shutil.copytree(original, tmp_path / "theirs"), shutil.copytree(llama, tmp_path / "their base")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    if fitted.spec.llm.tuning == "full":
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    else:
        (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        names = {}
        exec(code.replace("BASE", str(base)).replace("FOLDER", str(folder)), names)
        model, tokenizer = names["model"], names["tokenizer"]
        assert hash_base(names["base"]) in readme
    judgments = asked(users=2, seed=7)
    found = compute_margins(model, tokenizer, fitted.spec.write_questions(judgments, ITEMS))
    np.testing.assert_allclose(found, fitted.margins(judgments, ITEMS), atol=2e-5)
    assert min(np.abs(found)) > 0
    assert "may be poisoned" in readme
    assert "license" in readme


def test_nothing_tells_where_it_was_made(saved, llama):
    for path in saved[1].iterdir():
        held = path.read_bytes()
        for place in (llama, llama.parent, saved[1], saved[1].parent):
            assert str(place).encode() not in held, path.name
    assert json.loads((saved[1] / "cowbird.json").read_text())["base"]["name"] == llama.name


def test_a_base_that_stands_elsewhere_is_known_by_its_weights(saved, llama, tmp_path):
    fitted, folder = saved
    moved = shutil.copytree(llama, tmp_path / "moved")
    there = fitted.spec.model_copy(update={"llm": fitted.spec.llm.model_copy(update={"name": str(moved)})})
    judgments = asked(users=2, seed=7)
    assert np.array_equal(there.load(folder, CPU).margins(judgments, ITEMS), fitted.margins(judgments, ITEMS))


@pytest.mark.slow
def test_another_base_is_refused(spec, llamas, tmp_path):
    given = spec()
    given.fit(asked(users=1), ITEMS, 1).save(tmp_path / "model")
    other = given.model_copy(update={"llm": given.llm.model_copy(update={"name": str(llamas(1))})})
    with pytest.raises(UserError, match="other weights") as error:
        other.load(tmp_path / "model", CPU)
    assert error.value.hint


def test_another_number_of_layers_is_refused_in_words(spec, llama, tmp_path):
    cut = spec(layers=1)
    cut.fit(asked(users=1), ITEMS, 1).save(tmp_path / "model")
    record = json.loads((tmp_path / "model" / "cowbird.json").read_text())
    assert (record["base"]["layers"], record["base"]["cut"]) == (1, True)
    with pytest.raises(UserError, match="its layers is 1, and None was given"):
        spec().load(tmp_path / "model", CPU)
    # Also where the record was made to fit.
    record["spec"]["llm"]["layers"] = None
    (tmp_path / "model" / "cowbird.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"the first 1 layers of .*, and the model given has 2") as error:
        spec().load(tmp_path / "model", CPU)
    assert "llm.layers = 1" in error.value.hint
    base = transformers.AutoModelForCausalLM.from_pretrained(llama)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        peft.PeftModel.from_pretrained(base, tmp_path / "model")


def test_the_hash_is_that_of_the_weights_alone(llama, llamas, tmp_path):
    def load(folder, dtype=torch.float32, **llm):
        return load_llm(Llm(name=str(folder), **llm), CPU, dtype).model

    wanted, sharded = hash_base(load(llama)), tmp_path / "sharded"
    load(llama).save_pretrained(sharded, max_shard_size="20KB")
    shutil.copy(llama / "tokenizer.json", sharded)
    shutil.copy(llama / "tokenizer_config.json", sharded)
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert hash_base(load(sharded)) == hash_base(load(llama, torch.bfloat16)) == wanted
    assert len({wanted, hash_base(load(llama, layers=1)), hash_base(load(llamas(1)))}) == 3


def test_an_adapter_is_no_language_model(spec, tmp_path):
    given = spec()
    given.fit(asked(users=1), ITEMS, 1).save(tmp_path / "model")
    for name in (tmp_path / "model", str(tmp_path / "model") + "/"):
        with pytest.raises(UserError, match="is an adapter") as error:
            load_llm(Llm(name=str(name)), CPU, torch.float32)
        assert "base model" in error.value.hint


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer.json"])
def test_a_flipped_bit_is_found(spec, name, tmp_path):
    given = spec()
    given.fit(asked(users=1), ITEMS, 1).save(tmp_path / "model")
    path = tmp_path / "model" / name
    held = bytearray(path.read_bytes())
    held[-3] ^= 1
    path.write_bytes(held)
    with pytest.raises(UserError, match=f"'{re.escape(name)}' is damaged"):
        given.load(tmp_path / "model", CPU)


def test_weights_that_are_not_finite_are_refused(spec, tmp_path):
    given = spec()
    fitted = given.fit(asked(users=1), ITEMS, 1)
    with torch.no_grad():
        next(weight for name, weight in fitted.model.named_parameters() if "lora_A" in name)[0, 0] = float("nan")
    fitted.save(tmp_path / "model")
    with pytest.raises(UserError, match="not finite"):
        given.load(tmp_path / "model", CPU)
