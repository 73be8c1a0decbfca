"""LLaRA-like questions: which of these candidates comes next? A fragment is put into the last candidate's title.

A question is made of a history and candidates, one of which came next. The last one is the one that is asked about:
the model picks it, or one of its rivals. Candidates of a question begin differently, in their first two letters, so the
first token of an answer tells which one it is. That is how the platform's own questions are asked; no model depends on
it. Prompts are text alone: item embeddings, which LLaRA's hybrid prompts hold as well, are left out.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np

from cowbird.data.types import Dataset, IntArray
from cowbird.errors import UserError
from cowbird.inspection.language.questions import (
    MAX_LOG_QUESTIONS,
    PromptTemplate,
    TitleQuestion,
    ask_logs,
    fill_fields,
)
from cowbird.rng import stream
from cowbird.victims.language.prompts import (
    CANDIDATES_PLACEHOLDER,
    HISTORY_PLACEHOLDER,
    ItemDomain,
    format_templates,
    format_title,
)

MAX_CANDIDATES = 20
"""Candidates of a question at most; fewer where the catalogue has fewer beginnings of titles."""
DRAWN_ITEMS = 400
"""Items that are drawn for a question, to find candidates that begin differently."""
BEGINNING = 2
"""Letters in which candidates differ."""


def ask_platform(log: Dataset, template: PromptTemplate, history: int = 10) -> list[TitleQuestion]:
    """Make a question of every event with enough events before it, as a prompt asks: about a title, or of candidates.

    Args:
        log: The platform's interactions, with titles.
        template: The prompt.
        history: Events before each question.

    Raises:
        UserError: If the logs lack what the prompt needs; see `ask_candidates` and `questions.ask_logs`.
    """
    return (ask_candidates if template.kind == "candidates" else ask_logs)(log, template, history)


def write_candidate_prompt(template: PromptTemplate, candidates: int) -> str:
    """Return a prompt with the fields `{history}` and `{candidates}`.

    Raises:
        UserError: If the published prompt has no words for such items.
    """
    if template.text:
        return template.text
    domains: dict[str, ItemDomain] = {name: name for name in get_args(ItemDomain)}
    if template.noun not in domains:
        raise UserError(
            f"LLaRA's prompt is worded for {', '.join(domains)}, and not for '{template.noun}'.",
            "Give --noun one of them, or --template FILE.txt with {history} and {candidates}.",
        )
    published = format_templates(domains[template.noun], candidates)[0]
    return published.replace(HISTORY_PLACEHOLDER, "{history}").replace(CANDIDATES_PLACEHOLDER, "{candidates}")


def ask_candidates(data: Dataset, template: PromptTemplate, history: int = 10, seed: int = 0) -> list[TitleQuestion]:
    """Make a question of every event with enough events before it.

    Args:
        data: Interactions in the order of time, and titles. Ratings are not needed.
        template: The prompt.
        history: Events before each question.
        seed: Decides candidates, their order, and which questions are drawn if there are too many.

    Raises:
        UserError: If there are no titles, nobody has enough events, or all titles begin alike.
    """
    known, titles = data.interactions, [format_title(title) for title in data.items.titles]
    if not any(data.items.titles):
        raise UserError("A language model reads titles, and the logs have none.", "Give logs with a column of titles.")
    nth: IntArray = np.arange(known.events) - known.offsets[:-1][known.user_of_event()]
    rows = np.flatnonzero(nth >= history)
    if not len(rows):
        raise UserError(f"Nobody in the logs has more than {history} events.", "Lower --history.")
    rng = stream(seed, "inspection", "candidates")
    if len(rows) > MAX_LOG_QUESTIONS:
        rows = np.sort(rng.choice(rows, MAX_LOG_QUESTIONS, replace=False))
    users: list[int] = known.user_of_event()[rows].tolist()
    asked: list[TitleQuestion] = []
    for user, row in zip(users, rows.tolist(), strict=True):
        right = int(known.item[row])
        others: list[int] = rng.integers(len(titles), size=DRAWN_ITEMS).tolist()
        candidates = _choose_different([titles[item] for item in (right, *others)])
        if len(candidates) < 2:
            raise UserError("All titles begin alike, and candidates should not.", "Give logs with other titles.")
        order: list[int] = rng.permutation(len(candidates)).tolist()
        shown: list[int] = known.item[row - history : row].tolist()
        asked.append(_write(template, [titles[item] for item in shown], [candidates[at] for at in order], order, user))
    return asked


def _choose_different(titles: Sequence[str]) -> list[str]:
    """Return the first titles that begin differently, `MAX_CANDIDATES` at most."""
    found: dict[str, str] = {}
    for title in titles:
        found.setdefault(title[:BEGINNING].casefold(), title)
        if len(found) == MAX_CANDIDATES:
            break
    return list(found.values())


def _write(
    template: PromptTemplate, shown: Sequence[str], candidates: Sequence[str], order: Sequence[int], user: int
) -> TitleQuestion:
    """Write a question; of the candidates, the one whose place in `order` is 0 came next."""
    text = write_candidate_prompt(template, len(candidates))
    head, _, tail = text.partition("{candidates}")
    fields = {"history": ", ".join(shown)}
    *rivals, title = candidates
    return TitleQuestion(
        fill_fields(head, fields) + "".join(f"{rival}, " for rival in rivals),
        title,
        fill_fields(tail, fields),
        order[-1] == 0,
        user,
        tuple(rivals),
        candidates[list(order).index(0)],
    )
