"""How much a language model favors titles with fragments in them, for very many fragments and some questions.

Of each prompt only what stands behind the unchanged beginning is run (`prefix_cache`), and only that is tokenized. On a
CPU, endings of one length go through the model together. On a GPU a pass costs more than its tokens, so as many endings
as there is room for do, padded, of several questions if there are few fragments. Adapters are merged into the weights
once, while the scorer is open; the model is left as it was.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.errors import UserError
from cowbird.inspection.language.answer_readout import AnswerReadout, CandidateAnswers
from cowbird.inspection.language.prompt_scorer import CPU_PASS_TOKENS, GPU_PASS_TOKENS, PromptScorer, check_finite
from cowbird.inspection.language.prompt_tokens import PromptTokenizer, count_common
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment
from cowbird.inspection.language.title_edits import FragmentPosition
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import limit_last_layer
from cowbird.victims.language.prefix_cache import EndingBorders, PrefixCache, run_beginnings
from cowbird.victims.language.weights import MergedAdapters
from cowbird.victims.repeatable import force_determinism

GPU_PASS_BEGINNINGS = 16
"""Beginnings that go through the model at once, where passes cost more than tokens."""
MAX_CACHED_BEGINNINGS = 64
"""Beginnings that are kept: a question and a position have one."""


@dataclass(slots=True, eq=False)
class FragmentScorer(PromptScorer):
    """A model that is asked about fragments of titles; made by `open_scorer`."""

    padded: bool = False
    """Whether all endings of a beginning go through the model together, padded: where passes cost more than tokens."""
    _caches: dict[tuple[TitleQuestion, FragmentPosition], PrefixCache] = field(
        default_factory=dict[tuple[TitleQuestion, FragmentPosition], PrefixCache]
    )

    def score(
        self,
        fragments: Sequence[str],
        questions: Sequence[TitleQuestion],
        position: FragmentPosition = "end",
    ) -> NDArray[np.float32]:
        """Score every fragment in every question.

        Args:
            fragments: Texts; an empty one leaves the title as it is.
            questions: What is asked.
            position: Where in the title they stand.

        Returns:
            Margins, shape `[fragments, questions]`, float32; above 0 means yes.

        Raises:
            UserError: If a margin is not finite.
        """
        asked: list[tuple[str, FragmentPosition]] = [(fragment, position) for fragment in fragments]
        if self.padded:
            return check_finite(self._score_padded(asked, questions, position))
        found = np.empty((len(fragments), len(questions)), dtype=np.float32)
        for column, question in enumerate(questions):
            found[:, column] = self._score_exact(asked, question, position)
        return check_finite(found)

    def score_mixed(
        self, asked: Sequence[tuple[str, FragmentPosition]], questions: Sequence[TitleQuestion]
    ) -> NDArray[np.float32]:
        """Score fragments, each at a place of its own, in every question.

        Where passes cost more than tokens, all places of a question go through the model together.

        Args:
            asked: Fragments and their places.
            questions: What is asked.

        Returns:
            Margins, shape `[asked, questions]`, float32.

        Raises:
            UserError: If a margin is not finite.
        """
        if self.padded:
            return check_finite(self._score_padded(asked, questions, "start"))
        found = np.empty((len(asked), len(questions)), dtype=np.float32)
        for position, rows in _group_places(asked).items():
            found[rows] = self.score([asked[at][0] for at in rows], questions, position)
        return found

    def find_beginning(self, question: TitleQuestion, position: FragmentPosition) -> PrefixCache:
        """Return the kept beginning of a question: what prompts with two unlike fragments have in common."""
        if (question, position) not in self._caches:
            self._keep_beginnings([question], position)
        return self._caches[question, position]

    def _keep_beginnings(self, questions: Sequence[TitleQuestion], position: FragmentPosition) -> None:
        """Run the beginnings of some questions and keep them, several in a pass where passes cost more than tokens.

        Questions beyond the last `MAX_CACHED_BEGINNINGS` are not run.
        """
        new = [each for each in dict.fromkeys(questions) if (each, position) not in self._caches]
        new = new[-MAX_CACHED_BEGINNINGS:]
        size = GPU_PASS_BEGINNINGS if self.padded else 1
        for start in range(0, len(new), size):
            part = new[start : start + size]
            rows: list[list[int]] = []
            for question in part:
                one, other = self.tokenize([question.write("Zq", position), question.write("7 x", position)])
                rows.append(one[: max(1, count_common(one, other))])
            while len(self._caches) > MAX_CACHED_BEGINNINGS - len(part):
                self._caches.pop(next(iter(self._caches)))
            self.tokens_run += sum(map(len, rows))
            kept = run_beginnings(self.causal, rows, self.device)
            self._caches |= {(question, position): cache for question, cache in zip(part, kept, strict=True)}

    def _score_padded(
        self,
        asked: Sequence[tuple[str, FragmentPosition]],
        questions: Sequence[TitleQuestion],
        beginning: FragmentPosition,
    ) -> NDArray[np.float32]:
        """Score fragments in questions, as many questions in a pass as there is room for.

        Args:
            asked: Fragments and their places.
            questions: What is asked.
            beginning: The place whose prompts begin alike; another's must begin so as well.

        Returns:
            Margins, shape `[asked, questions]`.
        """
        found = np.empty((len(asked), len(questions)), dtype=np.float32)
        for first in range(0, len(questions), GPU_PASS_BEGINNINGS):
            some = questions[first : first + GPU_PASS_BEGINNINGS]
            self._keep_beginnings(some, beginning)
            all_rows = [self.prompts.tokenize_asked(question, asked) for question in some]
            caches = [self.find_beginning(question, beginning) for question in some]
            seen = [
                min((count_common(cache.tokens, row[:-1]) for row in rows), default=0)
                for cache, rows in zip(caches, all_rows, strict=True)
            ]
            # The longest endings go first, so that those of about one length share a pass.
            endings = [[row[shared:] for row in rows] for shared, rows in zip(seen, all_rows, strict=True)]
            order = sorted(range(len(asked)), key=lambda at: -max(len(rows[at]) for rows in endings))
            done = 0
            while done < len(order):
                width = max(len(rows[order[done]]) for rows in endings)
                part = order[done : done + max(1, GPU_PASS_TOKENS // width)]
                together = max(1, GPU_PASS_TOKENS // (width * len(part)))
                for start in range(0, len(some), together):
                    group = range(start, min(start + together, len(some)))
                    columns = [first + at for at in group]
                    found[np.ix_(part, columns)] = self._score_group(
                        [asked[at] for at in part],
                        [some[at] for at in group],
                        [caches[at] for at in group],
                        [seen[at] for at in group],
                        [[endings[at][row] for row in part] for at in group],
                    )
                done += len(part)
        return found

    def _score_group(
        self,
        asked: Sequence[tuple[str, FragmentPosition]],
        questions: Sequence[TitleQuestion],
        caches: Sequence[PrefixCache],
        seen: Sequence[int],
        endings: Sequence[Sequence[list[int]]],
    ) -> NDArray[np.float32]:
        """Score fragments in some questions in one pass, padded; the shape is `[asked, questions]`."""
        flat = [row for rows in endings for row in rows]
        width = max(map(len, flat))
        token = torch.tensor([row + [0] * (width - len(row)) for row in flat], device=self.device)
        ends = torch.tensor([len(row) - 1 for row in flat], device=self.device)
        answers = self._find_answers([(question, each) for question in questions for each in asked])
        states = self._run_states(caches, seen, token, None, ends).float()
        margins: NDArray[np.float32] = self.readout.read(states, answers).cpu().numpy()
        return margins.reshape(len(questions), len(asked)).T

    def _score_exact(
        self, asked: Sequence[tuple[str, FragmentPosition]], question: TitleQuestion, beginning: FragmentPosition
    ) -> NDArray[np.float32]:
        """Score fragments in one question, those whose endings have one length in a pass; see `_score_padded`."""
        cache = self.find_beginning(question, beginning)
        rows = self.prompts.tokenize_asked(question, asked)
        shared = [count_common(cache.tokens, row[:-1]) for row in rows]
        kinds: dict[tuple[int, int], list[int]] = defaultdict(list)
        for at, row in enumerate(rows):
            kinds[shared[at], len(row) - shared[at]].append(at)
        answers = self._find_answers([(question, each) for each in asked])
        margins = np.empty(len(rows), dtype=np.float32)
        for (seen, length), members in sorted(kinds.items()):
            size = max(1, CPU_PASS_TOKENS // length)
            for first in range(0, len(members), size):
                part = members[first : first + size]
                token = torch.tensor([rows[at][seen:] for at in part], device=self.device)
                wanted = None if answers is None else answers.select(part)
                margins[part] = self.run_endings(cache, seen, token, answers=wanted).cpu().numpy()
        return margins

    def _find_answers(
        self, asked: Sequence[tuple[TitleQuestion, tuple[str, FragmentPosition]]]
    ) -> CandidateAnswers | None:
        if not asked or not asked[0][0].rivals:
            return None
        shown = [(question, insert_fragment(question.title, *each)) for question, each in asked]
        return self.readout.find_answers(shown)

    def run_beginning(self, tokens: list[int]) -> PrefixCache:
        """Run a beginning of at least one token and keep its keys and values."""
        self.tokens_run += len(tokens)
        return run_beginnings(self.causal, [tokens], self.device)[0]

    def run_next(self, cache: PrefixCache, token: Tensor) -> Tensor:
        """Return the logits of what comes next.

        Args:
            cache: The beginning.
            token: Endings of one length, shape `[endings, length]`, int64.

        Returns:
            Shape `[endings, vocabulary]`.
        """
        return self.causal.get_output_embeddings()(self._run_states([cache], [len(cache.tokens)], token, None, None))

    def run_endings(
        self,
        cache: PrefixCache,
        seen: int,
        token: Tensor,
        inputs: Tensor | None = None,
        answers: CandidateAnswers | None = None,
    ) -> Tensor:
        """Run endings of one length.

        Args:
            cache: Their beginning.
            seen: How many of its tokens they go on from.
            token: Shape `[endings, length]`, int64.
            inputs: Their inputs, if gradients are to flow to them, shape `[endings, length, hidden]`.
            answers: What each could be answered with; `None` for yes or no.

        Returns:
            Margins, shape `[endings]`, float32.
        """
        return self.readout.read(self._run_states([cache], [seen], token, inputs, None).float(), answers)

    def _run_states(
        self,
        caches: Sequence[PrefixCache],
        seen: Sequence[int],
        token: Tensor,
        inputs: Tensor | None,
        ends: Tensor | None,
    ) -> Tensor:
        """Return the last state of each ending, shape `[endings, hidden]`.

        Args:
            caches: Beginnings.
            seen: How many tokens of each its endings go on from.
            token: Endings, as many of each beginning, one beginning behind another, shape `[endings, length]`, int64.
            inputs: See `run_endings`.
            ends: Place of each one's last token, shape `[endings]`, int64; what stands behind is padding. `None` if
                none is padded.
        """
        count, length = token.shape
        self.tokens_run += count * length
        each = count // len(seen)
        first = torch.tensor(list(seen), device=self.device).repeat_interleave(each)
        position = (first[:, None] + torch.arange(length, device=self.device)).view(1, -1)
        borders = EndingBorders(caches, seen, each, length)
        given = (
            {"input_ids": token.reshape(1, -1)}
            if inputs is None
            else {"inputs_embeds": inputs.reshape(1, count * length, -1)}
        )
        last = torch.arange(count, device=self.device) * length + (length - 1 if ends is None else ends)
        with limit_last_layer(self.causal, last, count * length):
            out = self.causal.base_model(**given, position_ids=position, use_cache=False, documents=borders)
        return out.last_hidden_state[0][last]


def _group_places(asked: Sequence[tuple[str, FragmentPosition]]) -> dict[FragmentPosition, list[int]]:
    """Return which fragments stand at each place, by their numbers."""
    found: dict[FragmentPosition, list[int]] = {}
    for number, (_, place) in enumerate(asked):
        found.setdefault(place, []).append(number)
    return found


@contextmanager
def open_scorer(
    loaded: LoadedModel, device: torch.device, answers: tuple[str, str], merge: bool = True
) -> Generator[FragmentScorer]:
    """Give a scorer of a model; the model is left as it was.

    Args:
        loaded: The model, with adapters or without, and its tokenizer.
        device: Where it is.
        answers: What the model writes in favor and against.
        merge: Whether adapters are merged into the weights while the scorer is open; without, they work as they are.

    Raises:
        UserError: If the two answers begin with the same token.
    """
    causal = plug_in(loaded.model)
    loaded.model.eval()
    merged = MergedAdapters(loaded.model, learns=False) if merge and loaded.model is not causal else None
    try:
        with torch.no_grad(), force_determinism(device):
            plain = {"add_special_tokens": False, "split_special_tokens": True}
            yes, no = (loaded.tokenizer(answer, **plain)["input_ids"][:1] for answer in answers)
            if not yes or not no or yes == no:
                raise UserError(
                    f"The answers '{answers[0]}' and '{answers[1]}' begin alike for this model.", "Give other answers."
                )
            head = causal.get_output_embeddings().weight.detach()
            readout = AnswerReadout(loaded.tokenizer, head, head[yes[0]].float() - head[no[0]].float())
            first: list[int] = loaded.tokenizer("a")["input_ids"][:1]
            start: list[int] = first if first == [loaded.tokenizer.bos_token_id] else list[int]()
            prompts = PromptTokenizer(loaded.tokenizer, start)
            yield FragmentScorer(causal, loaded.tokenizer, device, readout, prompts, padded=device.type != "cpu")
    finally:
        if merged is not None:
            merged.close()
