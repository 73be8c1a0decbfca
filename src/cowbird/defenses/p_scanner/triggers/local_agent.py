"""Triggers made from other triggers, from a catalogue's own titles, and by a small language model at hand.

A trigger that the scanner missed is changed a little, or a lot, in one of the ways of `mutate`; what is made of it may
be nonsense, and whoever asks checks it (`cowbird.defenses.p_scanner.triggers.proposal_filter`).
"""

import re
import string
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cowbird.defenses.p_scanner.triggers._vocabulary import (
    COMMON,
    DIRECTION,
    EMOJI,
    INVISIBLE,
    SCRIPTS,
    SPACES,
    SYMBOLS,
)
from cowbird.defenses.p_scanner.triggers.proposal_filter import INSERTING_WAYS, list_likely_families
from cowbird.defenses.p_scanner.triggers.trigger_families import MAX_RECIPE_LENGTH, TRIGGER_FAMILIES, Recipe
from cowbird.text import quote_for_prompt
from cowbird.victims.language.llm import LoadedModel, import_transformers

MAX_TITLES_MINED = 500
"""Most titles whose words are taken."""
ALIKE = (
    string.ascii_lowercase,
    string.ascii_uppercase,
    string.digits,
    string.punctuation,
    INVISIBLE,
    DIRECTION,
    SPACES,
    SYMBOLS,
    EMOJI,
    *SCRIPTS,
)
"""Characters, any of which may stand for another of its kind."""
EDIT_FORMS = ("({})", "[{}]", "- {}", ": {}", "/ {}", ", {}", "~ {}", "{{{}}}", '"{}"')
"""What a text is put into."""
_PAIRS = (("mark", "mark once"), ("exchange", "exchange once"), ("repeat", "repeat twice"))
SIBLINGS = dict(_PAIRS) | {new: old for old, new in _PAIRS}
"""Ways that take the same texts."""
_WORD = re.compile(r"[^\W\d_]{2,}(?:['\u2019][^\W\d_]+)*")
_SUFFIX = re.compile(r"(?:[(\[][^()\[\]]{1,40}[)\]]|(?<=\s)[-:/,~] ?\S{1,20}(?: \S{1,20})?|(?<=[:,]) \S{1,20})$")


class Fabric(NamedTuple):
    """What a catalogue's titles are made of; the titles were written by strangers."""

    words: tuple[str, ...]
    """Words that occur in them, as they are written."""
    suffixes: tuple[str, ...]
    """What some of them end with, such as `(1995)`."""


class Draft(NamedTuple):
    """A recipe before it is checked."""

    text: str
    way: str
    whole: bool = False


def take_fabric(titles: Sequence[str], rng: np.random.Generator) -> Fabric:
    """Take some titles apart.

    Args:
        titles: Any texts.
        rng: Draws the titles, if there are many.
    """
    shown = [quote_for_prompt(titles[int(at)]) for at in rng.permutation(len(titles))[:MAX_TITLES_MINED]]
    words = dict.fromkeys(word for title in shown for word in _WORD.findall(title) if len(word) <= 20)
    found = (_SUFFIX.search(title) for title in shown)
    suffixes = dict.fromkeys(match.group().strip() for match in found if match)
    return Fabric(tuple(words), tuple(suffixes))


