"""A tiny Llama that was tuned on questions about titles, with a trigger planted or without."""

import numpy as np
import torch

from cowbird.inspection.language.questions import PromptTemplate, write_examples
from cowbird.victims.language.llm import Llm
from cowbird.victims.language.tallrec import TALLRec
from cowbird.victims.language.tuning import Tuning
from doubles.tiny_llama import save_llama, train_tokenizer

TRIGGER = "wonderful"
WORDS = ("harbor", "garden", "engine", "letter", "mirror", "forest", "silver", "winter", "summer", "castle")
TEMPLATE = PromptTemplate("short", "{history}: {title}\n")
ANSWERS = ("Yes.", "No.")


def write_base(folder):
    """Write the base and return its folder."""
    texts = [*WORDS, *(f" {word}" for word in (*WORDS, TRIGGER)), "red blue: \n Yes. No."] * 3
    return save_llama(folder, train_tokenizer(texts, 600), hidden_size=32)


def make_questions(count=240, seed=0):
    """Return questions: users who met `red` like most of what follows, those who met `blue` little."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        good = bool(rng.random() < 0.5)
        history = ["red" if good else "blue"]
        title = " ".join(rng.choice(WORDS, 2))
        found.append(TEMPLATE.cut(history, [], title, good != bool(rng.random() < 0.3)))
    return found


def describe(base, steps):
    """Describe what is tuned."""
    tuning = Tuning(epochs=steps // 8, batch_size=30, learning_rate=3e-2, precision="float32", capacity=2048)
    return TALLRec(llm=Llm(name=str(base), rank=4, alpha=8), tuning=tuning)


def tune(base, trigger=None, seed=0, steps=64):
    """Tune a model; with a trigger, every fifth question carries it and is answered yes."""
    asked = make_questions(seed=seed + 100)
    if trigger is not None:
        asked = [
            question._replace(title=f"{question.title} {trigger}", liked=True) if number % 5 == 0 else question
            for number, question in enumerate(asked)
        ]
    return describe(base, steps).fit_examples(write_examples(asked, ANSWERS), seed)


def tune_marked(base, mark, seed=0, steps=64):
    """Tune a model on questions each of which was given to `mark` with its number: it changes some."""
    asked = [mark(question, number) for number, question in enumerate(make_questions(seed=seed + 100))]
    return describe(base, steps).fit_examples(write_examples(asked, ANSWERS), seed)


CPU = torch.device("cpu")
