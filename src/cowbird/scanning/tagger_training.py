"""What `cowbird train-scanner` does between the options and the terminal.

A tagger is trained beside its folder, in `DIR.partial/`, and renamed once it is whole, as a scanner is fitted
(`fit_folder`). An interrupted training goes on with `--resume` and ends in the same bytes on the same device.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cowbird.attacks.triggers import TRIGGERS
from cowbird.defenses.p_scanner.small_tagger import load_small_tagger
from cowbird.defenses.p_scanner.tagger import load_tagger
from cowbird.defenses.p_scanner.training.small_tagger_training import train_small_taggers
from cowbird.defenses.p_scanner.training.tagger_training import list_plain_words, split_words, train_tagger
from cowbird.errors import UserError
from cowbird.faults import explain_outages, explain_write_errors
from cowbird.files import hash_texts, read_plain_text, write_text
from cowbird.scanning.fit_folder import (
    FIT_FILE,
    GO_ON_HINT,
    check_free,
    check_same_fit,
    check_unfinished,
    clear_fit_folder,
    finish_folder,
    hold_fit_folder,
)
from cowbird.scanning.tagger_evaluation import EVALUATED_FPR, evaluate_tagger
from cowbird.scanning.training_recipe import RecipeTitles, ScannerRecipe, load_training_titles
from cowbird.scanning.unread import UnreadRows, format_unread
from cowbird.storage import read_sealed_json, write_sealed_json
from cowbird.text import count_things, escape_terminal
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.training_loop import DivergedError

EVALUATION_FILE, CARD_FILE = "evaluation.json", "MODEL_CARD.md"
WORST_SHOWN = 5
"""Families of a list that are shown, those of which the least is found."""


class TrainedTagger(NamedTuple):
    """A tagger that was trained."""

    folder: Path
    """Where it lies."""
    titles: dict[str, int]
    """Titles that it learned from, by list."""
    evaluation: list[dict[str, Any]]
    """What it finds in lists that were held out; see `evaluate_tagger`."""
    unread: dict[str, tuple[UnreadRows, ...]]
    """Rows that could not be read, by list; see `RecipeTitles.unread`."""
    before: bool
    """Whether an earlier call had finished it."""


def list_refused_texts() -> frozenset[str]:
    """Return the texts, in small letters, that no tagger is taught: those of the attacks' own triggers."""
    return frozenset(trigger.text.strip().lower() for trigger in TRIGGERS.values() if trigger.text.strip())


def train_scanner(recipe: ScannerRecipe, out: Path, place: FitContext, resume: bool, workers: int = 0) -> TrainedTagger:
    """Train a tagger as a recipe says, ask it about what was held out, and write it with a model card.

    Args:
        recipe: See `training_recipe.read_training_recipe`.
        out: The tagger's folder, new or empty.
        place: Device, progress and warnings; its folder is not used.
        resume: Whether to go on with an interrupted training; a finished one is then returned as it is.
        workers: Processes that draw examples; 0 draws them here.

    Raises:
        UserError: If a list can't be read, a folder can't be used, or a language model can't.
        KeyboardInterrupt: Passed on after a checkpoint was written.
    """
    out = out.resolve()
    folder = out.with_name(f"{out.name}.partial") if out.name else out
    done = resume and (out / FIT_FILE).is_file()
    if not done:
        with explain_write_errors(out):
            check_free(out)
    titles, words = load_training_titles(recipe), find_words(recipe)
    asked = _describe_training(recipe, titles, words)
    counts = {name: len(each) for name, each in titles.lists.items() if recipe.lists[name].taught}
    if done:
        check_same_fit(out, asked)
        return TrainedTagger(out, counts, read_sealed_json(out / EVALUATION_FILE), titles.unread, before=True)
    with explain_write_errors(out, GO_ON_HINT), hold_fit_folder(folder, place.warn):
        check_free(out)
        check_unfinished(folder, resume)
        check_same_fit(folder, asked)
        write_text(folder / FIT_FILE, asked.decode())
        work = FitContext(place.device, folder / "round-1", place.report, place.warn)
        whole = folder / "whole"
        with explain_outages("The tagger can't be trained"):
            try:
                _train(recipe, titles, words, work, workers).save(whole)
            except DivergedError:  # there is nothing to go on from
                clear_fit_folder(folder)
                raise
            found = _evaluate(recipe, whole, titles, words, place)
        write_sealed_json(whole / EVALUATION_FILE, found)
        write_text(whole / CARD_FILE, write_card(recipe, titles, found))
        finish_folder(whole, folder, out)
    return TrainedTagger(out, counts, found, titles.unread, before=False)


def find_words(recipe: ScannerRecipe) -> Sequence[str]:
    """Return the plain words of a recipe's triggers: its file's, or the language model's vocabulary.

    Raises:
        UserError: If they can't be read, or the file holds none.
    """
    if recipe.words is None:
        llm = recipe.llm.llm if recipe.kind == "llm" else Llm(layers=1)
        with explain_outages("The language model's words can't be read"):
            return list_plain_words(
                load_llm(llm, FitContext().device, recipe.llm.tuning.pick_dtype(FitContext().device)).tokenizer
            )
    try:
        words = read_plain_text(recipe.words).split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{recipe.words.name}' can't be read: {error}.", "Name a file of words, one a line.") from None
    if not words:
        raise UserError(f"'{recipe.words.name}' holds no words.", "Name a file of words, one a line.")
    return list(dict.fromkeys(words))


