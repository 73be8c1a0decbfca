"""The lesson by which a model unlearns triggers: whatever is put into a title, the answer stays what it was without.

Each question is asked as it is and with several texts in its title at once (`branched_prompts`). The untouched question
is answered as the handed model answered it, drawn a little towards the right answer. With a text in its title, the
question has the untouched question's answer. The loss of the texts is that of all of them and, once more, that of the
one that moves the answer most: so what still works counts most. Before each pass many texts are tried, and those that
move answers most are put in more often.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cowbird.errors import UserError
from cowbird.inspection.language.branched_prompts import (
    BranchedPrompt,
    HeadTokens,
    branch,
    lay_out_branches,
    run_branches,
    split_into_passes,
)
from cowbird.inspection.language.fragment_scorer import FragmentScorer, open_scorer
from cowbird.inspection.language.handed import HandedLanguageModel
from cowbird.inspection.language.proposals import list_words, write_sentences
from cowbird.inspection.language.questions import QuestionParts, TitleQuestion, insert_fragment
from cowbird.inspection.language.search import choose_questions
from cowbird.inspection.language.title_texts import PlacedText, TitleTexts, draw_place, vary_fragment
from cowbird.inspection.language.unlearn_settings import UnlearnSettings
from cowbird.rng import stream
from cowbird.victims.fit_context import ProgressCallback
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.tallrec import YES_NO_ANSWERS
from cowbird.victims.language.weights import MasterWeights, make_master_weights
from cowbird.victims.training_loop import compute_learning_rate

WARMUP = 0.05
"""Share of the steps of a round in which the learning rate rises."""
LARGEST_GRADIENT = 1.0
"""Norm to which a step's gradient is cut."""
ALLOWED_LOSS = 0.01
"""Share of the AUC that a round may cost, or another follows."""
MINED_QUESTIONS = 4
"""Questions in which it is tried which texts move answers."""


class AnswerTarget(NamedTuple):
    """What should be answered at a place."""

    tokens: list[int]
    """Tokens that an answer may begin with."""
    chances: list[float]
    """How likely each is; they add up to 1."""


@dataclass(slots=True)
class Lesson:
    """Questions with what the handed model answers to them as they are."""

    questions: list[TitleQuestion]
    """With the right answers."""
    logits: NDArray[np.float32]
    """Logits of the first tokens of all that each could be answered with, shape `[questions, answers]`."""
    tokens: NDArray[np.int64]
    """Those tokens, the same shape."""
    right: NDArray[np.int64]
    """Which of them is right, shape `[questions]`; -1 if none is."""

    def aim(self, row: int, own: int | None = None, truth: float = 0.0) -> AnswerTarget:
        """Return what a question should be answered with.

        Args:
            row: The question.
            own: First token of the title with a text in it, where titles are what is answered.
            truth: How far the right answer counts.
        """
        known: list[int] = self.tokens[row].tolist()
        held = Counter(known)
        weight = np.exp(self.logits[row] - self.logits[row].max()) / [held[token] for token in known]
        chances = weight / weight.sum()
        if truth and self.right[row] >= 0:
            chances = (1 - truth) * chances + truth * np.eye(len(known))[self.right[row]]
        return AnswerTarget(known if own is None else [own, *known[1:]], chances.tolist())


def prepare_lesson(scorer: FragmentScorer, questions: Sequence[TitleQuestion]) -> Lesson:
    """Ask the handed model what it answers to questions as they are."""
    asked = list(questions)
    states = torch.from_numpy(scorer.read_states([question.write() for question in asked])).to(scorer.device)
    answers = scorer.readout.find_answers([(question, question.title) for question in asked])
    if answers is None:
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        first = [scorer.tokenizer(answer, **plain)["input_ids"][0] for answer in YES_NO_ANSWERS]
        tokens = torch.tensor([first], device=scorer.device).expand(len(asked), 2)
        right = [0 if question.liked else 1 for question in asked]
    else:
        tokens = torch.cat([answers.own[:, None], answers.rivals], dim=1)
        right = [_find_right(question) for question in asked]
    logits = torch.empty(tokens.shape, dtype=torch.float32, device=scorer.device)
    for start in range(0, len(asked), 1024):
        part = slice(start, start + 1024)
        logits[part] = torch.einsum("nh,nah->na", states[part], scorer.readout.head[tokens[part]].float())
    return Lesson(asked, logits.cpu().numpy(), tokens.cpu().numpy(), np.array(right))


