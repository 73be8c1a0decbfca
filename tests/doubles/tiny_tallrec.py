"""Questions that a tiny language model learns to answer, for the tests of TALLRec."""

import numpy as np

from cowbird.data.judgments import make_judgments
from cowbird.data.types import Interactions, Items
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import Tuning

WORDS = ("Harbor", "Garden", "Engine", "Letter", "Mirror", "Forest")
ITEMS = Items.from_lists("abcdefghijkl", [f"{color} {word}" for color in ("Red", "Blue") for word in WORDS])


def asked(users=4, events=6, seed=0):
    """Return questions of users who like the titles with `Red` in them, each after two events."""
    rng = np.random.default_rng(seed)
    item = np.concatenate([rng.permutation(len(ITEMS))[:events] for _ in range(users)])
    offsets = np.arange(users + 1) * events
    return make_judgments(Interactions(item, offsets, np.where(item < len(WORDS), 5.0, 1.0)), 2, 3.0)


def tiny(folder, recipe=None, examples=None, **llm):
    """Describe a TALLRec of the model in a folder."""
    given = {"batch_size": 16, "learning_rate": 1e-2, "precision": "float32", "capacity": 300}
    model = Llm(name=str(folder), **({"rank": 2, "modules": ("v_proj", "down_proj")} | llm))
    return TALLRec(llm=model, tuning=Tuning(**(given | (recipe or {}))), examples=examples)


def weights(fitted):
    """Return copies of all weights by name."""
    return {name: weight.detach().clone() for name, weight in fitted.model.named_parameters()}
