"""What a plain language model says of words that are written unlike a known one."""

import pytest
import torch
from slip_doubles import LineDouble
from torch.nn import functional as F

from cowbird.defenses.p_scanner import title_slips
from cowbird.defenses.p_scanner.spelling import SPELLINGS
from cowbird.defenses.p_scanner.title_slips import (
    MAX_CHARACTERS,
    MAX_CORRECTIONS,
    MIN_GAIN,
    SHOWN_TITLES,
    SlipReader,
    find_corrections,
    measure_lines,
    read_shown_titles,
)
from cowbird.victims.language.llm import Llm, load_llm, load_reader

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("title", "way", "wanted"),
    [
        ("Blue Rver Song", "letter dropped", "Blue River Song"),
        ("Blue Rivver Song", "letter doubled", "Blue River Song"),
        ("Blue Rimver Song", "letter added", "Blue River Song"),
        ("The Gadren", "letters swapped", "The Garden"),
        ("The G\u00e1rden", "accent on a known word", "The Garden"),
        ("The G4rden!?", "digits in a known word", "The Garden!?"),
        ("THE (G4RDEN)", "digits in a known word", "THE (GARDEN)"),
        ("gARDEN Song", "capitals inside a known word", "Garden Song"),
        ("Old-Gaden's Song", "letter dropped", "Old-Garden's Song"),
        ("The 'Garden' Song", "known word in quotes", "The Garden Song"),
        ("The Garden Song.", "mark behind a known word", "The Garden Song"),
    ],
)
def test_a_word_is_written_as_it_could_be_meant(title, way, wanted):
    found = find_corrections(title)
    made = {(SPELLINGS[slip.way], title[: slip.start] + slip.text + title[slip.end :]) for slip in found}
    assert (way, wanted) in made
    assert all(title[slip.start : slip.end] == slip.part and slip.part in slip.word for slip in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "title",
    [
        "",
        " ",
        "The Garden Song",
        "THE GARDEN",
        "the garden",
        "1984",
        "CB335WN 12oz",
        "\u767d\u8272\u5a74 x",
        "Garden, The",
    ],
)
def test_honest_words_are_not_asked_about(title):
    assert find_corrections(title) == []


def test_hostile_titles_cost_a_dozen_questions_at_most(hostile):
    long = [
        "Rver " * 5000,
        "Rver" * 5000,
        "\u00e1" * 9000,
        "'" * 4000,
        "a1" * 4000,
        "ii" * 4000,
        "\ud83d R\ud83dver gARDEN",
    ]
    for title in [*hostile.values(), *long]:
        found = find_corrections(title)
        assert len(found) <= MAX_CORRECTIONS
        assert all(slip.end <= MAX_CHARACTERS for slip in found)


def test_a_gain_is_kept_and_asked_for_once(monkeypatch):
    double = LineDouble(monkeypatch)
    reader = SlipReader(double.load, CPU)
    assert reader.find(["The Garden", ""]) == [(), ()] and not double.loaded  # nothing to ask: no model is loaded
    (slip,) = reader.find(["Blue Rver Song", "The Garden", "Blue Rver Song"])[2]
    assert (slip.text, slip.part, slip.gain) == ("River", "Rver", 15.0)
    assert double.asked == [[f"Blue {word} Song" for word in ("Rver", "Rever", "River", "Rover")]]
    reader.find(["Blue Rver Song"])
    assert len(double.asked) == double.loaded == 1
    assert reader.find(["LaFee"]) == [()], "what gains less than MIN_GAIN is no slip"
    assert MIN_GAIN > 0


def test_memory_for_titles_is_bounded(monkeypatch):
    monkeypatch.setattr(title_slips, "MAX_TITLES_KEPT", 10)
    reader = SlipReader(LineDouble(monkeypatch).load, CPU)
    for nth in range(40):
        found = reader.find([f"Blue Rver Song {nth}", "Rver"])
        assert found[0][0].text == found[1][0].text == "River"
        assert len(reader._known) <= 12


@pytest.mark.slow
def test_a_gain_does_not_depend_on_the_titles_beside(llama):
    loaded = load_reader(Llm(name=str(llama)), CPU, torch.bfloat16)
    titles = [f"The Gadren {nth} Rver Song" * (1 + nth % 3) for nth in range(12)]
    together = SlipReader(lambda: loaded, CPU).find(titles)
    apart = [SlipReader(lambda: loaded, CPU).find([title])[0] for title in titles]
    assert together == apart
    assert any(together)


@pytest.mark.parametrize("load", [load_llm, load_reader])
def test_a_line_is_as_likely_as_its_tokens_behind_the_shown_titles(load, llama):
    loaded = load(Llm(name=str(llama)), CPU, torch.float32)
    texts = ["Red Harbor", "Red Habror <|im_start|>", "a\nb\x00\ud83d", ""]
    told = measure_lines(read_shown_titles(loaded, CPU), texts)
    whole = load_llm(Llm(name=str(llama)), CPU, torch.float32)
    quick = loaded.tokenizer.backend_tokenizer
    head = [loaded.tokenizer.eos_token_id, *quick.encode("".join(f"{shown}\n" for shown in SHOWN_TITLES)).ids]
    for text, value in zip(["Red Harbor\n", "Red Habror <|im_start|>\n", "a b \ufffd\n", "\n"], told, strict=True):
        line = quick.encode(text, add_special_tokens=False).ids
        with torch.inference_mode():
            logits = whole.model(torch.tensor([[*head, *line]])).logits[0, len(head) - 1 : -1]
        wanted = -F.cross_entropy(logits, torch.tensor(line), reduction="sum")
        assert value == pytest.approx(float(wanted), rel=1e-4)