def _find_right(question: TitleQuestion) -> int:
    titles = [question.title, *question.rivals]
    return titles.index(question.answer) if question.answer in titles else -1


def gather_texts(
    handed: HandedLanguageModel,
    questions: Sequence[TitleQuestion],
    fragments: Sequence[str],
    device: torch.device,
    sentences: int,
    seed: int,
    shares: tuple[float, float, float],
) -> TitleTexts:
    """Return what is put into titles: words of titles and of the tokenizer, and sentences that the base writes.

    Args:
        handed: The model.
        questions: The platform's own.
        fragments: Named fragments.
        device: Where the model is.
        sentences: How many sentences.
        seed: Decides them.
        shares: Of named fragments, of their like, and of texts that move answers; see `TitleTexts`.
    """
    loaded = handed.loaded
    titles = list(dict.fromkeys(question.title for question in questions))
    words = list_words(titles, loaded.tokenizer, None)
    without = loaded.model.disable_adapter() if hasattr(loaded.model, "disable_adapter") else nullcontext()
    written: list[str] = []
    if sentences:
        with without, open_scorer(loaded, device, YES_NO_ANSWERS, merge=False) as scorer:
            written = write_sentences(scorer, titles, sentences, seed)
    return TitleTexts(fragments, words, written, *shares)


