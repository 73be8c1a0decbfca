"""New spec files for one's own data: commented TOML with clear placeholders."""

from pathlib import Path

from cowbird.errors import UserError
from cowbird.files import write_text
from cowbird.text import escape_terminal

TEMPLATE_FOLDER = Path(__file__).parents[1] / "templates"
"""Where the texts of new spec files lie, one a dataset source."""


def write_template(source: str, out: Path, force: bool = False) -> None:
    """Write a new spec file.

    Args:
        source: Name of the dataset source that it reads; a file of the folder of templates.
        out: The new file.
        force: Whether a file that is there may be replaced.

    Raises:
        UserError: If there is a file already, or it can't be written.
    """
    text = (TEMPLATE_FOLDER / f"{source}.toml").read_text(encoding="utf-8").replace("{file}", escape_terminal(out.name))
    if out.is_dir():
        raise UserError(f"'{out}' is a folder.", "Name a file, such as --out spec.toml.")
    if out.exists() and not force:
        raise UserError(f"'{out}' is there already.", "Name another file with --out, or add --force to replace it.")
    write_text(out, text)
