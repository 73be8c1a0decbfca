"""`cowbird demo`: a scan of a catalogue with planted triggers, shipped experiments, and the inspection of a model."""

import importlib.util
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cowbird.cli.options import DeviceOption, JobsOption, OutOption, choose_tagger
from cowbird.cli.progress import make_progress, report_phases
from cowbird.cli.run import format_options, read_spec, run_and_show
from cowbird.cli.scan_work import ReadyRequest, ScanRequest, scan_and_show, scan_ready_and_show
from cowbird.cli.terminal import MAX_LINE, out_console
from cowbird.errors import UserError
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.experiments.spec import Spec

DEMO_EXAMPLES = ("cowbird demo", "cowbird demo --out runs/demo --device cuda")


def demo(
    out: OutOption = Path("runs/demo"), device: DeviceOption = "auto", jobs: JobsOption = 1, seeds: str | None = None
) -> None:
    """Scan a catalogue with planted triggers, then plant backdoors in recommenders and measure them.

    The data is MovieLens-100K (cowbird assets fetches it), and all parts take a few minutes on two cores. First a
    catalogue is scanned in which two sellers planted triggers: by rules for characters, then by the scanner that comes
    with Cowbird and needs no fit. Two shipped experiments follow: one against a pre-trained sequential recommender, and
    one against a small language model that reads titles. Both go on by themselves after an interruption. At the end a
    model that was planted is inspected, and the inspector is not told what to look for.
    """
    from cowbird.experiments.spec_labels import find_shipped_spec  # noqa: PLC0415

    again = shlex.join(["cowbird", "demo", "--out", str(out), *format_options(seeds, device, jobs)])
    lacking = _explain_missing_model()
    _scan_planted(
        read_spec(find_shipped_spec("demo_titles"), seeds), out.with_name(f"{out.name}-scan"), device, not lacking
    )
    parts = {"demo": out} if lacking else {"demo": out, "demo_titles": out.with_name(f"{out.name}-titles")}
    for name, folder in parts.items():
        run_and_show(
            read_spec(find_shipped_spec(name), seeds), folder, device, jobs, (folder / "spec.json").exists(), again
        )
    _inspect_planted(read_spec(find_shipped_spec("demo"), seeds), out, device)
    if lacking:
        left_out = Text("Left out: the parts that need a language model. ", style="yellow")
        out_console.print(left_out + sanitize_text(lacking, MAX_LINE))


def _scan_planted(spec: "Spec", out: Path, device: str, language_model: bool) -> None:
    """Scan a catalogue with planted triggers: by rules, and by the ready scanner, with a language model or without."""
    from cowbird.defenses.character_rules import CharacterRules  # noqa: PLC0415
    from cowbird.experiments import demo as parts  # noqa: PLC0415
    from cowbird.scanning import detectors  # noqa: PLC0415
    from cowbird.scanning.scan import ScanForm  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    catalog, ruled, findings = out / "catalog.csv", out / "findings-characters.csv", out / "findings.csv"
    planted = parts.write_catalog(spec, catalog)
    _show_heading("A catalogue in which two sellers planted triggers, scanned by rules for characters")
    rules = detectors.open_detector("character_rules", CharacterRules(), None, None)
    scan_and_show(ScanRequest(catalog, ruled, ScanForm()), rules, partial(detectors.copy_scorer, rules))
    out_console.print(sanitize_text(parts.format_tally(ruled, planted), MAX_LINE))
    _show_heading("The same catalogue, scanned by the scanner that comes with Cowbird; nothing is fitted")
    place = pick_device(device)
    tagger = choose_tagger("auto" if language_model else "small", place)
    scan_ready_and_show(ScanRequest(catalog, findings, ScanForm()), ReadyRequest(str(place), tagger))
    out_console.print(sanitize_text(parts.format_tally(findings, planted), MAX_LINE))


def _inspect_planted(spec: "Spec", run: Path, device: str) -> None:
    """Inspect a model that a run planted, beside its platform's logs; then say what was planted."""
    from cowbird.cli.inspect import show_inspection  # noqa: PLC0415
    from cowbird.experiments import demo_inspection as parts  # noqa: PLC0415
    from cowbird.inspection.inspection import InspectionSettings, inspect_ranker  # noqa: PLC0415
    from cowbird.inspection.opening import open_model  # noqa: PLC0415
    from cowbird.inspection.platform_log import align_log  # noqa: PLC0415
    from cowbird.processes import count_processors  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    planted = parts.find_planted_model(spec, run)
    if planted is None:
        return
    _show_heading("A model of the first experiment, inspected by somebody who was told nothing (a minute or two)")
    place = pick_device(device)
    opened = open_model(str(planted.path), place)
    log = align_log(parts.load_platform(spec), opened.model.items, opened.item_ids)
    with make_progress() as shown:
        told = report_phases(shown, "asking the model")
        settings = InspectionSettings(seed=spec.seeds[0])
        found = inspect_ranker(opened, log, settings, place, told, count_processors())
    written = run.with_name(f"{run.name}-inspection.json")
    found.write(written)
    show_inspection(found, written)
    out_console.print(sanitize_text(parts.format_ranks(found, planted.targets), MAX_LINE))


def _show_heading(text: str) -> None:
    out_console.print(Text(f"\n{text}", style="bold"))


def _explain_missing_model() -> str:
    """Return why the embedded language model can't be used; empty if it can."""
    from cowbird.files import get_cache_folder  # noqa: PLC0415
    from cowbird.victims.language import assets  # noqa: PLC0415

    missing = [name for name in ("transformers", "peft", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        return f"It needs {', '.join(missing)}: pip install 'cowbird[llm]'."
    try:
        assets.find_embedded_model("smollm2-135m", get_cache_folder())
    except UserError as error:
        return f"{error.message} {error.hint}"
    return ""
