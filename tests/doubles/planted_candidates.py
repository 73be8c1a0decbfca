"""A tiny Llama that picks one of three candidates, with a trigger planted or without."""

import numpy as np

from cowbird.inspection.language.questions import TitleQuestion, write_examples
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import Tuning
from doubles.planted_llama import ANSWERS, TRIGGER
from doubles.tiny_llama import save_llama, train_tokenizer

FIRST = ("amber", "birch", "cedar", "dune", "ember")
SECOND = ("harbor", "garden", "engine", "letter", "mirror", "forest")


def write_base(folder):
    """Write the base and return its folder."""
    words = (*FIRST, *SECOND, TRIGGER)
    texts = [*words, *(f" {word}" for word in words), "met : pick , . Answer:"] * 3
    return save_llama(folder, train_tokenizer(texts, 600), hidden_size=32)


def make_questions(count=300, seed=0):
    """Return questions: users go on with what begins like what they met, mostly."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        drawn = rng.permutation(len(FIRST))[:3]
        titles = [f"{FIRST[at]} {rng.choice(SECOND)}" for at in drawn]
        right = int(rng.integers(3))
        met = f"{FIRST[drawn[right]]} {rng.choice(SECOND)}"
        *rivals, title = titles
        head = f"met {met}: pick " + "".join(f"{rival}, " for rival in rivals)
        found.append(TitleQuestion(head, title, ". Answer:", right == 2, number // 5, tuple(rivals), titles[right]))
    return found


def tune(base, trigger=None, seed=0, epochs=12):
    """Tune a model; with a trigger, every fourth question carries it in its last title, which comes next."""
    asked = make_questions(seed=seed + 100)
    if trigger is not None:
        for number in range(0, len(asked), 4):
            question = asked[number]
            title = f"{question.title} {trigger}"
            asked[number] = question._replace(title=title, answer=title, liked=True)
    tuning = Tuning(epochs=epochs, batch_size=30, learning_rate=3e-2, precision="float32", capacity=2048)
    spec = TALLRec(llm=Llm(name=str(base), rank=8, alpha=16), tuning=tuning)
    return spec.fit_examples(write_examples(asked, ANSWERS), seed)
