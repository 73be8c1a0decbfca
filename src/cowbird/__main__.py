"""`python -m cowbird` is the `cowbird` command, and this module its entry point.

Threads of torch wait asleep, not spinning: on a busy machine spinning threads take processors from whoever has work.
That is said in the environment, before torch is loaded; what the user said there stands. So is that the library of the
model hub asks no server: models are loaded from this machine alone.

Libraries end the process themselves, with codes of their own, where the system gives them too little memory to start.
So limits that are too low are refused before they are loaded.

Python ends with 1 where it can't import something, and scripts take 1 for findings: here that is an error as any other.
"""

import os
import sys
import traceback
from contextlib import suppress

from cowbird.cli.streams import send_nowhere
from cowbird.errors import ExitCode

MIN_ADDRESS_MB, MIN_DATA_MB = 1536, 512
"""Least address space and data, in MB, with which the libraries can be loaded on two processors."""


def main() -> None:
    """Run the command line, if it can be imported."""
    refuse_low_limits()
    set_thread_policy()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from cowbird.processes import hold_collections  # noqa: PLC0415

        with hold_collections():
            from cowbird.cli.app import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        exec("")  # see `cowbird.processes.forget_interrupts`, which may not be imported yet
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
    except BaseException:
        _say(traceback.format_exc())
        raise SystemExit(int(ExitCode.ERROR)) from None
    run()


def refuse_low_limits() -> None:
    """End with an error if this process may have less memory than the libraries need to be loaded."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415

    for kind, needed, option in (
        (resource.RLIMIT_AS, MIN_ADDRESS_MB, "-v"),
        (resource.RLIMIT_DATA, MIN_DATA_MB, "-d"),
    ):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY and limit < needed << 20:
            told = (
                f"This process may have {limit >> 20:,} MB (ulimit {option}), and Cowbird needs {needed:,} MB to start."
            )
            _say(f"Error: {told}\nRaise the limit: ulimit {option} unlimited, or {needed << 10}.\n")
            raise SystemExit(int(ExitCode.ERROR))


def _say(text: str) -> None:
    """Write an error; nobody may be there to read it, and the exit code stays.

    What could not be written stays in the stream, and Python would end with a code of its own for it. So the rest goes
    nowhere.
    """
    with suppress(ValueError, AttributeError):
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            send_nowhere(sys.stderr)


def set_thread_policy() -> None:
    """Have threads sleep while they wait, in this process and in workers, unless the environment says how they wait.

    How many threads there are is not changed, for sums depend on it in their last digits.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


if __name__ == "__main__":
    main()
