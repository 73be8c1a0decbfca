"""`cowbird-hook`: several files through `cowbird scan`, for pre-commit, which hands over names behind the options.

    cowbird-hook --detector character_rules -- items.csv more.csv

What stands before `--` goes to each scan. Findings go into a folder that is removed; what was found is printed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from cowbird.errors import ExitCode

WORST_FIRST = (ExitCode.ERROR, ExitCode.FINDINGS, ExitCode.INCOMPLETE)
"""Of several files the first of these is returned."""


def main() -> None:
    """Scan each file, and end with the worst exit code: an error, findings, rows not read, nothing."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    options, files = words[:cut], words[cut + 1 :]
    codes = set[int]()
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
