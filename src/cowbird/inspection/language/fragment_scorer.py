"""How much a language model favors titles with fragments in them, for very many fragments and some questions.

The score is the logit of the answer in favor minus that of the one against, where the answer begins (`answer_readout`
has the same for candidates). Of each prompt
only what stands behind the unchanged beginning is run (`prefix_cache`), and only that is tokenized. On a CPU, endings
of one length go through the model together. On a GPU a pass costs more than its tokens, so all endings of a beginning
do, padded. Where there are few fragments to many questions, whole prompts are packed. Adapters are merged into the
weights once, while the scorer is open; the model is left as it was.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.errors import UserError
from cowbird.inspection.language.answer_readout import AnswerReadout, CandidateAnswers
from cowbird.inspection.language.prefix_cache import EndingBorders, PrefixCache, run_beginnings
from cowbird.inspection.language.prompt_tokens import PromptTokenizer, count_common
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment
from cowbird.inspection.language.title_edits import FragmentPosition
from cowbird.victims.language.attention import Documents, plug_in
from cowbird.victims.language.llm import LoadedModel
from cowbird.victims.language.packing import limit_last_layer
from cowbird.victims.language.weights import MergedAdapters
from cowbird.victims.repeatable import force_determinism

CPU_PASS_TOKENS, GPU_PASS_TOKENS = 1024, 16384
"""Tokens of the endings that go through the model at once."""
GPU_PASS_BEGINNINGS = 16
"""Beginnings that go through the model at once, where passes cost more than tokens."""
MAX_CACHED_BEGINNINGS = 64
"""Beginnings that are kept: a question and a position have one."""


@dataclass(slots=True, eq=False)
class FragmentScorer:
    """A model with what it is asked; made by `open_scorer`."""

    causal: Any
    """The causal LM, adapters merged, plugged into `cowbird_packed`."""
    tokenizer: Any
    """Its tokenizer, which takes control tokens as text."""
    device: torch.device
    """Where the model is."""
    readout: AnswerReadout
    """Reads margins from last states."""
    prompts: PromptTokenizer
    """Reads prompts."""
    padded: bool = False
    """Whether all endings of a beginning go through the model together, padded: where passes cost more than tokens."""
    tokens_run: int = 0
    """Tokens that went through the model: what the search cost."""
    _caches: dict[tuple[TitleQuestion, FragmentPosition], PrefixCache] = field(
        default_factory=dict[tuple[TitleQuestion, FragmentPosition], PrefixCache]
    )

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of whole prompts; see `PromptTokenizer.tokenize`."""
        return self.prompts.tokenize(texts)

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
            return _check_finite(self._score_padded(asked, questions, position))
        found = np.empty((len(fragments), len(questions)), dtype=np.float32)
        for column, question in enumerate(questions):
            found[:, column] = self._score_exact(asked, question, position)
        return _check_finite(found)

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
            return _check_finite(self._score_padded(asked, questions, "start"))
        found = np.empty((len(asked), len(questions)), dtype=np.float32)
        for position, rows in _group_places(asked).items():
            found[rows] = self.score([asked[at][0] for at in rows], questions, position)
        return found

    def score_plain(self, questions: Sequence[TitleQuestion]) -> NDArray[np.float32]:
        """Score questions as they are, shape `[questions]`."""
        return self.score_whole([(question, "", "end") for question in questions])

    def score_whole(self, asked: Sequence[tuple[TitleQuestion, str, FragmentPosition]]) -> NDArray[np.float32]:
        """Score questions, each with a fragment at a place, as whole prompts, many in a pass.

        Returns:
            Margins, shape `[asked]`, float32.

        Raises:
            UserError: If a margin is not finite.
        """
        margins = np.empty(len(asked), dtype=np.float32)
        for part, states in self._run_packed([question.write(text, place) for question, text, place in asked]):
            some = [asked[at] for at in part]
            shown = [(question, insert_fragment(question.title, text, place)) for question, text, place in some]
            margins[part] = self.readout.read(states, self.readout.find_answers(shown)).cpu().numpy()
        return _check_finite(margins)

    def find_best_rivals(self, questions: Sequence[TitleQuestion]) -> list[int]:
        """Return which rival the model is most in favor of, in each question as it is."""
        found = [0] * len(questions)
        for part, states in self._run_packed([question.write() for question in questions]):
            some = [questions[at] for at in part]
            answers = self.readout.find_answers([(question, question.title) for question in some])
            if answers is not None:
                for at, best in zip(part, self.readout.find_best_rivals(states, answers), strict=True):
                    found[at] = min(best, len(questions[at].rivals) - 1)
        return found

    def read_states(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Return the last state of each whole prompt, from which the answer is read, shape `[prompts, hidden]`."""
        found = np.empty((len(prompts), self.readout.width), dtype=np.float32)
        for part, states in self._run_packed(prompts):
            found[part] = states.cpu().numpy()
        return found

    def find_likely_tokens(self, prompts: Sequence[str], count: int) -> list[list[int]]:
        """Return the tokens that the model finds likeliest behind each prompt, the likeliest first."""
        found: list[list[int]] = [[] for _ in prompts]
        table = self.causal.get_output_embeddings()
        for part, states in self._run_packed(prompts):
            logits = table(states.to(table.weight.dtype)).float()
            top: Any = logits.topk(min(count, logits.shape[1])).indices
            for at, likely in zip(part, top.tolist(), strict=True):
                found[at] = likely
        return found

    def _run_packed(self, prompts: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the numbers of some prompts and their last states, until all are run."""
        rows = self.tokenize(prompts)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        room = CPU_PASS_TOKENS if self.device.type == "cpu" else GPU_PASS_TOKENS
        first = 0
        while first < len(order):
            last, held = first, 0
            while last < len(order) and (last == first or held + len(rows[order[last]]) <= room):
                held += len(rows[order[last]])
                last += 1
            part = order[first:last]
            yield part, self._run_whole([rows[at] for at in part]).float()
            first = last

    def _run_whole(self, rows: Sequence[list[int]]) -> Tensor:
        """Run whole prompts in one packed row, and return their last states, shape `[prompts, hidden]`."""
        bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
        token = torch.tensor([[each for row in rows for each in row]], device=self.device)
        position = torch.tensor([[at for row in rows for at in range(len(row))]], device=self.device)
        offsets = torch.from_numpy(bounds).to(self.device)
        documents = Documents(tuple(bounds.tolist()), offsets, max(len(row) for row in rows))
        last = offsets[1:].long() - 1
        self.tokens_run += int(bounds[-1])
        with limit_last_layer(self.causal, last, int(bounds[-1])):
            out = self.causal.base_model(input_ids=token, position_ids=position, use_cache=False, documents=documents)
        return out.last_hidden_state[0][last]

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
            endings = [[row[from_:] for row in rows] for from_, rows in zip(seen, all_rows, strict=True)]
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


def _check_finite(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(margins).all():
        raise UserError(
            "The model's answers are not finite numbers.", "Its weights are too large to be those of a tuned model."
        )
    return margins


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
            yield FragmentScorer(
                causal,
                loaded.tokenizer,
                device,
                readout,
                PromptTokenizer(loaded.tokenizer, start),
                device.type != "cpu",
            )
    finally:
        if merged is not None:
            merged.close()
