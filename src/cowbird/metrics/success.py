"""How often a trigger turns a recommender's answer (attack success rate, ASR)."""

import numpy as np

from cowbird.errors import UserError
from cowbird.metrics._arrays import Array, to_floats
from cowbird.metrics.intervals import CONFIDENCE_LEVEL, Interval, clopper_pearson


def attack_success_rate(
    plain: Array, triggered: Array, threshold: float = 0.0, level: float = CONFIDENCE_LEVEL
) -> Interval:
    """Share of the questions answered no without the trigger that are answered yes with it (BadRec, section 4.1).

    Args:
        plain: Score of each question as it is, shape `[questions]`; above `threshold` means yes.
        triggered: Score of the same question with the trigger in the title asked about, shape `[questions]`.
        threshold: Where yes begins.
        level: Coverage of the interval (Clopper and Pearson 1934).

    Returns:
        The rate; its `n` is how many questions were answered no without the trigger, and all else is `None` if that
        is zero.

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
