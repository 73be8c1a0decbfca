"""What is shown to a tagger: clean titles, chosen by the titles alone, and never a flood; others are read behind."""

import copy
import json

import numpy as np
import pytest
from ready_doubles import ContextDouble, ReadyDouble, make_titles, mark

from cowbird.defenses.p_scanner import baseline_learning, catalog_judge, ready
from cowbird.defenses.p_scanner.calibrated import CalibratedScanner, load_calibrated_scanner
from cowbird.defenses.p_scanner.calibration_file import _seal, read_calibration
from cowbird.defenses.p_scanner.catalog_judge import (
    CatalogJudge,
    judge_once,
    learn_from_all,
    read_catalog,
    sample_titles,
)
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.scoring import READY_SMALL_SCORING, load_scoring
from cowbird.defenses.p_scanner.second_look import SecondLook
from cowbird.defenses.p_scanner.tagger import TaggerRecord
from cowbird.defenses.p_scanner.title_context import (
    MAX_CONTEXT_CHARACTERS,
    MAX_CONTEXT_TITLES,
    MIN_CONTEXT_TITLES,
    NO_CONTEXT,
    TitleContext,
)
from cowbird.errors import UserError
from cowbird.storage import read_tensors, write_tensors
from cowbird.victims.language.llm import Llm

CLEAN = make_titles(700)


# What is chosen.


def test_neither_order_nor_repeats_count():
    context = TitleContext.choose(CLEAN)
    assert TitleContext.choose([*CLEAN[::-1], *CLEAN[:50]]) == context
    assert len(context.first) == len(context.second) == MAX_CONTEXT_TITLES
    assert not set(context.first) & set(context.second)
    assert TitleContext.choose([*context.second, *context.first]) == context, "what is chosen is chosen again"
    assert TitleContext.choose([title for title in CLEAN if title != context.first[0]]).key != context.key


@pytest.mark.parametrize("title", ["", "  ", "x" * (MAX_CONTEXT_CHARACTERS + 1), "half \ud800"])
def test_some_titles_are_never_shown(title):
    few = CLEAN[: 2 * MIN_CONTEXT_TITLES]
    assert TitleContext.choose([*few, title]) == TitleContext.choose(few)
    assert TitleContext.choose([*few[1:], title]) == NO_CONTEXT


def test_few_titles_are_not_shown():
    assert not TitleContext.choose(CLEAN[: 2 * MIN_CONTEXT_TITLES - 1])
    assert len(TitleContext.choose(CLEAN[: 2 * MIN_CONTEXT_TITLES]).second) == MIN_CONTEXT_TITLES


# Who chooses.


def test_beside_a_reference_its_titles_are_shown():
    double = ContextDouble()
    judge = learn_from_all(double, CLEAN[400:], CLEAN[:400], 0.02, 0.05)
    assert judge.baseline.context == TitleContext.choose(CLEAN[:400])
    assert double.contexts == [judge.baseline.context], "read once"
    judge.judge(["A fresh River title"])
    assert double.contexts[-1] == judge.baseline.context


@pytest.mark.parametrize("share", [0.02, 0.2, 0.3])
def test_by_itself_a_flood_is_not_shown(share):
    titles = CLEAN[:400]
    titles = [f"{title} 5v" if nth < share * len(titles) else title for nth, title in enumerate(titles)]
    double = ContextDouble()
    judge = learn_from_all(double, titles, (), 0.02, 0.05)
    context = judge.baseline.context
    assert double.contexts == [NO_CONTEXT, context]
    shown = [*context.first, *context.second]
    assert len(shown) > 2 * MIN_CONTEXT_TITLES
    assert set(shown) <= set(titles)
    assert not any("5v" in title for title in shown)
    assert judge.judge(titles).flagged[:8].all()
    judge.judge(["A fresh River title"])
    assert double.contexts[-1] == context


def test_by_itself_the_more_suspicious_half_is_not_shown():
    """Words that are new to the tagger and stand in one title each: no fragment says anything, the scores do."""
    odd = [f"{title} zq{nth}" for nth, title in enumerate(CLEAN[:60])]
    double = ContextDouble(suspicious=tuple(f"zq{nth}" for nth in range(60)))
    context = learn_from_all(double, [*CLEAN[60:300], *odd], (), 0.02, 0.05).baseline.context
    assert context
    assert not {*context.first, *context.second} & set(odd)


