"""`python -m cowbird` is the `cowbird` command, and this module its entry point.

Python ends with 1 where it can't import something, and scripts take 1 for findings: here that is an error as any other.
"""

import traceback

from cowbird.errors import ExitCode


def main() -> None:
    """Run the command line, if it can be imported."""
    try:
        from cowbird.cli.app import main as run  # noqa: PLC0415
    except KeyboardInterrupt:
        raise SystemExit(int(ExitCode.INCOMPLETE)) from None
    except BaseException:
        traceback.print_exc()
        raise SystemExit(int(ExitCode.ERROR)) from None
    run()


if __name__ == "__main__":
    main()
