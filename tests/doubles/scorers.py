"""Scorers for processes that judge: what makes them has to be a function of a module."""

import os
import time

import numpy as np

from cowbird.errors import UserError
from cowbird.scanning.verdicts import FlaggedSuspicion


class Slow:
    """Flags titles with `xq`; takes longer for the first titles, so that later ones are done before them."""

    key = "slow"

    def scan(self, titles):
        if "leave" in titles:
            os._exit(9)
        if "refuse" in titles:
            raise UserError("It can't be judged.", "Try another.")
        time.sleep(0.2 if "first" in titles else 0)
        start = np.array([title.find("xq") for title in titles])
        return FlaggedSuspicion(start >= 0, start, np.where(start < 0, -1, start + 2), start >= 0)
