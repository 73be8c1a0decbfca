"""A small tagger: a convolutional network that marks triggers in single titles, without a language model.

It reads the pieces of `title_pieces`: hashed n-grams become vectors (an embedding bag), five blocks of convolutions
over neighboring pieces and two looks at the whole title follow, and each piece and each title get log-odds. It knows no
language as a language model does, so it finds less; it is some hundred times as fast on a processor, and needs neither
transformers nor the model's file. Its marks are used as those of `tagger` are, so `ready` takes either.

P-Scanner (arXiv 2504.11182) asks a language model about a title. The small tagger is ours: a first look, or the only
one where titles come faster than a language model reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cowbird.data.types import Int32Array, Int64Array
from cowbird.defenses.p_scanner.small_tagger_network import (
    SmallTaggerNetwork,
    SmallTaggerSizes,
    make_batch,
    read_on_cpu,
)
from cowbird.defenses.p_scanner.title_pieces import TitlePieces, cut_titles
from cowbird.defenses.p_scanner.token_logits import TokenizedTitles, TokenLogits
from cowbird.errors import UserError
from cowbird.faults import raise_outage
from cowbird.files import hash_file, write_text
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.fit_context import ProgressCallback, pick_device, report_nothing
from cowbird.victims.language.examples import Tokens

TaggerKind = Literal["llm", "small"]
"""Kinds of taggers: a language model, and the small one."""
TaggerName = Literal["llm", "small", "cascade"]
"""The taggers that come with the package: a language model, the small one, and both in a cascade."""
TaggerSource = TaggerName | Path
"""A tagger that comes with the package, or the folder of one that `cowbird train-scanner` wrote."""
WEIGHTS_FILE, SMALL_RECORD_FILE, SMALL_TAGGER_VERSION = "weights.safetensors", "small_tagger.json", 1
TITLES_READ_AT_ONCE = {"cpu": 256, "cuda": 16384}
CHARACTERS_READ_A_TITLE = 200
"""Characters of these titles on average at most: fewer long titles are read at once."""
READY_SMALL_TAGGER = Path(__file__).parent / "ready_small_tagger"
"""The small tagger that comes with the package."""
READY_SMALL_TAGGER_SHA256 = "7069f300fd44ad9f615f19dcb7b3878674c416be37aad0afea940c8aba77f9c1"
"""Hash of its `small_tagger.json`, which holds that of its weights."""


class SmallTaggerRecord(BaseModel):
    """What `small_tagger.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    version: int = Field(default=SMALL_TAGGER_VERSION, ge=0, le=1 << 16)
    """Of this file's form."""
    sizes: SmallTaggerSizes = SmallTaggerSizes()
    """The network's sizes."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """How it was trained; see `small_tagger_training.SmallTaggerRecipe`."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Decided all that was random."""
    catalogs: dict[str, int] = Field(default_factory=dict)
    """Titles of each catalogue that it learned from."""
    titles_sha256: dict[str, str] = Field(default_factory=dict)
    """Hashes of those titles."""
    never_taught: tuple[str, ...] = ()
    """Kinds of triggers that were left out."""
    titles: int = Field(default=0, ge=0)
    """Titles that it learned from, each drawn anew."""
    weights_sha256: str = ""
    """Hash of the weights' file."""
    command: str = ""
    """What was run."""


@dataclass(eq=False)
class SmallTagger:
    """A trained small tagger."""

    record: SmallTaggerRecord
    """What it is."""
    network: SmallTaggerNetwork
    """Its weights."""
    device: torch.device
    """Where it runs."""

    def read(self, titles: Sequence[str], report: ProgressCallback = report_nothing) -> TokenLogits:
        """Return the log-odds of every piece and of every title.

        Args:
            titles: Any texts.
            report: Told of titles done and all of them.
        """
        step = TITLES_READ_AT_ONCE.get(self.device.type, TITLES_READ_AT_ONCE["cpu"])
        parts: list[TitlePieces] = []
        mark: list[Any] = []
        verdict: list[Any] = []
        read = partial(read_on_cpu, self.network) if self.device.type == "cpu" else self.network
        with torch.inference_mode():
            for begin, end in cut_batches(titles, step, step * CHARACTERS_READ_A_TITLE):
                pieces = cut_titles(titles[begin:end])
                by_piece, by_title = read(make_batch(pieces, self.device))
                parts.append(pieces)
                mark.append(by_piece.float().cpu().numpy())
                verdict.append(by_title.float().cpu().numpy())
                report(end, len(titles), "titles")

        empty = np.empty(0, dtype=np.float32)
        return TokenLogits(join_places(parts), np.concatenate([*mark, empty]), np.concatenate([*verdict, empty]))

    def save(self, folder: Path, command: str = "") -> None:
        """Write the weights, the table in 8 bits, and `small_tagger.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        held = {name: value.detach().float().cpu() for name, value in self.network.state_dict().items()}
        table = held.pop("table.weight")
        scale = table.abs().amax(dim=1, keepdim=True).clamp(min=1e-8) / 127
        held = {name: value.to(torch.bfloat16) for name, value in held.items()}
        held |= {"table.scale": scale.to(torch.bfloat16)}
        held |= {"table.int8": (table / scale.to(torch.bfloat16).float()).round().clamp(-127, 127).to(torch.int8)}
        digest = write_tensors(folder / WEIGHTS_FILE, held)
        told = self.record.model_copy(update={"weights_sha256": digest, "command": command or self.record.command})
        write_text(folder / SMALL_RECORD_FILE, told.model_dump_json(indent=1) + "\n")


