"""`cowbird-hook`: several files through `cowbird scan`, for pre-commit, which hands over names behind the options.

    cowbird-hook --detector character_rules -- items.csv more.csv

What stands before `--` goes to each scan. Findings go into a folder that is removed; what was found is printed.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from cowbird.errors import ExitCode, UserError
from cowbird.outputs import check_outputs
from cowbird.text import escape_lines

WORST_FIRST = (ExitCode.ERROR, ExitCode.FINDINGS, ExitCode.INCOMPLETE)
"""Of several files the first of these is returned."""

WRITING_OPTIONS = ("--sarif", "--junit", "--summary")
"""Options of a scan that name a file to write. Findings go into a folder that is removed."""


def find_written(options: Sequence[str]) -> dict[str, list[Path | str]]:
    """Return the files that options have a scan write, by option."""
    words = [each for word in options for each in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = list(pairwise(words))
    return {option: [Path(value) for word, value in pairs if word == option] for option in WRITING_OPTIONS}


def main() -> None:
    """Scan each file, and end with the worst exit code: an error, findings, rows not read, nothing."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options, files = words[:cut], words[cut + 1 :]
    codes = set[int]()
    written = find_written(options)
    try:
        # A scan knows its own file alone; a report on the first must not replace the second.
        check_outputs(written, {"a scan": [Path(file) for file in files]})
        named = next((option for option, paths in written.items() if paths), None)
        if named is not None and len(files) > 1:
            raise UserError(
                f"{named} names one file, and {len(files)} files are scanned: the last one's report alone would stay.",
                "Leave it out, or call cowbird scan for each file.",
            )
    except UserError as error:
        print(f"Error: {escape_lines(str(error))}", file=sys.stderr)
        raise SystemExit(int(ExitCode.ERROR)) from None
    with tempfile.TemporaryDirectory() as folder:
        for nth, file in enumerate(files):
            out = Path(folder) / f"{nth}.jsonl"
            command = [sys.executable, "-m", "cowbird", "scan", *options, "--out", str(out), "--", file]
            codes.add(subprocess.run(command, check=False).returncode)
    worst = next((code for code in WORST_FIRST if code in codes), ExitCode.CLEAN)
    odd = codes - {ExitCode.CLEAN, *WORST_FIRST}
    raise SystemExit(int(ExitCode.ERROR if odd else worst))


if __name__ == "__main__":
    main()
