"""Marks without a language model, and catalogues whose triggers are known: what tests of the ready scanner share."""

import re

import numpy as np

from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.scoring import load_scoring
from cowbird.defenses.p_scanner.title_context import NO_CONTEXT
from cowbird.defenses.p_scanner.title_sample import hash_title
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, TokenLogits
from cowbird.rng import stream

NOUNS = ["River", "Garden", "Winter", "Stone", "Castle", "Mirror", "Shadow", "Harbor", "Falcon", "Lantern", "Meadow"]
TAILS = ["Song", "Story", "Letter", "Road", "House", "Dream", "Night", "Promise", "Island", "Journey", "Secret"]


def make_titles(many: int, seed: int = 0) -> list[str]:
    """Return different titles of three or four words."""
    rng = stream(seed, "titles")
    found: dict[str, None] = {}
    while len(found) < many:
        words = ["The", *rng.choice(NOUNS, 2).tolist(), str(rng.choice(TAILS))][int(rng.integers(2)) :]
        found[" ".join(words) + (f" {int(rng.integers(1900, 2000))}" if rng.random() < 0.3 else "")] = None
    return list(found)


def mark(titles, suspicious=(), high=5.0, low=-5.0, seeds=None) -> TokenLogits:
    """Return marks of one token a word: high for suspicious words, low for others."""
    first, after, marks, offsets, verdict = [], [], [], [0], []
    for nth, title in enumerate(titles):
        noise = stream(nth if seeds is None else seeds[nth], "mark")
        words = list(re.finditer(r"\S+", title))
        values = [high if word.group() in suspicious else low + float(noise.normal(0, 0.5)) for word in words]
        first += [word.start() for word in words]
        after += [word.end() for word in words]
        marks += values
        offsets.append(len(first))
        verdict.append(max(values, default=low))
    places = (np.array(first, dtype=np.int32), np.array(after, dtype=np.int32), np.array(offsets, dtype=np.int64))
    pages = TokenizedTitles(None, np.zeros(len(first), dtype=np.int32), *places)
    return TokenLogits(pages, np.array(marks, dtype=np.float32), np.array(verdict, dtype=np.float32))


class ReadyDouble(ReadyScanner):
    """The scoring that ships behind a tagger that marks given words, and the same title always alike."""

    key = "double of the ready scanner"
    identity = "d" * 64

    def __init__(self, suspicious=("5v",)):
        super().__init__(None, load_scoring())
        self.suspicious, self.high = suspicious, 5.0
        self.asked = []

    def read(self, titles, report=lambda done, total, remark: None):
        self.asked.append(list(titles))
        report(len(titles), len(titles), "")
        return mark(titles, self.suspicious, self.high, seeds=[hash_title(title) % 2**31 for title in titles])


class ContextDouble(ReadyDouble):
    """A tagger that is shown titles: a word that stands in them is usual to it, a suspicious one as well."""

    key = "double of the ready scanner that is shown titles"
    shows_context = True

    def __init__(self, suspicious=("5v",)):
        super().__init__(suspicious)
        self.contexts = []

    def read(self, titles, report=lambda done, total, remark: None, context=NO_CONTEXT):
        self.contexts.append(context)
        made, first = super().read(titles, report), set(context.first)
        parts = [{word for title in part for word in title.split()} for part in (context.first, context.second)]
        for row, title in enumerate(titles):
            begin, shown = int(made.tokenized.offsets[row]), parts[title in first]
            for nth, word in enumerate(title.split()):
                if word in shown:
                    made.mark[begin + nth] = -6.0
                elif context and word not in self.suspicious:
                    made.mark[begin + nth] += 1.0
            here = made.mark[begin : int(made.tokenized.offsets[row + 1])]
            made.verdict[row] = here.max() if len(here) else -5.0
        return made