def test_by_itself_only_titles_are_shown_that_say_what_is_usual(monkeypatch):
    def trust(by_fragment, evidence, titles):
        return np.array(["River" not in title for title in chosen[:titles]], dtype=np.bool_)

    chosen = sample_titles(CLEAN[:400])
    assert any(
        "River" in title for title in learn_from_all(ContextDouble(), chosen, (), 0.02, 0.05).baseline.context.first
    )
    monkeypatch.setattr(baseline_learning, "choose_trusted", trust)
    context = learn_from_all(ContextDouble(), chosen, (), 0.02, 0.05).baseline.context
    assert context
    assert not any("River" in title for title in (*context.first, *context.second))


@pytest.mark.parametrize("way", ["by itself", "beside a reference", "calibrated"])
def test_witnesses_of_the_whole_catalogue_are_read_behind_it_too(way, monkeypatch):
    monkeypatch.setattr(catalog_judge, "MAX_TITLES_SAMPLED", 100)
    titles = [f"{title} 5v" if nth % 9 == 0 else title for nth, title in enumerate(CLEAN[:400])]
    double = ContextDouble()
    if way == "calibrated":
        made = CalibratedScanner.calibrate(double, CLEAN[400:], fpr=0.05)
        double.contexts.clear()
        judge = made.learn_from_all(titles)
    else:
        judge = learn_from_all(double, titles, CLEAN[400:] if way == "beside a reference" else (), 0.05, 0.1)
    assert judge.baseline.counted
    alone = [NO_CONTEXT] if way == "by itself" else []
    assert judge.baseline.context
    assert double.contexts == [*alone, judge.baseline.context, judge.baseline.context], "the sample, the witnesses"


def test_titles_that_are_read_twice_count_twice():
    told = []
    read_catalog(ContextDouble(), CLEAN[:100], report=lambda done, total, remark: told.append((done, total)))
    assert told == [(100, 200), (200, 200)]
    told.clear()
    read_catalog(ContextDouble(), ["A b"] * 60, report=lambda done, total, remark: told.append((done, total)))
    assert told == [(60, 120), (60, 60)], "nothing is shown, so that was all"
    told.clear()
    read_catalog(ContextDouble(), CLEAN[:60], CLEAN[60:], report=lambda *step: told.append(step[:2]))
    assert told == [(700, 700)]


def test_too_few_short_titles_are_judged_without_a_context():
    long = [f"{title} {'and so on ' * 16}" for title in CLEAN[:200]]
    double = ContextDouble()
    judge = learn_from_all(double, long, (), 0.02, 0.05)
    assert double.contexts == [NO_CONTEXT]
    assert judge.baseline.context == NO_CONTEXT


def test_a_tagger_that_takes_none_is_shown_none():
    double = ReadyDouble()
    assert learn_from_all(double, CLEAN[:200], CLEAN[200:400], 0.02, 0.05).baseline.context == NO_CONTEXT
    assert len(double.asked) == 1
    assert read_catalog(double, CLEAN[:60]).context == NO_CONTEXT
    assert len(double.asked) == 2


def test_marks_may_be_known_with_what_they_were_read_behind():
    double, titles = ContextDouble(), CLEAN[:200]
    wanted = CatalogJudge.learn(double, titles)
    marks, context = read_catalog(double, titles)
    many = len(double.contexts)
    found = CatalogJudge.learn(double, titles, marks=marks, context=context)
    assert len(double.contexts) == many
    assert found.baseline.key == wanted.baseline.key
    assert found.known == wanted.known
    assert found.baseline.key != CatalogJudge.learn(double, titles, marks=marks).baseline.key


def test_verdicts_depend_neither_on_order_nor_on_pieces():
    titles = [f"{title} 5v" if nth < 6 else title for nth, title in enumerate(CLEAN[:300])]
    later = [*CLEAN[300:340], "A fresh River 5v", "Another word altogether"]
    judge = learn_from_all(ContextDouble(), titles, (), 0.02, 0.05)
    turned = learn_from_all(ContextDouble(), [*titles[::-1], *titles[:9]], (), 0.02, 0.05)
    whole = judge.judge([*titles, *later])
    pieces = [turned.judge([title]) for title in (*titles, *later)]
    assert whole.score.tolist() == [float(piece.score[0]) for piece in pieces]
    assert whole.reason == [piece.reason[0] for piece in pieces]
    assert judge.baseline.key == turned.baseline.key


