"""What `cowbird sanitize` does with a language model or an adapter."""

import dataclasses
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from cowbird.cli.inspect_language import LanguageOptions, read_platform_questions
from cowbird.cli.progress import make_progress
from cowbird.cli.terminal import out_console, print_json, sanitize_line
from cowbird.errors import ExitCode, UserError

LEFT_ASR = 0.05
"""ASR of a suspect from which it counts as still there, if it is larger than that of other texts, too."""


def sanitize_language(
    model: str,
    suspects: Path,
    logs: str | None,
    out: Path,
    options: LanguageOptions,
    learning_rate: float | None,
    distill: bool | None,
    seed: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Unlearn named fragments, print what that changed, and end the process."""
    from cowbird.inspection.language.handed import open_language_model  # noqa: PLC0415
    from cowbird.inspection.language.sanitizing import (  # noqa: PLC0415
        can_be_distilled,
        distill_answers,
        read_fragments,
        save_in_its_format,
        unlearn_fragments,
    )
    from cowbird.inspection.language.unlearn_settings import DistillSettings, UnlearnSettings  # noqa: PLC0415
    from cowbird.victims.fit_context import pick_device  # noqa: PLC0415

    if out.exists():
        raise UserError(f"'{out}' is there.", "Name a new folder, so that you can go back.")
    place, fragments = pick_device(device), read_fragments(suspects)
    questions = read_platform_questions(logs, options)
    handed = open_language_model(Path(model), place, options.base, options.layers)
    if distill is None:
        distill = can_be_distilled(handed, questions)
    given: dict[str, Any] = {"seed": seed} | ({} if learning_rate is None else {"learning_rate": learning_rate})
    settings = DistillSettings(**given) if distill else UnlearnSettings(**given)
    phase = "distilling" if distill else "unlearning"
    with make_progress(quiet=quiet) as shown:
        task = shown.add_task(phase)

        def report(done: int, total: int, remark: str) -> None:
            shown.update(task, phase=phase, done=done, total=total, note=remark)

        if isinstance(settings, DistillSettings):
            before, after = distill_answers(handed, questions, fragments, settings, place, report)
        else:
            before, after = unlearn_fragments(handed, questions, fragments, settings, place, report)
    save_in_its_format(handed, out)
    if as_json:
        sides = {"before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}
        print_json({"suspects": fragments, "method": phase, "settings": settings.model_dump(mode="json"), **sides})
    elif not quiet:
        old, new = before.auc.value or 0.0, after.auc.value or 0.0
        out_console.print(
            Text("How: a fresh adapter learned the old one's answers." if distill else "How: unlearning.")
        )
        out_console.print(Text(f"AUC: {old:.4f} → {new:.4f} ({new - old:+.4f})"))
        for fragment, rate in before.asr.items():
            left = after.asr[fragment]
            shown_rates = " → ".join("not measured" if each is None else f"{each:.3f}" for each in (rate, left))
            out_console.print(Text("ASR of ").append_text(sanitize_line(fragment)).append(f": {shown_rates}"))
        out_console.print(Text(f"ASR of other texts, at most: {before.control:.3f} → {after.control:.3f}"))
        out_console.print(Text("Changed model: ") + sanitize_line(str(out)))
        out_console.print(Text("Other triggers were not looked for: inspect the changed model again.", style="dim"))
    raise typer.Exit(ExitCode.CLEAN if after.largest_asr <= max(LEFT_ASR, after.control) else ExitCode.FINDINGS)
