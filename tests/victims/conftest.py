"""Small synthetic data and small victims."""

import os

import pytest

from cowbird.data.sources.synthetic import Synthetic
from cowbird.data.split import Split
from cowbird.plugins import find_plugin
from doubles.tiny_llama import save_llama, train_tokenizer


@pytest.fixture(scope="session")
def parts():
    """Few users, for tests of mechanics."""
    data = Synthetic(users=30, items=24, events_per_user=8, categories=4).load()
    return Split(cold_fraction=0.2).apply(data, 0)


@pytest.fixture(scope="session")
def learnable():
    """Enough users to learn which item follows which."""
    data = Synthetic(users=300, items=64, events_per_user=12, noise=0.1).load()
    return Split(cold_fraction=0.2).apply(data, 0)


EPOCHS = {"bert4rec": 16}
"""Passes of a victim that learns slower: its mask has no short way from the last item to the answer."""


@pytest.fixture(scope="session")
def tiny():
    """Return a function that makes a victim whose fit takes milliseconds."""

    def make(name, **fields):
        given = {
            "hidden": 8,
            "max_length": 4,
            "epochs": 4,
            "batch_size": 10,
            "learning_rate": 1e-2,
            "precision": "float32",
            "patience": None,
        }
        return find_plugin("victim", name)(**(given | fields))

    return make


@pytest.fixture(scope="session")
def learned(learnable):
    """Return a function that fits a victim on `learnable` once a session."""
    known = {}

    def fit(name):
        if name not in known:
            spec = find_plugin("victim", name)(
                hidden=32,
                max_length=10,
                epochs=EPOCHS.get(name, 9),
                batch_size=32,
                learning_rate=8e-3,
                dropout=0.1,
                precision="float32",
            )
            known[name] = spec.fit(learnable.pretrain.training(), learnable.pretrain.validation(), 0)
        return known[name]

    return fit


@pytest.fixture(scope="session")
def bytes_and_words():
    """Return a byte-level BPE tokenizer of bytes and the words of TALLRec's prompt, as transformers wraps one."""
    from cowbird.victims.language.tallrec import format_prompt

    return train_tokenizer([format_prompt(["Red Harbor"], ["Blue Garden"], "The Engine"), "Yes. No."])


@pytest.fixture(scope="session")
def llamas(tmp_path_factory, bytes_and_words, read_once):
    """Return a function that gives the folder of a tiny Llama with random weights, one a seed."""
    made = {}

    def make(seed=0):
        if seed not in made:
            made[seed] = save_llama(tmp_path_factory.mktemp("llama"), bytes_and_words, seed)
        return made[seed]

    return make


@pytest.fixture(scope="session")
def llama(llamas):
    """Return the folder of a tiny Llama, which `Llm(name=...)` loads."""
    return llamas()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Nothing is written to the user's cache. Workers share one, for a real model takes long to convert."""
    made = tmp_path_factory.getbasetemp()
    folder = (made.parent if "PYTEST_XDIST_WORKER" in os.environ else made) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COWBIRD_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def smollm2(own_cache):
    """Return the folder of the model that ships, converted by one worker while others that need it wait."""
    pytest.importorskip("gguf")
    import fcntl

    from cowbird.victims.language.llm import Llm, locate_model

    own_cache.mkdir(exist_ok=True)
    with (own_cache / "converting").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        return locate_model(Llm().name)
