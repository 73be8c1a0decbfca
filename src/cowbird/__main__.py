"""`python -m cowbird` is the `cowbird` command, and this module its entry point.

Threads of torch wait asleep, not spinning: on a busy machine spinning threads take processors from whoever has work.
That is said in the environment, before torch is loaded; what the user said there stands. So is that the library of the
model hub asks no server: models are loaded from this machine alone.

Python ends with 1 where it can't import something, and scripts take 1 for findings: here that is an error as any other.
"""

import os
import traceback

from cowbird.errors import ExitCode


def main() -> None:
    """Run the command line, if it can be imported."""
    set_thread_policy()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from cowbird.cli.app import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
    except BaseException:
        traceback.print_exc()
        raise SystemExit(int(ExitCode.ERROR)) from None
    run()


def set_thread_policy() -> None:
    """Have threads sleep while they wait, in this process and in workers, unless the environment says how they wait.

    How many threads there are is not changed, for sums depend on it in their last digits.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


if __name__ == "__main__":
    main()