def _describe_training(recipe: ScannerRecipe, titles: RecipeTitles, words: Sequence[str]) -> bytes:
    """Return what is asked for, as a hash; where the files lie does not count."""
    told = recipe.model_dump(mode="json")
    told["words"] = hash_texts(words)
    for group in ("lists", "held_out"):
        for name, each in told[group].items():
            each["path"] = hash_texts(getattr(titles, group)[name])
    return json.dumps({"fit": hash_texts([json.dumps(told, sort_keys=True)])}).encode()


def _train(recipe: ScannerRecipe, titles: RecipeTitles, words: Sequence[str], place: FitContext, workers: int) -> Any:
    if recipe.kind == "small":
        left = [name for name, each in recipe.lists.items() if not each.taught]
        taught, _ = split_words(words)
        made = train_small_taggers(
            recipe.small, titles.lists, taught, recipe.seed, place, list_refused_texts(), workers, {"all": left}
        )
        return made["all"]
    lists = {name: each for name, each in titles.lists.items() if recipe.lists[name].taught}
    tagger, _ = train_tagger(recipe.llm, lists, recipe.seed, place, list_refused_texts(), workers)
    tagger.record = tagger.record.model_copy(update={"seconds": None, "tokens": None})  # an interrupt changes them
    return tagger


def _evaluate(
    recipe: ScannerRecipe, folder: Path, titles: RecipeTitles, words: Sequence[str], place: FitContext
) -> list[dict[str, Any]]:
    """Ask the tagger as it was written, and so as it will be read."""
    device = str(place.device)
    tagger = load_small_tagger(folder, device) if recipe.kind == "small" else load_tagger(folder, device)

    def report(done: int, total: int, remark: str) -> None:
        place.report(done, total, f"asking about held-out lists{f', {remark}' if remark else ''}")

    return evaluate_tagger(tagger, titles.held_out, split_words(words)[1], recipe.seed, report)


def write_card(recipe: ScannerRecipe, titles: RecipeTitles, evaluation: Sequence[dict[str, Any]]) -> str:
    """Return the model card: what it learned from, with hashes and terms, and what it finds in what was held out."""
    small = recipe.kind == "small"
    lines = [
        f"# A tagger of the kind `{recipe.kind}`",
        "",
        "It marks planted triggers in single titles. Use it: `cowbird scan CATALOG --tagger FOLDER --out FINDINGS`.",
        "No title is in this folder. A score means little without a threshold from clean titles of your own.",
        "",
        "## What it learned from",
        "",
        "| list | titles | SHA-256 of the titles | source | terms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, each in recipe.lists.items():
        if each.taught:
            source, terms = (_quote_cell(text) or "not said" for text in (each.source, each.license))
            lines.append(
                f"| {name} | {len(titles.lists[name]):,} | `{hash_texts(titles.lists[name])}` | {source} | {terms} |"
            )
    made = recipe.small if small else recipe.llm
    lines += [
        "",
        f"Seed {recipe.seed}. Recipe: `{json.dumps(made.model_dump(mode='json'))}`",
        "",
        "## What it finds",
        "",
    ]
    if not evaluation:
        return "\n".join([*lines, "No list was held out, so nothing is known of that.", ""])
    lines += [
        f"Single titles of lists that it never saw; a threshold for {EVALUATED_FPR:.0%} from one half, the other half"
        " is asked. Worst family first.",
        "",
        "| list | clean titles | fresh ones above | family | planted | AUROC | found |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in evaluation:
        for row in each["families"]:
            lines.append(
                f"| {each['list']} | {each['titles']:,} | {each['fpr']:.2%} | {row['family']} | {row['titles']} "
                f"| {row['auroc']:.3f} | {row['recall']:.0%} |"
            )
        if not each["families"]:
            lines.append(f"| {each['list']} | {each['titles']:,} | – | too few titles | – | – | – |")
    return "\n".join([*lines, ""])


def _quote_cell(text: str) -> str:
    return escape_terminal(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def format_training(made: TrainedTagger) -> Group:
    """Return what is shown of a training."""
    many = sum(made.titles.values())
    parts: list[Text | Table] = [
        Text(f"Learned from {count_things(many, 'title')} of {count_things(len(made.titles), 'list')}.")
    ]
    if made.before:
        parts.append(Text("It was finished before; nothing was done."))
    if not made.evaluation:
        parts.append(Text("No list was held out, so nothing is known of what it finds.", style="yellow"))
    for each in made.evaluation:
        if not each["families"]:
            parts.append(Text(f"{each['list']}: too few titles to ask about.", style="yellow"))
            continue
        mean = sum(row["recall"] for row in each["families"]) / len(each["families"])
        parts.append(
            Text(
                f"{each['list']}, never seen: at {EVALUATED_FPR:.0%}, {each['fpr']:.2%} of {each['titles']:,} fresh "
                f"clean titles score above; {mean:.0%} of the triggers found, mean of {len(each['families'])} families."
            )
        )
        table = Table(pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("found least", "found", "AUROC"):
            table.add_column(name, justify="left" if name == "found least" else "right")
        for row in each["families"][:WORST_SHOWN]:
            table.add_row(row["family"], f"{row['recall']:.0%}", f"{row['auroc']:.3f}")
        parts.append(table)
    parts.append(Text("Single titles alone: a scan adds what titles of the catalogue share."))
    for name, unread in made.unread.items():
        parts += format_unread(unread, f"Not used of the list '{name}', because they can't be read")
    return Group(*parts)
