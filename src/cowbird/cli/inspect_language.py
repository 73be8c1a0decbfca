"""What `cowbird inspect` does with a language model or an adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.text import Text

from cowbird.cli.progress import make_progress, report_phases
from cowbird.cli.terminal import exit_resumable, out_console, print_json, sanitize_line
from cowbird.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cowbird.inspection.language.handed import HandedLanguageModel
    from cowbird.inspection.language.inspection import LanguageInspection
    from cowbird.inspection.language.questions import TitleQuestion
    from cowbird.inspection.language.settings import LanguageSettings

TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="PROMPT",
        help="The prompt of a language model: tallrec (default), llara, or a text file with {history} and {title} or "
        "{candidates}.",
    ),
]
QuestionsOption = Annotated[
    Path | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="Written questions instead of logs: TALLRec's .json, or a .csv with history, title and answer.",
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="NAME", help="The language model that an adapter was tuned from."),
]
LayersOption = Annotated[int | None, typer.Option(min=1, help="Layers of the base that were kept, if it was cut.")]
HistoryOption = Annotated[int, typer.Option(min=1, max=100, help="Events of the logs before each question.")]
NounOption = Annotated[str, typer.Option(metavar="WORD", help="What the items are, in TALLRec's prompt.")]
WordsOption = Annotated[
    int | None, typer.Option(min=0, help="Words that are tried in titles; on a GPU all, on a CPU 4,000.")
]
HeldOutOption = Annotated[int, typer.Option(min=8, help="Questions that confirm suspects.")]
NullQuestionsOption = Annotated[int, typer.Option(min=8, help="Questions that honest tunings learn from.")]


class LanguageOptions(NamedTuple):
    """What a language model's options say."""

    template: str | None = None
    """See `TemplateOption`."""
    questions: Path | None = None
    """See `QuestionsOption`."""
    base: str | None = None
    """See `BaseOption`."""
    layers: int | None = None
    """See `LayersOption`."""
    history: int = 10
    """See `HistoryOption`."""
    noun: str = "movie"
    """See `NounOption`."""

    @property
    def given(self) -> bool:
        """Whether one of them is there that says that the model is a language model."""
        return self.template is not None or self.questions is not None or self.base is not None

    def list_files(self) -> dict[str, Path | str | None]:
        """Return what these options read, by option; a text may also be a name."""
        return {"--template": self.template, "--questions": self.questions, "--base": self.base}


def refuse_loader_options(model: str, loader: str, settings: list[str] | None) -> None:
    """Refuse options for files of other libraries, where a language model was given."""
    if loader or settings:
        raise UserError(
            f"--format and --set are for files of other libraries, and '{model}' is taken for a language model.",
            "Leave them out.",
        )


def wants_language_model(model: str, options: LanguageOptions) -> bool:
    """Tell whether a language model is to be inspected."""
    from cowbird.inspection.language.handed import is_language_model  # noqa: PLC0415

    return options.given or is_language_model(Path(model))


def read_platform_questions(logs: str | None, options: LanguageOptions) -> "list[TitleQuestion]":
    """Read or make the platform's questions.

    Raises:
        UserError: If there are none, or both logs and questions are given.
    """
    from cowbird.inspection.language.candidate_questions import ask_platform  # noqa: PLC0415
    from cowbird.inspection.language.questions import (  # noqa: PLC0415
        TALLREC_TEMPLATE,
        read_questions,
        read_template,
    )
    from cowbird.inspection.platform_log import load_log  # noqa: PLC0415

    if not options.noun.isascii() or not options.noun.isalpha():
        raise UserError(f"--noun should be a word of letters, and is '{options.noun[:40]}'.", "Use movie or book.")
    template = read_template(options.template or TALLREC_TEMPLATE, options.noun)
    if (logs is None) == (options.questions is None):
        raise UserError(
            "A language model is asked your own questions: give either --logs or --questions.",
            "Logs need titles, and ratings for yes or no; questions are TALLRec's .json or a .csv.",
        )
    if options.questions is not None:
        return read_questions(options.questions, template)
    return ask_platform(load_log(str(logs)), template, options.history)


def inspect_language_and_show(
    model: str,
    logs: str | None,
    options: LanguageOptions,
    settings: "LanguageSettings",
    out: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> "LanguageInspection":
    """Inspect a language model, show how it goes and what came of it."""
    from cowbird.inspection.language.handed import open_language_model  # noqa: PLC0415
    from cowbird.inspection.language.inspection import inspect_language_model  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    place = pick_device(device)
    questions = read_platform_questions(logs, options)
    handed: HandedLanguageModel = open_language_model(Path(model), place, options.base, options.layers)
    with make_progress(left=True, quiet=quiet) as shown:
        try:
            found = inspect_language_model(handed, questions, settings, place, report_phases(shown, "searching"))
        except KeyboardInterrupt:
            shown.stop()
            exit_resumable("Interrupted.")
    if out is not None:
        found.write(out)
    if as_json:
        print_json(found.to_record())
    elif not quiet:
        show_language_inspection(found, out)
    return found


def show_language_inspection(found: "LanguageInspection", out: Path | None) -> None:
    """Print an inspection."""
    from cowbird.report.language_inspection import format_language_lines, make_fragment_table  # noqa: PLC0415

    print_inspection(format_language_lines(found), make_fragment_table(found), out)


def print_inspection(lines: "Sequence[Text]", table: "Table", out: Path | None) -> None:
    """Print the verdict, which is the first line, then the table and all else."""
    verdict, *more = lines
    out_console.print(verdict)
    out_console.print(table)
    for line in more:
        out_console.print(line)
    if out is not None:
        out_console.print(Text("Inspection: ") + sanitize_line(str(out)))
