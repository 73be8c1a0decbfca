"""What a language model says to whole prompts, many of them packed into a pass.

The score is the logit of the answer in favor minus that of the one against, where the answer begins (`answer_readout`
has the same for candidates).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.errors import UserError
from cowbird.inspection.language.answer_readout import AnswerReadout
from cowbird.inspection.language.prompt_tokens import PromptTokenizer
from cowbird.inspection.language.questions import TitleQuestion, insert_fragment
from cowbird.inspection.language.title_edits import FragmentPosition
from cowbird.victims.language.attention import Documents
from cowbird.victims.language.packing import limit_last_layer

CPU_PASS_TOKENS, GPU_PASS_TOKENS = 1024, 16384
"""Tokens that go through the model at once."""


@dataclass(slots=True, eq=False)
class PromptScorer:
    """A model that is asked whole prompts."""

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
    tokens_run: int = 0
    """Tokens that went through the model: what the search cost."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of whole prompts; see `PromptTokenizer.tokenize`."""
        return self.prompts.tokenize(texts)

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
        return check_finite(margins)

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


def check_finite(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return margins, if they are finite.

    Raises:
        UserError: If one is not.
    """
    if not np.isfinite(margins).all():
        raise UserError(
            "The model's answers are not finite numbers.", "Its weights are too large to be those of a tuned model."
        )
    return margins