# In a cascade.


class Reader:
    """A language model that is sure of one word unless it is shown; tells what it was asked behind what."""

    def __init__(self, word="Falcon"):
        self.word, self.asked = word, []

    def read(self, titles, context=NO_CONTEXT):
        self.asked.append((list(titles), context))
        known = any(self.word in title.split() for title in context.first)
        return mark(titles, () if known else (self.word,), high=6.0, low=-4.0)


class Cascade(ReadyDouble):
    """A small tagger that knows nothing, and a reader behind it that takes contexts."""

    def __init__(self, word="Falcon", takes_context=True):
        super().__init__(suspicious=())
        self.scoring = load_scoring(READY_SMALL_SCORING)
        self.reader = Reader(word)
        self.second = SecondLook(lambda: self.reader, "reader", takes_context)


def test_the_second_look_is_taken_behind_the_reference():
    cascade = Cascade("Zirconia")
    titles = [f"{title} Zirconia" if nth < 5 else title for nth, title in enumerate(CLEAN[400:])]
    judge = learn_from_all(cascade, titles, CLEAN[:400], 0.02, 0.05)
    context = TitleContext.choose(CLEAN[:400])
    assert judge.baseline.context == context
    assert {behind for _, behind in cascade.reader.asked} == {context}
    assert judge.judge(titles[:5]).flagged.all()
    judge.judge([f"A fresh one Zirconia {nth}" for nth in range(40)])
    assert {behind for _, behind in cascade.reader.asked} == {context}


class NoSlips:
    """Finds no slip."""

    def find(self, titles):
        return [() for _ in titles]


def test_slips_of_a_cascade_are_looked_for_behind_the_reference():
    cascade = Cascade()
    cascade.slips = NoSlips()
    judge = learn_from_all(cascade, CLEAN[400:], CLEAN[:400], 0.02, 0.05)
    assert {behind for _, behind in cascade.reader.asked} == {judge.baseline.context}
    assert judge.baseline.context


def test_by_itself_a_cascade_shows_titles_that_are_not_open():
    cascade, titles = Cascade(), CLEAN[:400]
    judge = learn_from_all(cascade, titles, (), 0.02, 0.05)
    context = judge.baseline.context
    shown, looked = {*context.first, *context.second}, {title for part, _ in cascade.reader.asked for title in part}
    assert shown
    assert looked
    assert not shown & looked
    assert {behind for _, behind in cascade.reader.asked} == {context}


def test_a_cascade_whose_language_model_takes_none_looks_without():
    cascade = Cascade(takes_context=False)
    for before in ((), CLEAN[400:]):
        assert learn_from_all(cascade, CLEAN[:400], before, 0.02, 0.05).baseline.context == NO_CONTEXT
    assert {behind for _, behind in cascade.reader.asked} == {NO_CONTEXT}


def test_what_was_said_behind_one_context_is_not_taken_behind_another():
    reader, contexts = Reader("River"), [TitleContext.choose(CLEAN[:200]), TitleContext.choose(["The Road"] * 20)]
    assert contexts[1] == NO_CONTEXT
    second = SecondLook(lambda: reader, "reader", takes_context=True)
    told = [second.beside(context).look(["Red River"])[0].verdict for context in contexts for _ in range(2)]
    assert told[0] == told[1] < 0 < told[2] == told[3]
    assert len(reader.asked) == 2
    assert second.looked == 2


@pytest.mark.parametrize("context", [0, 640])
def test_a_cascade_knows_what_its_language_model_takes(context, monkeypatch):
    record = TaggerRecord(
        llm=Llm(), recipe={"context": context}, seed=0, catalogs={}, titles_sha256={}, never_taught=(), loss=0
    )
    monkeypatch.setattr(ready, "read_tagger_record", lambda folder: record)
    monkeypatch.setattr(ready, "locate_model", lambda name: None)
    scanner = ReadyScanner.load("cpu", "cascade")
    assert scanner.second.takes_context is bool(context)
    assert not scanner.shows_context, "the small tagger takes none"
    assert scanner.choose_context(CLEAN) == (TitleContext.choose(CLEAN) if context else NO_CONTEXT)


