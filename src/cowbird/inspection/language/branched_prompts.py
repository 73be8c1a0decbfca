"""Prompts that begin alike and end differently, run through a model as one: the beginning is read once.

A question and the same with texts in its title differ in a few tokens behind a long history. So the beginning stands
once in a row, all endings behind it, and each ending sees the beginning and itself. `prefix_cache` does that for a
search; here gradients flow through all of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.inspection.language.prompt_scorer import PromptScorer, check_finite
from cowbird.inspection.language.prompt_tokens import PromptTokenizer, count_common
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment
from cowbird.inspection.language.title_edits import FragmentPosition
from cowbird.victims.language.packing import limit_last_layer
from cowbird.victims.language.shared_rows import attend_in_rows

LENGTH_MULTIPLE = 32
"""Rows are padded to a multiple of this many tokens: kernels want it so."""
CPU_ROOM, GPU_ROOM, GPU_SCORING_ROOM = 4096, 8192, 65536
"""Tokens that go through the model at once; on a GPU more if nothing is learned."""
MAX_ENDINGS = 32
"""Endings of a beginning that are asked at once."""


class BranchedPrompt(NamedTuple):
    """A beginning, and what stands behind it."""

    shared: list[int]
    """Tokens of the beginning."""
    endings: list[list[int]]
    """Tokens of each ending, at least one."""

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.shared) + sum(map(len, self.endings))


def branch(rows: Sequence[list[int]], extra: Sequence[int] = ()) -> BranchedPrompt:
    """Return prompts as one that branches where they first differ.

    Args:
        rows: Tokens of each prompt, at least one.
        extra: Tokens that stand behind the first prompt: an answer that is learned.
    """
    common = min(min(count_common(rows[0], row), len(row) - 1) for row in rows)
    endings = [row[common:] for row in rows]
    endings[0] = [*endings[0], *extra]
    return BranchedPrompt(rows[0][:common], endings)


@dataclass(slots=True, eq=False)
class BranchedEndings:
    """What sees what: an ending sees its beginning and itself; see `attention.Borders`."""

    branches: Tensor
    """Number of each token's ending, 0 for the beginning, shape `[prompts, tokens]`."""
    place: Tensor
    """Position of each token, the same shape."""
    reach: int
    """See `attention.Borders`."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None) -> Tensor:
        """Let each token see what it may; see `attention.Borders`. Gradients flow to all."""
        if window not in self._masks:
            self._masks[window] = self._mask(window, query.dtype)
        return attend_in_rows(query, key, value, self._masks[window], scale)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Return what is added to scores, shape `[prompts, 1, tokens, tokens]`."""
        asks, told = self.branches[:, :, None], self.branches[:, None, :]
        at = torch.arange(self.branches.shape[1], device=self.branches.device)
        seen = (at[:, None] >= at) & ((told == 0) | (told == asks))
        if window is not None:
            seen &= self.place[:, :, None] - self.place[:, None, :] < window
        none = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return none.masked_fill_(~seen, -torch.inf)[:, None]


class BranchedRows(NamedTuple):
    """Branched prompts as the model takes them."""

    token: Tensor
    """Shape `[1, prompts * tokens]`, int64."""
    position: Tensor
    """The same shape."""
    borders: BranchedEndings
    """What sees what."""
    ends: list[list[int]]
    """Of each prompt, where each ending's last token stands among all tokens."""


