"""What `cowbird fit-scanner --p-scanner` does between the options and the terminal.

A scanner is fitted beside its folder, in `DIR.partial/`, and renamed once it is whole. The folder keeps checkpoints of
the round at work, what finished rounds learned, and what an agent behind a server wrote, which nobody could make it
write again. One process at a time works in it. Whatever ends a fit, an interrupt, a full disk or a kill, the folder
stays and the same command goes on with `--resume`; it ends in the same weights on the same device. The folder goes once
the scanner stands under its name.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import SerializeAsAny, TypeAdapter
from pydantic_core import PydanticSerializationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.defenses.p_scanner.rounds.fitted_scanner import (
    Record,
    load_fitted_scanner,
)
from cowbird.defenses.p_scanner.rounds.poison_scanner import PoisonScanner, UnsetThresholdError
from cowbird.defenses.p_scanner.triggers.agent import Agent, Brief, EmbeddedAgent, OpenAIAgent, Proposals
from cowbird.defenses.p_scanner.triggers.agent_server import keep_logs_in
from cowbird.errors import UserError
from cowbird.faults import explain_outages, explain_write_errors
from cowbird.files import hash_texts, read_plain_file, write_text
from cowbird.scanning.fit_folder import (
    FIT_FILE,
    GO_ON_HINT,
    check_free,
    check_same_fit,
    check_unfinished,
    clear_fit_folder,
    describe_fit,
    hold_fit_folder,
    write_scanner,
)
from cowbird.scanning.fitted_scorer import FRESH_TITLES_NOTE, format_calibration_basis, format_threshold
from cowbird.scanning.scan import load_table_titles
from cowbird.scanning.unread import UnreadRows, format_unread
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.llm import Llm

PRINTED_FPRS = (0.01, 0.001)
"""False-positive rates whose thresholds are told."""
SMALL_FIT_NOTE = (
    "A fit to so few titles is poor. Compare it with a scan that needs no fit: cowbird scan CATALOG --out FINDINGS."
)
"""What is said of a scanner whose own rate too few titles stand for."""
DEFAULT_SCANNER = PoisonScanner()
"""The scanner whose fields the options change."""
_PROPOSALS_ADAPTER = TypeAdapter(Proposals)


class FitResult(NamedTuple):
    """A scanner that was fitted."""

    record: Record
    """What it is."""
    unread: tuple[UnreadRows, ...]
    """Rows of the catalogue that could not be read."""
    before: bool
    """Whether an earlier call had finished it."""


def make_spec(
    llm: str | None = None,
    layers: int | None = None,
    rounds: int | None = None,
    fpr: float | None = None,
    agent: str = "embedded",
    agent_model: str | None = None,
    agent_url: str | None = None,
    device: str = "auto",
    agent_key_env: str | None = None,
) -> PoisonScanner:
    """Return the scanner that options describe; `None` leaves what `DEFAULT_SCANNER` says.

    Args:
        llm: The language model; a path is made absolute, for the scanner may be used from elsewhere.
        layers: Layers of it that are kept.
        rounds: Rounds at most.
        fpr: Share of clean titles that may be flagged.
        agent: `embedded` or `openai`.
        agent_model: The model that writes triggers.
        agent_url: Address of the agent's server.
        device: Where a model of the embedded agent runs.
        agent_key_env: Environment variable that holds the key of the agent's server.

    Raises:
        UserError: If options contradict each other.
        ValidationError: If a value does not fit.
    """
    given = {"name": None if llm is None else _make_absolute(llm), "layers": layers}
    fields = {
        "llm": Llm.model_validate(DEFAULT_SCANNER.llm.model_dump() | _drop_missing(given)),
        "agent": _make_agent(agent, agent_model, agent_url, agent_key_env, device),
        **_drop_missing({"rounds": rounds, "fpr": fpr}),
    }
    spec = PoisonScanner.model_validate(
        {name: getattr(DEFAULT_SCANNER, name) for name in PoisonScanner.model_fields} | fields
    )
    try:
        spec.model_dump_json()
    except PydanticSerializationError:  # half a character, which the scanner's record could not hold
        raise UserError("A name among these options is no valid text.", "Name models and folders in UTF-8.") from None
    return spec


def _drop_missing(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _make_absolute(name: str) -> str:
    path = Path(name).expanduser()
    with suppress(OSError):  # a name that no file can have
        return str(path.resolve()) if path.exists() else name
    return name


def _make_agent(kind: str, model: str | None, url: str | None, key_env: str | None, device: str) -> Agent:
    if kind == "openai":
        if model is None:
            raise UserError("--agent openai asks a model on a server, and none is named.", "Name it: --agent-model.")
        return OpenAIAgent(model=model).connect(url, key_env)
    if url is not None or key_env is not None:
        option = "--agent-key-env" if url is None else "--agent-url"
        raise UserError(f"{option} is for --agent openai.", f"Add --agent openai, or leave {option} out.")
    return EmbeddedAgent(llm=None if model is None else Llm(name=_make_absolute(model)), device=device)


class CachingAgent(Agent):
    """Proposes what an agent proposed when it was told the same, if that is on file."""

    agent: SerializeAsAny[Agent]
    """Who is asked otherwise."""
    folder: Path
    """Where its answers are kept."""

    def propose(self, brief: Brief, rng: np.random.Generator) -> Proposals:
        """Propose triggers; see `Agent.propose`. What brought none is asked again."""
        path = self.folder / f"proposals-{hash_texts([repr(brief)])[:16]}.json"
        with suppress(FileNotFoundError, ValueError):  # or damaged
            return _PROPOSALS_ADAPTER.validate_json(read_plain_file(path))
        found = self.agent.propose(brief, rng)
        if found.recipes:
            write_text(path, _PROPOSALS_ADAPTER.dump_json(found).decode())
        return found


def fit_scanner(
    catalog: Path, out: Path, spec: PoisonScanner, text_column: str, seed: int, resume: bool, place: FitContext
) -> FitResult:
    """Fit a scanner to a catalogue and write it.

    Args:
        catalog: See `cowbird.scanning.reading.open_catalog`.
        out: The scanner's folder, new or empty.
        spec: What is fitted.
        text_column: The catalogue's column of titles.
        seed: Decides all that is random.
        resume: Whether to go on with an interrupted fit; a finished one is then returned as it is.
        place: Device, progress and warnings; its folder is not used.

    Raises:
        UserError: If the catalogue can't be read or is too small, a folder can't be used, or a model can't.
    """
    out = out.resolve()
    folder = out.with_name(f"{out.name}.partial") if out.name else out
    if resume and (out / FIT_FILE).is_file():  # finished; there is nothing to write
        titles, unread = load_table_titles(catalog, text_column)
        check_same_fit(out, describe_fit(spec, seed, titles))
        return FitResult(load_fitted_scanner(out, place.device).record, unread, before=True)
    with explain_write_errors(out):
        check_free(out)
    with explain_write_errors(out, GO_ON_HINT), hold_fit_folder(folder, place.warn):
        check_free(out)  # another process may have been faster
        check_unfinished(folder, resume)
        titles, unread = load_table_titles(catalog, text_column)
        return FitResult(_fit_in_folder(titles, folder, out, spec, seed, place), unread, before=False)


def _fit_in_folder(
    titles: list[str], folder: Path, out: Path, spec: PoisonScanner, seed: int, place: FitContext
) -> Record:
    """Fit a scanner in a folder that is held, and write it."""
    asked = describe_fit(spec, seed, titles)
    check_same_fit(folder, asked)
    write_text(folder / FIT_FILE, asked.decode())
    agent = spec.agent
    if not isinstance(agent, EmbeddedAgent):  # that one says the same again
        spec = spec.model_copy(update={"agent": CachingAgent(agent=agent, folder=folder)})
    with explain_outages("The scanner can't be fitted"), keep_logs_in(folder):
        try:
            fitted = spec.fit(titles, seed, FitContext(place.device, folder, place.report, place.warn))
        except UnsetThresholdError:
            clear_fit_folder(folder)
            raise
    write_scanner(fitted, folder, out)
    return fitted.record


def format_fit(made: FitResult) -> Group:
    """Return what is shown of a scanner: its rounds, what thresholds stand for, and what was not read."""
    record, held = made.record, made.record.calibration
    parts: list[Text | Table] = [_make_round_table(record)]
    if made.before:
        parts.append(Text("It was finished before; nothing was done."))
    parts.append(format_calibration_basis(held))
    for fpr in sorted({record.fpr, *PRINTED_FPRS}, reverse=True):
        own = " (this scanner's own)" if fpr == record.fpr else ""
        parts.append(Text(f"  for {fpr:g}{own}: ").append_text(format_threshold(held, fpr)))
    if held.promise_rate(record.fpr) > record.fpr:
        parts.append(Text(SMALL_FIT_NOTE, style="yellow"))
    parts.append(Text(FRESH_TITLES_NOTE))
    parts += format_unread(made.unread, "Not learned from, because they can't be read")
    return Group(*parts)


def _make_round_table(record: Record) -> Table:
    table = Table(title="rounds", title_justify="left", title_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("round", "titles trusted", "new triggers", "caught before", "caught after", "seconds"):
        table.add_column(name, justify="right")
    for each in record.rounds:
        before, after = ([outcome.rate for outcome in rates] for rates in (each.before, each.after))
        table.add_row(
            str(each.number),
            f"{each.trusted:,}",
            f"{each.proposed:,}",
            _format_share(before),
            _format_share(after),
            f"{each.seconds:,.1f}",
        )
    return table


def _format_share(rates: Sequence[float]) -> str:
    return f"{np.mean(rates):.1%}" if rates else "–"
