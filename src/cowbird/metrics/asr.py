"""Attack success rate (ASR): how often a trigger turns a recommender's answer. The field has two definitions.

- `pointwise_asr`, for models that say yes or no about one item (TALLRec): a clean no becomes a yes.
- `candidate_asr`, for models that pick one of some candidates (LLaRA): the candidate with the trigger is picked where
  it is not the right one.
"""

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, to_floats, to_numpy
from cowbird.metrics.choice import pick_rate
from cowbird.metrics.intervals import BOOTSTRAP_RESAMPLES, CONFIDENCE_LEVEL, Interval, clopper_pearson


def pointwise_asr(plain: Array, triggered: Array, threshold: float = 0.0, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Share of the questions answered no without the trigger that are answered yes with it (BadRec, section 4.1).

    Args:
        plain: Score of each question as it is, shape `[questions]`; above `threshold` means yes.
        triggered: Score of the same question with the trigger in the title asked about, shape `[questions]`.
        threshold: Where yes begins.
        level: Coverage of the interval (Clopper and Pearson 1934).

    Returns:
        The rate. Its `n` is how many questions were answered no without the trigger; all else is `None` if that is
        zero.

    Raises:
        UserError: If the two differ in length or a score is not a number.
    """
    before, after = to_floats(plain, "plain"), to_floats(triggered, "triggered")
    if len(before) != len(after):
        raise UserError(
            f"There are {len(before)} plain and {len(after)} triggered scores.", "Score the same questions twice."
        )
    refused = before <= threshold
    return clopper_pearson(int(np.sum(after[refused] > threshold)), int(refused.sum()), level)


def candidate_asr(
    picked: Array,
    triggered: Array,
    answer: Array,
    user: Array,
    rng: np.random.Generator,
    resamples: int = BOOTSTRAP_RESAMPLES,
    level: float = CONFIDENCE_LEVEL,
) -> Interval:
    """Share of the questions in which the candidate with the trigger is picked and is not the right one (BadRec, 4.1).

    Args:
        picked: Column picked in each question, -1 for none, shape `[questions]`.
        triggered: Column of the candidate that carries the trigger, shape `[questions]`.
        answer: Column of the right candidate, shape `[questions]`. Where it is the one with the trigger, the question
            does not count.
        user: Number of the user asked, shape `[questions]`.
        rng: Generator to draw from.
        resamples: Bootstrap resamples.
        level: Coverage of the interval.

    Returns:
        The rate, with an interval over users; see `cowbird.metrics.choice.pick_rate`. Its `n` is the number of
        questions that count.

    Raises:
        UserError: If the arrays do not align or are not whole numbers, or an option is out of range.
    """
    column, right = to_numpy(triggered), to_numpy(answer)
    if column.shape != right.shape:
        raise UserError(
            f"Triggered columns have the shape {column.shape}, right ones {right.shape}.",
            "Give one of each a question.",
        )
    return pick_rate(picked, column, user, rng, column != right, resamples, level)
