"""Lists that count how often they are fitted, and take their time: one line a fit in the file that a variable names.

Another variable names a file: whoever does not find it there makes it, and kills its own process.
"""

import os
import signal
import time
from pathlib import Path

from doubles.toy_task import MostRead


class CountedList(MostRead):
    """Shows the items with the most events, and says so."""

    def fit(self, data, banned, seed, context=None, start=None):
        """Count events, and the fit: its line has the model's folder."""
        mark = os.environ.get("COUNTED_KILL")
        if mark and not Path(mark).exists():
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("COUNTED_SECONDS", "0")))
        fitted = super().fit(data, banned, seed, context, start)
        if "COUNTED_FITS" in os.environ:
            handle = os.open(os.environ["COUNTED_FITS"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.write(handle, f"{context.folder.relative_to(context.folder.parents[3])}\n".encode())
            os.close(handle)
        return fitted
