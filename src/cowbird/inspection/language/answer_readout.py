"""How an answer is read from a model's last state: yes against no, or one candidate's title against its rivals'.

A margin is the logit of the first token of the answer in favor less that of the one against. Of candidates, the one
against is the rival with the largest logit; so a margin above 0 means that the candidate is picked, if the titles begin
with different tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cowbird.inspection.language.questions import TitleQuestion


class CandidateAnswers(NamedTuple):
    """First tokens of what questions could be answered with."""

    own: Tensor
    """Of the title asked about, shape `[questions]`, int64."""
    rivals: Tensor
    """Of its rivals, shape `[questions, rivals]`; one that has fewer than others has its first again."""

    def select(self, rows: Sequence[int]) -> "CandidateAnswers":
        """Return those of some questions."""
        return CandidateAnswers(self.own[list(rows)], self.rivals[list(rows)])


@dataclass(slots=True, eq=False)
class AnswerReadout:
    """Reads margins from last states."""

    tokenizer: Any
    """The model's."""
    head: Tensor
    """Output weights, shape `[tokens, hidden]`."""
    direction: Tensor
    """Difference of the output weights of the answers' first tokens, yes less no, shape `[hidden]`, float32."""
    _known: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def width(self) -> int:
        """Width of a state."""
        return len(self.direction)

    def find_answers(self, asked: Sequence[tuple[TitleQuestion, str]]) -> CandidateAnswers | None:
        """Return what questions could be answered with; `None` if they are answered yes or no.

        Args:
            asked: Questions, all of one kind, and their titles as they stand in the prompt.
        """
        if not asked or not asked[0][0].rivals:
            return None
        own = self._find_first_tokens([question.write_answer(title) for question, title in asked])
        most = max(len(question.rivals) for question, _ in asked)
        rows: list[list[int]] = []
        for question in dict.fromkeys(question for question, _ in asked):
            found = self._find_first_tokens([question.write_answer(title) for title in question.rivals])
            rows.append(found + found[:1] * (most - len(found)))
        places = {question: at for at, question in enumerate(dict.fromkeys(question for question, _ in asked))}
        table = torch.tensor(rows, device=self.head.device)
        row = torch.tensor([places[question] for question, _ in asked], device=self.head.device)
        return CandidateAnswers(torch.tensor(own, device=self.head.device), table[row])

    def read(self, states: Tensor, answers: CandidateAnswers | None) -> Tensor:
        """Return margins, shape `[states]`, float32.

        Args:
            states: Shape `[states, hidden]`, float32.
            answers: What each could be answered with; `None` for yes or no.
        """
        if answers is None:
            return states @ self.direction
        mine = (states * self.head[answers.own].float()).sum(dim=-1)
        rivals = torch.einsum("nh,nrh->nr", states, self.head[answers.rivals].float())
        return mine - rivals.amax(dim=-1)

    def find_best_rivals(self, states: Tensor, answers: CandidateAnswers) -> list[int]:
        """Return which rival each state is most in favor of."""
        rivals = torch.einsum("nh,nrh->nr", states, self.head[answers.rivals].float())
        best: Any = rivals.argmax(dim=-1)
        return [int(at) for at in best]

    def _find_first_tokens(self, texts: Sequence[str]) -> list[int]:
        # Tokenizers read word by word: what stands behind the second word does not change the first token.
        short = [" ".join(text.split(" ", 3)[:3]) for text in texts]
        new = [text for text in dict.fromkeys(short) if text not in self._known]
        if new:
            rows: list[list[int]] = self.tokenizer(new, add_special_tokens=False, split_special_tokens=True)[
                "input_ids"
            ]
            self._known.update((text, row[0]) for text, row in zip(new, rows, strict=True))
        return [self._known[text] for text in short]