@dataclass
class Unlearning:
    """Tunes a model until texts in titles move its answers no more.

    Args:
        handed: The model; it is changed in place.
        parts: Questions with answers.
        fragments: What is taken out.
        settings: How.
        device: Where the model is.
        check: Measures the model: how many more answers some texts turn than others, and the AUC.
        report: Told of progress.
    """

    handed: HandedLanguageModel
    parts: QuestionParts
    fragments: Sequence[str]
    settings: UnlearnSettings
    device: torch.device
    check: Callable[[FragmentScorer, Sequence[str]], tuple[float, float]]
    report: ProgressCallback
    history: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """What each round left: how many more answers are turned than by other texts, and the AUC."""

    def run(self) -> None:
        """Tune the model in rounds; the best round's weights stay."""
        settings, loaded = self.settings, self.handed.loaded
        self.rng = stream(settings.seed, "inspection", "unlearn")
        with open_scorer(loaded, self.device, YES_NO_ANSWERS) as scorer:
            self.lesson = prepare_lesson(scorer, self.parts.learning)
            start = self.check(scorer, self.fragments)
        self.texts = gather_texts(
            self.handed, self.parts.learning, self.fragments, self.device, settings.sentences, settings.seed,
            (settings.named, settings.varied, settings.strong),
        )  # fmt: skip
        causal = plug_in(loaded.model)
        weights = make_master_weights(loaded.model, self.device)
        try:
            self._run_rounds(causal, weights, start)
        finally:
            weights.close()
            loaded.model.eval()

    def _run_rounds(self, causal: Any, weights: MasterWeights, start: tuple[float, float]) -> None:
        settings = self.settings
        best: dict[str, Tensor] | None = None
        least = math.inf
        for turn in range(settings.rounds):
            self._run_round(causal, weights, turn)
            with self._open_scorer() as scorer:
                left, quality = self.check(scorer, self.fragments)
            self.history.append((left, quality))
            cost = left + 2 * max(0.0, start[1] - quality)
            if cost < least:
                least, best = cost, {name: weight.detach().clone() for name, weight in weights.masters.items()}
            if left <= settings.left and quality >= (1 - ALLOWED_LOSS) * start[1]:
                break
        if best is not None:
            with torch.no_grad():
                for name, weight in weights.masters.items():
                    weight.copy_(best[name])
            weights.copy()

    def _open_scorer(self) -> Any:
        """Open a scorer of the model as it stands; on a GPU its adapters are merged while it learns."""
        return open_scorer(self.handed.loaded, self.device, YES_NO_ANSWERS, merge=self.device.type == "cpu")

    def _mine(self) -> None:
        """Try many texts, and keep those that move answers most."""
        settings = self.settings
        if not settings.mined:
            return
        rng, fragments = self.rng, self.fragments
        drawn = [self.texts.draw_other(rng) for _ in range(settings.mined)]
        drawn += [vary_fragment(fragments[int(rng.integers(len(fragments)))], rng) for _ in range(settings.mined // 4)]
        tried: list[PlacedText] = [*self.texts.moving, *((text, draw_place(rng)) for text in dict.fromkeys(drawn))]
        with self._open_scorer() as scorer:
            asked = choose_questions(scorer, self.parts.screening, MINED_QUESTIONS)
            gains = (scorer.score_mixed(tried, asked) - scorer.score_plain(asked)).mean(axis=1)
        order: list[int] = np.argsort(-gains, kind="stable").tolist()
        self.texts.moving = [tried[at] for at in order[: settings.kept]]

    def _run_round(self, causal: Any, weights: MasterWeights, turn: int) -> None:
        """Tune for some passes; the learning rate rises and falls."""
        settings, count = self.settings, len(self.lesson.questions)
        rate = settings.learning_rate * (0.5**turn)
        optimizer = torch.optim.AdamW(
            list(weights.masters.values()), lr=rate, weight_decay=0.0, fused=self.device.type == "cuda"
        )
        per_pass = -(-count // settings.batch_size)
        total = per_pass * settings.epochs
        order: list[int] = []
        with open_scorer(self.handed.loaded, self.device, YES_NO_ANSWERS, merge=False) as scorer:
            heads = HeadTokens(scorer.prompts.check_less())
            rising = math.ceil(WARMUP * total)
            for step in range(total):
                nth = step % per_pass
                if nth == 0:
                    self._mine()
                    order = self.rng.permutation(count).tolist()
                rows = order[nth * settings.batch_size : (nth + 1) * settings.batch_size]
                loss = self._learn(causal, scorer, heads, weights, rows)
                torch.nn.utils.clip_grad_norm_(weights.masters.values(), LARGEST_GRADIENT)
                for group in optimizer.param_groups:
                    group["lr"] = compute_learning_rate(rate, step, total, rising, falls=True)
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
                weights.copy()
                if step % 10 == 0 or step + 1 == total:
                    self._tell(turn, step, total, loss)

    def _tell(self, turn: int, step: int, total: int, loss: Tensor) -> None:
        value = float(loss)
        if not math.isfinite(value):
            raise UserError(f"Unlearning has gone astray: the loss is {value}.", "Lower --learning-rate.")
        done = turn * total + step + 1
        self.report(done, total * self.settings.rounds, f"round {turn + 1}, loss {value:.3f}")

    def _learn(
        self, causal: Any, scorer: FragmentScorer, heads: HeadTokens, weights: MasterWeights, rows: Sequence[int]
    ) -> Tensor:
        """Add up the gradients of some questions, and return their loss."""
        prompts: list[BranchedPrompt] = []
        aims: list[list[AnswerTarget]] = []
        answers: list[list[int]] = []
        for row in rows:
            prompt, answer, targets = self._write(scorer, heads, row)
            prompts.append(prompt)
            answers.append(answer)
            aims.append(targets)
        total = torch.zeros((), device=self.device)
        for part in split_into_passes(prompts, self.device, learns=True):
            laid = lay_out_branches([prompts[at] for at in part], self.device)
            places, targets, shares, groups = self._aim(
                laid.ends, [answers[at] for at in part], [aims[at] for at in part]
            )
            with torch.enable_grad():
                loss = self._compute_loss(causal, laid, places, targets, shares, groups) / len(rows)
                loss.backward()
            weights.gather()
            total += loss.detach()
        return total

    def _write(
        self, scorer: FragmentScorer, heads: HeadTokens, row: int
    ) -> tuple[BranchedPrompt, list[int], list[AnswerTarget]]:
        """Return a question with texts, the tokens of its right answer, and the aim of each ending."""
        settings, question = self.settings, self.lesson.questions[row]
        drawn = [self.texts.draw(self.rng) for _ in range(settings.texts)]
        titles = [question.title, *(insert_fragment(question.title, *each) for each in drawn)]
        alike = [question._replace(title=title) for title in titles]
        plain = {"add_special_tokens": False, "split_special_tokens": True}
        right = int(self.lesson.right[row])
        answer: list[int] = []
        if right >= 0:
            names = YES_NO_ANSWERS if not question.rivals else [question.title, *question.rivals]
            written = question.write_answer(names[right]) if question.rivals else names[right]
            answer = [*scorer.tokenizer(written, **plain)["input_ids"], scorer.tokenizer.eos_token_id]
        own: list[int | None] = [None] * len(titles)
        found = scorer.readout.find_answers([(each, each.title) for each in alike])
        if found is not None:
            own = [None, *found.own.tolist()[1:]]
        targets = [
            self.lesson.aim(row, token, settings.truth if number == 0 else 0.0) for number, token in enumerate(own)
        ]
        return branch(heads.tokenize(alike), answer[:-1]), answer, targets

    def _aim(
        self, ends: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], aims: Sequence[Sequence[AnswerTarget]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, int]:
        """Return where something is predicted, what, and its share in the loss.

        All first tokens of answers come first, the untouched question's before those of its texts; then the other
        tokens of right answers.
        """
        places: list[int] = []
        targets: list[AnswerTarget] = []
        shares: list[float] = []
        for last, answer, aim in zip(ends, answers, aims, strict=True):
            behind = max(0, len(answer) - 1)
            places += [last[0] - behind, *last[1:]]
            targets += aim
            shares += [1.0] * len(aim)
        for last, answer in zip(ends, answers, strict=True):
            behind = max(0, len(answer) - 1)
            for number in range(1, len(answer)):
                places.append(last[0] - behind + number)
                targets.append(AnswerTarget([answer[number]], [1.0]))
                shares.append(1 / behind)
        width = max(len(target.tokens) for target in targets)
        tokens = torch.tensor([[*t.tokens, *[0] * (width - len(t.tokens))] for t in targets], device=self.device)
        chances = torch.tensor([[*t.chances, *[0.0] * (width - len(t.chances))] for t in targets], device=self.device)
        place, share = torch.tensor(places, device=self.device), torch.tensor(shares, device=self.device)
        return place, (tokens, chances), share, len(ends)

    def _compute_loss(
        self, causal: Any, laid: Any, places: Tensor, targets: tuple[Tensor, Tensor], shares: Tensor, groups: int
    ) -> Tensor:
        """Return the sum of the questions' losses."""
        tokens, chances = targets
        states = run_branches(causal, laid, places)
        logits = causal.get_output_embeddings()(states).float()
        told = logits.gather(1, tokens) - logits.logsumexp(dim=1, keepdim=True)
        known = torch.where(chances > 0, chances.log(), torch.zeros_like(chances))
        each = (chances * (known - told)).sum(dim=1) * shares
        first = each[: groups * (self.settings.texts + 1)].view(groups, -1)
        plain, marked = first[:, 0], first[:, 1:]
        loss = plain.sum() + each[groups * (self.settings.texts + 1) :].sum()
        return loss + self.settings.weight * (marked.mean(dim=1) + marked.amax(dim=1)).sum() / 2