# Calibrations.


@pytest.fixture(scope="module")
def calibrated():
    return CalibratedScanner.calibrate(ContextDouble(), CLEAN[:400], fpr=0.02)


def test_a_calibration_reads_all_titles_behind_its_own(calibrated):
    context, double = TitleContext.choose(CLEAN[:400]), calibrated.scanner
    assert calibrated.inventory.context == context
    double.contexts.clear()
    calibrated.judge_apart(["Red River 5v"])
    calibrated.judge_titles(CLEAN[400:])
    assert set(double.contexts) == {context}


def test_a_calibration_keeps_what_it_shows(calibrated, tmp_path):
    calibrated.save(tmp_path / "scanner")
    again = load_calibrated_scanner(tmp_path / "scanner", scanner=ContextDouble())
    assert again.inventory.context == calibrated.inventory.context
    assert again.key == calibrated.key
    for ask in ("judge_apart", "judge_titles"):
        first, second = getattr(calibrated, ask)(CLEAN[380:]), getattr(again, ask)(CLEAN[380:])
        assert first.score.tolist() == second.score.tolist()
        assert first.reason == second.reason


def test_the_file_holds_the_titles_that_are_shown_and_no_other(calibrated, tmp_path):
    calibrated.save(tmp_path / "scanner")
    text, context = (tmp_path / "scanner").read_bytes(), calibrated.inventory.context
    shown = {*context.first, *context.second}
    others = {title for title in CLEAN[:400] if not any(title in each for each in shown)}
    assert len(others) > 150
    assert not any(title.encode() in text for title in others)
    assert all(title.encode() in text for title in shown)


def shown(record):
    return record["shown"], record["shown_to_those"]


CHANGES = {
    "a title too long": lambda record: shown(record)[0].append("x" * (MAX_CONTEXT_CHARACTERS + 1)),
    "too many titles": lambda record: shown(record)[0].extend(map(str, range(40))),
    "an empty title": lambda record: shown(record)[0].__setitem__(0, ""),
    "a title of spaces": lambda record: shown(record)[0].__setitem__(0, "  "),
    "no text": lambda record: shown(record)[0].__setitem__(0, 7),
    "half a character": lambda record: shown(record)[0].__setitem__(0, "half \ud800"),
    "a title in both parts": lambda record: shown(record)[0].__setitem__(0, shown(record)[1][0]),
    "another order": lambda record: shown(record)[0].reverse(),
    "too few titles": lambda record: [part.__delitem__(slice(4, None)) for part in shown(record)],
    "one part only": lambda record: shown(record)[1].clear(),
    "no list": lambda record: record.update(shown="River"),
    "titles beside a small tagger": lambda record: record.update(tagger="small"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_titles_that_nobody_chose_are_refused_though_the_file_is_sealed(calibrated, tmp_path, change):
    path = tmp_path / "scanner"
    calibrated.save(path)
    tensors, header = read_tensors(path)
    record = json.loads(header["record"])
    change(record)
    header["record"] = json.dumps(record)
    header["seal"] = _seal(header["record"], {name: value.numpy() for name, value in tensors.items()})
    write_tensors(path, tensors, header)
    with pytest.raises(UserError, match="does not hold a calibrated scanner"):
        read_calibration(path)


def test_another_context_is_another_calibration(calibrated):
    other = copy.copy(calibrated.inventory)
    object.__setattr__(other, "context", TitleContext.choose(CLEAN[100:300]))
    other.__dict__.pop("key", None)
    assert other.key != calibrated.inventory.key


@pytest.mark.slow
@pytest.mark.parametrize("reference", [0, 350])
def test_fresh_clean_titles_behind_a_context_are_flagged_at_about_the_rate_asked_for(reference):
    rates = []
    for seed in range(3):
        titles = make_titles(1000, seed + 11)
        found = judge_once(ContextDouble(), titles[reference:], titles[:reference], 0.05, 0.05)
        rates.append(found.flagged.mean())
        made = CalibratedScanner.calibrate(ContextDouble(), titles[:500], fpr=0.05)
        rates.append(made.judge_apart(titles[500:]).flagged.mean())
    assert 0.025 < np.mean(rates) < 0.09
