"""Paraphrase: a language model rewrites titles for the victim (Jain et al. 2023, arXiv 2309.00614, section 4.2).

There ChatGPT paraphrases a prompt, in the hope that its sense survives and an adversarial string in it does not.

Departures. Only titles are rewritten, for they are all of a prompt that a seller writes. Any causal language model
writes, greedily, told by an instruction and an example; the default is small enough for a CPU, keeps many titles as
they are, and gets some wrong. An answer that can't stand for a title (it does not end, is empty or not one line, or
repeats the example) is not used, and the title stays as it is, trigger and all: a seller may try to write a title of
that kind. `Rewriter.counts` tells how many did. Different titles may be rewritten alike; LLaRA's candidates that are
count as the first of them. Answers are kept in memory and beside the token cache, by the language model's files, the
instruction and the kind of device; of a model on a hub, by its name.
"""

from typing import Any

from pydantic import Field

from cowbird.defenses._rewriting import Rewriter
from cowbird.defenses.base import Defense, Model
from cowbird.victims.language.llm import Llm


class Paraphrase(Defense):
    """The victim reads titles as a language model rewrites them (Jain et al. 2023)."""

    llm: Llm = Llm()
    """The language model that rewrites titles; nothing of it learns."""
    instruction: str = Field(default="Write each title again, in plain words.", min_length=1, max_length=500)
    """What it is told."""
    longest: int = Field(default=48, ge=1)
    """Most tokens of a rewritten title."""
    device: str = "auto"
    """Where it runs: auto, cpu, cuda or cuda:N."""

    def guard(self, model: Model) -> Model:
        """Return the model as it reads rewritten titles; see `Defense.guard`.

        Raises:
            UserError: If the model reads no titles, or the device can't be used.
        """
        guarded: Any = model.with_rewritten_titles(Rewriter(self.llm, self.instruction, self.longest, self.device))
        return guarded
