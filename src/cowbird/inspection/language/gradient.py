"""Token sequences that raise the score, found by following gradients (GCG: Zou et al. 2023, arXiv 2307.15043).

A fragment of random tokens is improved one token at a time: the gradient of the score with respect to the tokens'
inputs says which replacements might help, some of those are tried as texts, and the best stays. Departures: the score
is a margin in few questions, and what is tried is text that the tokenizer reads anew, so a fragment that can't be
written is never found.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cowbird.data.types import IntArray
from cowbird.inspection.language.fragment_scorer import FragmentScorer
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment
from cowbird.inspection.language.title_edits import FragmentPosition

TOP_REPLACEMENTS = 32
"""Tokens a place from which replacements are drawn."""


def list_printable_tokens(scorer: FragmentScorer) -> Tensor:
    """Return the tokens that are printable text of ASCII, on the model's device."""
    count = min(len(scorer.tokenizer), scorer.causal.get_input_embeddings().weight.shape[0])
    special = set(scorer.tokenizer.all_special_ids)
    texts: list[str] = scorer.tokenizer.batch_decode([[token] for token in range(count)])
    fine = [
        token
        for token, text in enumerate(texts)
        if token not in special and text.isascii() and text.isprintable() and text.strip() and '"' not in text
    ]
    return torch.tensor(fine, device=scorer.device)


def follow_gradients(
    scorer: FragmentScorer,
    questions: Sequence[TitleQuestion],
    position: FragmentPosition,
    allowed: Tensor,
    tokens: int,
    steps: int,
    candidates: int,
    rng: np.random.Generator,
) -> list[str]:
    """Return the fragments that one random beginning goes through, the last one being the best.

    Args:
        scorer: The model.
        questions: Where the score is raised.
        position: Where the fragment stands.
        allowed: Tokens that may be in it; see `list_printable_tokens`.
        tokens: How many tokens it has at first.
        steps: How often a token is replaced.
        candidates: Replacements tried a step.
        rng: Draws tokens.
    """
    if not len(allowed):
        return []
    drawn: IntArray = rng.choice(len(allowed), tokens)
    best: str = scorer.tokenizer.decode(allowed[torch.from_numpy(drawn)].tolist()).strip()
    score = float(scorer.score([best], questions, position).mean())
    passed = [best]
    for _ in range(steps):
        made = _propose(scorer, questions, position, best, allowed, candidates, rng)
        if not made:
            break
        scores = scorer.score(made, questions, position).mean(axis=1)
        if scores.max() > score:
            best, score = made[int(scores.argmax())], float(scores.max())
            passed.append(best)
    return passed


def _propose(
    scorer: FragmentScorer,
    questions: Sequence[TitleQuestion],
    position: FragmentPosition,
    fragment: str,
    allowed: Tensor,
    candidates: int,
    rng: np.random.Generator,
) -> list[str]:
    """Return a fragment with one token replaced, as texts, in ways that gradients speak for."""
    slots, gain = _sum_gains(scorer, questions, position, fragment, allowed)
    if not slots:
        return []
    top = gain.topk(min(TOP_REPLACEMENTS, gain.shape[1]), dim=1).indices.cpu()
    made: list[str] = []
    for _ in range(candidates):
        place, nth = int(rng.integers(len(slots))), int(rng.integers(top.shape[1]))
        changed = [*slots[:place], int(allowed[top[place, nth]]), *slots[place + 1 :]]
        text: str = scorer.tokenizer.decode(changed).strip()
        if text and text.isprintable() and text != fragment:
            made.append(text)
    return list(dict.fromkeys(made))


def _sum_gains(
    scorer: FragmentScorer,
    questions: Sequence[TitleQuestion],
    position: FragmentPosition,
    fragment: str,
    allowed: Tensor,
) -> tuple[list[int], Tensor]:
    """Return the fragment's tokens, and what replacing each by each allowed token adds to the score, to first order.

    Returns:
        Tokens, and gains of shape `[tokens, allowed]`, summed over the questions in which it has these tokens.
    """
    table = scorer.causal.get_input_embeddings()
    slots: list[int] = []
    total: Tensor = torch.zeros(())
    differentiate: Any = torch.autograd.grad
    for question in questions:
        cache = scorer.find_beginning(question, position)
        row, plain = scorer.tokenize([question.write(fragment, position), question.write()])
        behind = 0
        while behind < min(len(row), len(plain)) - 1 and row[-1 - behind] == plain[-1 - behind]:
            behind += 1
        seen = 0
        while seen < min(len(cache.tokens), len(row) - 1) and cache.tokens[seen] == row[seen]:
            seen += 1
        mine = row[seen : len(row) - behind]
        if not mine or (slots and mine != slots):
            continue
        token = torch.tensor([row[seen:]], device=scorer.device)
        with torch.enable_grad():
            inputs = table(token).detach().requires_grad_()
            answers = scorer.readout.find_answers([(question, insert_fragment(question.title, fragment, position))])
            (found,) = differentiate(scorer.run_endings(cache, seen, token, inputs, answers=answers).sum(), inputs)
        slope: Tensor = found[0, : len(mine)].float()
        weight: Tensor = table.weight.detach()[allowed].float()
        gain: Tensor = slope @ weight.T - (slope * inputs.detach()[0, : len(mine)].float()).sum(dim=1, keepdim=True)
        total = gain if not slots else total + gain
        slots = mine
    return slots, total