def cut_batches(titles: Sequence[str], most: int, most_characters: int) -> Iterator[tuple[int, int]]:
    """Yield where batches of titles begin and end, each of so many titles and characters at most, or of one title."""
    begin = characters = 0
    for nth, title in enumerate(titles):
        if nth - begin == most or (nth > begin and characters + len(title) > most_characters):
            yield begin, nth
            begin, characters = nth, 0
        characters += len(title)
    if titles:
        yield begin, len(titles)


def join_places(parts: Sequence[TitlePieces]) -> TokenizedTitles:
    """Return where the pieces of titles stand, in the form of a language model's tokens."""
    counts = np.concatenate([*(np.diff(part.offsets) for part in parts), np.empty(0, dtype=np.int64)])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    empty = np.empty(0, dtype=np.int32)
    first = np.concatenate([*(part.first for part in parts), empty])
    after = np.concatenate([*(part.after for part in parts), empty])
    return make_places(first, after, offsets)


def make_places(first: Int32Array, after: Int32Array, offsets: Int64Array) -> TokenizedTitles:
    """Return where pieces stand, in the form of a language model's tokens; of the tokens themselves there are none."""
    nothing = np.zeros(int(offsets[-1]), dtype=np.int32)
    return TokenizedTitles(Tokens(nothing[:0], offsets[:1], offsets[:0]), nothing, first, after, offsets)


def join_logits(parts: Sequence[TokenLogits]) -> TokenLogits:
    """Return what a tagger says of titles that it read in parts, in order."""
    empty, whole = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    counts = np.concatenate([*(np.diff(each.tokenized.offsets) for each in parts), np.empty(0, dtype=np.int64)])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    first = np.concatenate([*(each.tokenized.first for each in parts), empty])
    after = np.concatenate([*(each.tokenized.after for each in parts), empty])
    mark, verdict = (
        np.concatenate([*values, whole]) for values in ([each.mark for each in parts], [each.verdict for each in parts])
    )
    return TokenLogits(make_places(first, after, offsets), mark, verdict)


def skip_logits(marks: TokenLogits, titles: int) -> TokenLogits:
    """Return what a tagger says of all titles but the first so many."""
    places, begin = marks.tokenized, int(marks.tokenized.offsets[titles])
    offsets = places.offsets[titles:] - begin
    return TokenLogits(
        make_places(places.first[begin:], places.after[begin:], offsets), marks.mark[begin:], marks.verdict[titles:]
    )


def place_pieces(titles: Sequence[str]) -> TokenizedTitles:
    """Return where the pieces of titles stand."""
    return join_places([cut_titles(titles)])


def load_small_tagger(folder: Path = READY_SMALL_TAGGER, device: str = "auto") -> SmallTagger:
    """Read what `SmallTagger.save` wrote.

    Args:
        folder: The small tagger's; by default the one that comes with the package.
        device: Where it runs: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: If the folder does not hold a small tagger, or its weights are damaged.
    """
    place = pick_device(device)
    try:
        record = SmallTaggerRecord.model_validate_json((folder / SMALL_RECORD_FILE).read_text(encoding="utf-8"))
        if record.version != SMALL_TAGGER_VERSION:
            raise ValueError(f"its version is {record.version}, and this is {SMALL_TAGGER_VERSION}")
        if folder == READY_SMALL_TAGGER and hash_file(folder / SMALL_RECORD_FILE) != READY_SMALL_TAGGER_SHA256:
            raise ValueError(f"{SMALL_RECORD_FILE} is not the known one; install Cowbird anew")
        if hash_file(folder / WEIGHTS_FILE) != record.weights_sha256:
            raise ValueError(f"{WEIGHTS_FILE} is not the file that {SMALL_RECORD_FILE} tells of")
        weights = _read_weights(folder / WEIGHTS_FILE)
        network = SmallTaggerNetwork(record.sizes, weights["table.weight"])
        network.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise_outage(error, "The small tagger can't be read")
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"'{folder}' does not hold a small tagger: {reason}.", "Give the folder of a trained small tagger."
        ) from None
    return SmallTagger(record, network.to(place).eval(), place)


def _read_weights(path: Path) -> dict[str, Tensor]:
    held = {name: value.float() for name, value in read_tensors(path)[0].items()}
    held["table.weight"] = held.pop("table.int8") * held.pop("table.scale")
    if not all(bool(torch.isfinite(value).all()) for value in held.values()):
        raise ValueError("its weights are not finite")
    return held
