"""Arguments and options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from cowbird.cli.terminal import err_console, sanitize_line
from cowbird.errors import UserError
from cowbird.path_hints import suggest_close_paths

if TYPE_CHECKING:
    import torch

    from cowbird.defenses.p_scanner.small_tagger import TaggerSource


class EngineChoice(StrEnum):
    """Where work runs."""

    LOCAL = "local"
    RAY = "ray"


class TrackChoice(StrEnum):
    """Where finished cells are tracked."""

    MLFLOW = "mlflow"


CatalogArgument = Annotated[
    Path,
    typer.Argument(
        help="CSV, TSV, JSON (each perhaps .gz, .zst, .bz2 or .xz), Parquet, a folder, a database, an address or '-'."
    ),
]
TextColumnOption = Annotated[str, typer.Option("--text-column", help="The column of titles.")]
TaggerOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|DIR",
        help="What reads titles where no fit is needed: llm, a language model; small is faster and finds less; cascade "
        "is both; auto (default) is llm on a GPU and cascade elsewhere; or what cowbird train-scanner made.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
SpecArgument = Annotated[
    str, typer.Argument(help="A TOML file, or the name of a spec that ships (cowbird list specs).")
]
ProfileOption = Annotated[str, typer.Option(help="A profile of the spec, such as another dataset.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run; new or empty unless --resume is given.")]
JobsOption = Annotated[
    int,
    typer.Option(
        min=1, help="Cells (victim and seed) run at once: in processes on a CPU, in threads that share the GPUs."
    ),
]
EngineOption = Annotated[
    EngineChoice, typer.Option(help="Where it runs: local, on this machine; ray, on a Ray cluster (see --ray-address).")
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        show_envvar=False,
        help="The Ray cluster, such as ray://head:10001; by default one is started on this machine. Or RAY_ADDRESS.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
AllowPluginsOption = Annotated[
    bool,
    typer.Option(
        "--allow-plugins",
        help="Import plug-ins from files in the current folder and by dotted path: this runs their code.",
    ),
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print no progress and no tables; warnings and errors stay.")
]
AgentUrlOption = Annotated[
    str | None,
    typer.Option(
        "--agent-url",
        help="OpenAI-compatible server of an agent, such as http://localhost:8000/v1. Or COWBIRD_AGENT_URL.",
    ),
]
AgentKeyEnvOption = Annotated[
    str | None,
    typer.Option(
        "--agent-key-env",
        metavar="NAME",
        help="Environment variable that holds the key, OPENAI_API_KEY by default; none sends no key. "
        "Or COWBIRD_AGENT_KEY_ENV.",
    ),
]
AgentLogOption = Annotated[
    bool,
    typer.Option(
        "--agent-log",
        help="Keep all exchanges with the server in agent-log.jsonl in the folder of --out. Or COWBIRD_AGENT_LOG=1.",
    ),
]
HandedModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The model's file: of Cowbird, RecBole, RePlay or RecTools. Or function:MODULE:NAME or process:COMMAND. "
        "A language model or adapter is a folder.",
    ),
]
LoaderOption = Annotated[
    str, typer.Option("--format", metavar="NAME", help="The loader of the file: recbole, replay, rectools; it tells.")
]
LoaderSettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="What the file does not tell, such as heads=2. May be repeated."),
]
AllowServedOption = Annotated[
    bool,
    typer.Option("--allow-plugins", help="Let MODEL import a function or start a process: this runs its code."),
]


def choose_tagger(given: str | None, device: "str | torch.device") -> "TaggerSource":
    """Return the tagger that an option names; by default the one that suits the device.

    Raises:
        UserError: If it is neither a known name nor a folder.
    """
    if given is None or given == "auto":
        from cowbird.defenses.p_scanner.loading import choose_ready_tagger  # noqa: PLC0415

        found = choose_ready_tagger(device)
        if found.lacking:
            line = (
                f"The small tagger reads alone, and finds less (--tagger small says no more of this). {found.lacking}"
            )
            err_console.print(Text("warning  ", style="yellow") + sanitize_line(line))
        return found.name
    if given in ("llm", "small", "cascade"):
        return given
    folder = Path(given)
    if not folder.is_dir():
        raise UserError(
            f"There is no tagger '{given}': neither auto, llm, small nor cascade, and no folder.",
            f"{suggest_close_paths(folder)} Make one with cowbird train-scanner RECIPE.toml --out DIR.".strip(),
        )
    return folder.resolve()