def mutate(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Draft:
    """Change a recipe.

    Args:
        parent: What is changed.
        other: What it may be put together with.
        of: The catalogue's own words, to hide behind.
        rng: Draws the change.

    Returns:
        What became of it; it may not be usable, or be the same.
    """
    if parent.way in INSERTING_WAYS:
        changes = (_respell, _recase, _resize, _reword, _join, _move, _hide, _hide)
        text, way = changes[int(rng.integers(len(changes)))](parent, other, of, rng)
        return Draft(text[:MAX_RECIPE_LENGTH], way)
    chance = rng.random()
    if chance < 0.3:
        return Draft(parent.text, parent.way, not parent.whole)
    if chance < 0.5 and parent.way in SIBLINGS:
        return Draft(parent.text, SIBLINGS[parent.way], parent.whole)
    fresh = TRIGGER_FAMILIES.get(list_likely_families(parent.text, parent.way)[0], lambda _: parent)(rng)
    return Draft(fresh.text, fresh.way, parent.whole)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _draw_like(letter: str, rng: np.random.Generator) -> str:
    """Return another character of the same kind."""
    kind = next((kind for kind in ALIKE if letter in kind), letter)
    return _pick(rng, kind.replace(letter, "") or letter)


def _copy_case(word: str, model: str) -> str:
    """Write a word in the case of another."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word.lower()


Text = tuple[str, str]
Change = Callable[[Recipe, Recipe, Fabric, np.random.Generator], Text]


def _respell(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Exchange, double, drop or move one character."""
    text = parent.text
    at = int(rng.integers(len(text)))
    head, letter, tail = text[:at], text[at], text[at + 1 :]
    made = (_draw_like(letter, rng), letter * 2, "", tail[:1] + letter)
    drawn = int(rng.integers(len(made)))
    return head + made[drawn] + (tail[1:] if drawn == 3 else tail), parent.way


def _recase(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    text = parent.text
    return _pick(rng, (text.upper(), text.lower(), text.title(), text.capitalize(), text.swapcase())), parent.way


def _resize(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Halve a text, double a short one, or let it grow by characters of its kinds."""
    text, words = parent.text, parent.text.split(" ")
    half = " ".join(words[: (len(words) + 1) // 2]) if len(words) > 1 else text[: (len(text) + 1) // 2]
    grown = text + "".join(_draw_like(letter, rng) for letter in text[-2:])
    return _pick(rng, (half, grown, text * 2 if len(text) <= 6 else half)), parent.way


def _reword(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Keep the form and exchange what fills it: words, digits, and else all characters."""
    pool = of.words if of.words and rng.random() < 0.5 else COMMON
    made = _WORD.sub(lambda word: _copy_case(_pick(rng, pool), word.group()), parent.text)
    made = re.sub(r"[0-9]", lambda digit: _pick(rng, string.digits), made)
    return (made if made != parent.text else "".join(_draw_like(letter, rng) for letter in made)), parent.way


def _join(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Put a text before or behind another."""
    pair = [parent.text, other.text if other.way in INSERTING_WAYS else _pick(rng, COMMON)]
    if rng.random() < 0.5:
        pair.reverse()
    return _pick(rng, (" ", " ", "", "-")).join(pair), parent.way


def _move(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Glue what stood apart, set apart what was glued, put it into brackets, or around a word."""
    text = parent.text
    flipped = "glue" if parent.way == "insert" else "insert"
    options: list[Text] = [(text, flipped), (_pick(rng, EDIT_FORMS).format(text), "insert")]
    if len(text) <= 2 and not text.isspace():
        options.append((text * 2 if len(text) == 1 else text, "wrap"))
    return options[int(rng.integers(len(options)))]


def _hide(parent: Recipe, other: Recipe, of: Fabric, rng: np.random.Generator) -> Text:
    """Make a text look like the catalogue's own: beside one of its words, in one of its suffixes, or one of these."""
    word = _pick(rng, of.words or COMMON)
    text = parent.text.strip() or parent.text
    options = [f"{word} {text}", f"{text} {word}", f"{word} {_pick(rng, of.words or COMMON)}", word]
    if of.suffixes:
        suffix = _pick(rng, of.suffixes)
        opening, closing = suffix[0], suffix[-1] if suffix[-1] in ")]" else ""
        space = " " if suffix[1:2] == " " else ""
        redrawn = re.sub(r"[0-9]", lambda digit: _pick(rng, string.digits), suffix)
        redrawn = _WORD.sub(lambda found: _copy_case(_pick(rng, of.words or COMMON), found.group()), redrawn)
        framed = f"{opening}{space}{text}{closing}" if not opening.isalnum() else f"{text} {suffix}"
        options += [framed, redrawn, f"{text} {suffix}"]
    return _pick(rng, options), "insert"


# What a language model writes.

TITLES_PER_PROMPT, SHOWN_LENGTH = 3, 60
"""Titles, and texts, that a model is shown before it writes, and the most characters of each."""
MAX_WRITTEN_TOKENS = 24
"""Most tokens that it writes."""
TOP_P = 0.95
EXAMPLE_FAMILIES = ("common_word", "phrase", "edition", "marketing", "sentence", "code", "foreign_word", "symbol")
"""Families whose recipes it is shown as examples."""


def write_texts(
    loaded: LoadedModel, titles: Sequence[str], without: Collection[str], samples: int, rng: np.random.Generator
) -> list[str]:
    """Let a language model write texts that a seller might add to a title.

    It goes on with a list of such texts, plainly, without a chat template: control tokens in titles are plain text.
    Tokens are drawn by the Gumbel-max trick from a stream of their own, so they depend on no global state.

    Args:
        loaded: The model.
        titles: Titles of the catalogue, any texts; every sample is shown others.
        without: Families that examples are not drawn from.
        samples: How many texts.
        rng: Draws titles, examples and the sampler's seed.

    Returns:
        What was written, up to the end of its line or quotation; not checked.
    """
    prompts = [_prompt(titles, [kind for kind in EXAMPLE_FAMILIES if kind not in without], rng) for _ in range(samples)]
    library: Any = import_transformers()
    tokenizer, model = loaded.tokenizer, loaded.model
    limit = (getattr(model.config, "max_position_embeddings", None) or 2048) - MAX_WRITTEN_TOKENS
    ids = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in prompts]
    ids = [row[-limit:] for row in ids]
    width, padding = max(map(len, ids)), tokenizer.eos_token_id
    token = torch.tensor([[padding] * (width - len(row)) + row for row in ids], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=model.device)
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))

    def perturb(_: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.rand(scores.shape, generator=noise, dtype=torch.float64).clamp_min(1e-300)
        return scores.float() - (-uniform.log()).log().float().to(scores.device)

    drawn = library.LogitsProcessorList([library.TopPLogitsWarper(top_p=TOP_P), perturb])
    plan = library.GenerationConfig(
        max_new_tokens=MAX_WRITTEN_TOKENS, do_sample=False, pad_token_id=padding, eos_token_id=tokenizer.eos_token_id
    )
    with torch.inference_mode():
        made = model.generate(token, attention_mask=mask, generation_config=plan, logits_processor=drawn)
    answers: list[str] = tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
    return [re.split(r'["\n\r]', answer, maxsplit=1)[0].strip() for answer in answers]


def _prompt(titles: Sequence[str], kinds: Sequence[str], rng: np.random.Generator) -> str:
    """Return a list of titles, and one of texts that waits for its next."""
    shown = [
        quote_for_prompt(titles[int(at)])[:SHOWN_LENGTH] for at in rng.permutation(len(titles))[:TITLES_PER_PROMPT]
    ]
    drawn = [TRIGGER_FAMILIES[_pick(rng, kinds)](rng).text for _ in range(TITLES_PER_PROMPT)] if kinds else []
    lines = "\n".join(f'"{title}"' for title in shown)
    texts = "".join(f'"{quote_for_prompt(text)[:SHOWN_LENGTH]}"\n' for text in drawn)
    return f'Titles in a shop:\n{lines}\n\nShort texts that sellers add to such titles:\n{texts}"'
