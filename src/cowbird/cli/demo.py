"""`cowbird demo`: the shipped experiments that take minutes, then a scan of what the second leaves behind."""

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cowbird.cli.fit_scanner import fit_and_show
from cowbird.cli.options import DeviceOption, JobsOption, OutOption
from cowbird.cli.run import format_options, read_spec, run_and_show
from cowbird.cli.scan import scan_and_show
from cowbird.cli.terminal import MAX_LINE, out_console
from cowbird.errors import UserError
from cowbird.report.terminal import sanitize_text

if TYPE_CHECKING:
    from cowbird.experiments.spec import Spec

EXAMPLES = ("cowbird demo", "cowbird demo --out runs/demo --device cuda")


def demo(
    out: OutOption = Path("runs/demo"), device: DeviceOption = "auto", jobs: JobsOption = 1, seeds: str | None = None
) -> None:
    """Plant backdoors in recommenders of MovieLens-100K and measure them (a few minutes on two cores).

    Two shipped specs: one against a pre-trained sequential recommender, and one, in a folder beside the first, against
    a small language model that reads titles. Then the titles that the second leaves behind are scanned. A run that was
    interrupted goes on by itself.
    """
    from cowbird.experiments.spec import find_shipped_spec  # noqa: PLC0415

    again = shlex.join(["cowbird", "demo", "--out", str(out), *format_options(seeds, device, jobs)])
    lacking = _explain_missing_model()
    parts = {"demo": out} if lacking else {"demo": out, "demo_titles": out.with_name(f"{out.name}-titles")}
    for name, folder in parts.items():
        run_and_show(
            read_spec(find_shipped_spec(name), seeds), folder, device, jobs, (folder / "spec.json").exists(), again
        )
    if lacking:
        left_out = Text("Left out: the parts that read titles. ", style="yellow")
        out_console.print(left_out + sanitize_text(lacking, MAX_LINE))
    else:
        _scan_left_behind(read_spec(find_shipped_spec("demo_titles"), seeds), out.with_name(f"{out.name}-scan"), device)


def _scan_left_behind(spec: "Spec", out: Path, device: str) -> None:
    """Scan the catalogue that the demo's seller left behind."""
    from cowbird.experiments import demo as parts  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    catalog, scanner, findings = out / "catalog.csv", out / "scanner", out / "findings.csv"
    planted = parts.write_catalog(spec, catalog)
    out_console.print(Text("A scan of the titles that the seller left behind, by a small scanner", style="bold"))
    fit_and_show(catalog, scanner, parts.DEMO_SCANNER, "title", spec.seeds[0], True, pick_device(device))
    scan_and_show(catalog, scanner, findings, pick_device(device))
    out_console.print(sanitize_text(parts.format_tally(findings, planted), MAX_LINE))


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