def lay_out_branches(prompts: Sequence[BranchedPrompt], device: torch.device) -> BranchedRows:
    """Put branched prompts into rows of one length, padded behind."""
    length = -(-max(prompt.length for prompt in prompts) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    token = np.zeros((len(prompts), length), dtype=np.int64)
    place, branches = np.zeros_like(token), np.full_like(token, -1)
    ends: list[list[int]] = []
    for row, prompt in enumerate(prompts):
        at = len(prompt.shared)
        token[row, :at], place[row, :at], branches[row, :at] = prompt.shared, np.arange(at), 0
        last: list[int] = []
        for number, ending in enumerate(prompt.endings, 1):
            part = slice(at, at + len(ending))
            token[row, part], branches[row, part] = ending, number
            place[row, part] = len(prompt.shared) + np.arange(len(ending))
            at += len(ending)
            last.append(row * length + at - 1)
        ends.append(last)
    flat, where, which = (torch.from_numpy(array).to(device) for array in (token, place, branches))
    borders = BranchedEndings(which, where, int(place.max()) + 1)
    return BranchedRows(flat.view(1, -1), where.view(1, -1), borders, ends)


def run_branches(causal: Any, rows: BranchedRows, places: Tensor) -> Tensor:
    """Return the states of some tokens, shape `[places, hidden]`."""
    with limit_last_layer(causal, places, rows.token.shape[1]):
        out = causal.base_model(
            input_ids=rows.token, position_ids=rows.position, use_cache=False, documents=rows.borders
        )
    return out.last_hidden_state[0][places]


def split_into_passes(
    prompts: Sequence[BranchedPrompt], device: torch.device, learns: bool = False
) -> Iterator[list[int]]:
    """Yield the numbers of prompts that go through the model at once, those of about one length together."""
    room = CPU_ROOM if device.type == "cpu" else GPU_ROOM if learns else GPU_SCORING_ROOM
    part: list[int] = []
    for at in sorted(range(len(prompts)), key=lambda at: prompts[at].length):
        longest = -(-prompts[at].length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        if part and longest * (len(part) + 1) > room:
            yield part
            part = []
        part.append(at)
    if part:
        yield part


@dataclass(slots=True, eq=False)
class HeadTokens:
    """Tokens of questions' heads, which are read once each."""

    prompts: PromptTokenizer
    """Reads prompts."""

    def tokenize(self, alike: Sequence[TitleQuestion]) -> list[list[int]]:
        """Return the tokens of questions that have one head and one tail."""
        at, before = self.prompts.find_cut(alike[0])
        rows = self.prompts.tokenize([question._replace(head=question.head[at:]).write() for question in alike])
        kept = len(self.prompts.start)
        return [before + row[kept:] for row in rows] if at else rows


def score_placed(
    scorer: PromptScorer, asked: Sequence[tuple[str, FragmentPosition]], questions: Sequence[TitleQuestion]
) -> NDArray[np.float32]:
    """Score texts, each at a place of its own, in every question; see `FragmentScorer.score_mixed`.

    Returns:
        Margins, shape `[asked, questions]`.
    """
    found = np.empty((len(asked), len(questions)), dtype=np.float32)
    for start in range(0, len(asked), MAX_ENDINGS):
        some = asked[start : start + MAX_ENDINGS]
        groups = [
            [question._replace(title=insert_fragment(question.title, *each)) for each in some] for question in questions
        ]
        found[start : start + MAX_ENDINGS] = score_alike(scorer, groups).T
    return found


def score_alike(scorer: PromptScorer, groups: Sequence[Sequence[TitleQuestion]]) -> NDArray[np.float32]:
    """Score groups of questions; those of a group differ in their titles alone.

    Args:
        scorer: The model.
        groups: As many questions in each.

    Returns:
        Margins, shape `[groups, questions]`.

    Raises:
        UserError: If a margin is not finite.
    """
    if not groups:
        return np.empty((0, 0), dtype=np.float32)
    heads = HeadTokens(scorer.prompts.check_less())
    prompts = [branch(heads.tokenize(group)) for group in groups]
    found = np.empty((len(groups), len(groups[0])), dtype=np.float32)
    for part in split_into_passes(prompts, scorer.device):
        rows = lay_out_branches([prompts[at] for at in part], scorer.device)
        places = torch.tensor([end for ends in rows.ends for end in ends], device=scorer.device)
        scorer.tokens_run += rows.token.shape[1]
        states = run_branches(scorer.causal, rows, places).float()
        answers = scorer.readout.find_answers([(question, question.title) for at in part for question in groups[at]])
        found[part] = scorer.readout.read(states, answers).cpu().numpy().reshape(len(part), -1)
    return check_finite(found)
