"""Scans without a fit: two passes, verdicts that depend on title and baseline alone, tiers, allowed texts, and what is
said of thresholds."""

import csv
import io
import json
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import cowbird
from cowbird.defenses.p_scanner import ready
from cowbird.defenses.p_scanner.baseline import count_titles_to_flag, rank_threshold
from cowbird.defenses.p_scanner.catalog_judge import CatalogJudge
from cowbird.defenses.p_scanner.title_sample import MAX_SAMPLED_LENGTH, TitleSample
from cowbird.errors import UserError
from cowbird.scanning import first_pass, verdicts
from cowbird.scanning.allow_list import AllowList, read_allow_list
from cowbird.scanning.pool import ScorerPool
from cowbird.scanning.ready_scorer import (
    ReadySettings,
    copy_ready_scorer,
    describe_basis,
    format_ready_basis,
    open_ready_scanner,
)
from cowbird.scanning.scan import ScanForm, scan_catalog
from cowbird.scanning.verdicts import ExplainedSuspicion
from defenses.p_scanner.ready_doubles import ContextDouble, ReadyDouble, make_titles
from doubles.command import call_command

HOSTILE = ["=1+1 5v", "\x1b[31mRed 5v", "\u202eevil 5v", "half \ud800 5v", "x" * 5000, "日本語 5v", " ", "a\u200bb 5v"]


def make_catalog(folder, titles, name="catalog.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps({"id": nth, "title": title}) + "\n" for nth, title in enumerate(titles)))
    return path


def make_planted(many=150, planted=6, text="5v", seed=0):
    return [f"{title} {text}" if nth < planted else title for nth, title in enumerate(make_titles(many, seed))]


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.fixture
def call(monkeypatch, capsys, double):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)

    def run(*args):
        code, out, err = call_command(monkeypatch, capsys, "scan", *args)
        assert " safe" not in out.lower() + err.lower()
        return code, " ".join(out.split()), " ".join(err.split())

    return run


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The sample.


def test_a_sample_depends_on_the_titles_alone():
    titles = make_titles(60)
    whole, turned = TitleSample(20), TitleSample(20)
    whole.add(titles)
    turned.add([*titles[::-1], "", *titles[:5]])
    assert whole.list_titles() == turned.list_titles()
    assert len(whole.list_titles()) == 20
    assert not whole.complete
    small = TitleSample(60)
    small.add(titles)
    assert sorted(small.list_titles()) == sorted(titles)
    assert small.complete
    small.add(["x" * (MAX_SAMPLED_LENGTH + 1)])
    assert not small.complete
    assert len(small.list_titles()) == 60


# Allowed texts.


def test_allowed_texts_are_compared_letter_by_letter():
    allow = AllowList(["Deluxe Edition", "  Heat 5v ", ""])
    assert len(allow) == 2
    assert allow.allows("Red Deluxe Edition", 4, 18)
    assert allow.allows("Red Deluxe Edition", 3, 10)  # within an allowed text
    assert allow.allows("Heat 5v", -1, -1)
    assert not allow.allows("Red Deluxe Edition 5v", 11, 21)
    assert not allow.allows("Red Deluxe", 4, 10)
    assert not allow.allows("Red De\u200bluxe Edition", 4, 19)
    assert not allow.allows("Red", -1, -1)
    assert not AllowList().allows("Red", 0, 3)


@pytest.mark.parametrize("data", [b"", b" \n\n", b"\xff\xfe", None])
def test_a_file_of_allowed_texts_that_cannot_be_used(tmp_path, data):
    path = tmp_path / "allow.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"There is no file|no text in UTF-8|nothing that is allowed"):
        read_allow_list(path)


# Two passes.


def test_a_scan_without_a_fit(call, tmp_path):
    out = tmp_path / "found.csv"
    code, said, _ = call(make_catalog(tmp_path, make_planted()), "--out", out)
    rows = read_rows(out)
    assert code == 1
    assert list(rows[0])[:8] == ["row", "id", "title", "score", "flagged", "start", "end", "clean_title"]
    assert list(rows[0])[8:] == ["tier", "reason", "threshold", "scanner"]
    flagged = [row for row in rows if row["flagged"] == "true"]
    assert {row["title"] for row in rows[:6]} <= {row["title"] for row in flagged}
    assert {row["tier"] for row in flagged} == {"flagged"}
    assert rows[0]["reason"].startswith("6 titles share '5v'")
    assert rows[0]["title"] == rows[0]["clean_title"] + " 5v"
    assert {row["scanner"] for row in rows} == {"ready double of th"}
    assert all(float(row["score"]) > float(row["threshold"]) for row in flagged)
    assert all(not row["reason"] for row in rows if not row["tier"])
    assert "150 different titles of this catalogue" in said
    assert "No reference was given: a trigger in many titles is found only by what these titles share" in said
    assert "more look poisoned and were left out" in said
    assert "6 titles share '5v'" in said


@pytest.mark.slow
def test_chunks_interruptions_and_the_sample_change_nothing(tmp_path, double, monkeypatch):
    for most in (20_000, 80):  # all titles in the sample, or some
        monkeypatch.setattr(first_pass, "MAX_TITLES_SAMPLED", most)
        catalog = make_catalog(tmp_path, [*make_planted(), *HOSTILE, "", *make_planted()[:9]])
        outs = [tmp_path / f"{most}-{name}.csv" for name in ("whole", "parts", "stopped")]

        def open_scorer(catalog=catalog):
            return open_ready_scanner(double, catalog, "cpu")

        scan_catalog(catalog, outs[0], open_scorer())
        scan_catalog(catalog, outs[1], open_scorer(), form=ScanForm(chunk=7))
        scorer, calls = open_scorer(), []

        def stop(done, _total, _remark, calls=calls):
            calls.append(done)
            if len(calls) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scan_catalog(catalog, outs[2], scorer, form=ScanForm(chunk=7), report=stop)
        assert scan_catalog(catalog, outs[2], open_scorer(), form=ScanForm(chunk=7)).resumed > 0
        assert outs[0].read_bytes() == outs[1].read_bytes() == outs[2].read_bytes()


def test_titles_of_the_sample_are_read_once(tmp_path):
    double = ReadyDouble()
    titles = make_planted()
    scorer = open_ready_scanner(double, make_catalog(tmp_path, titles), "cpu")
    assert scorer.complete
    scorer.scan(titles)
    assert [len(each) for each in double.asked] == [150]
    scorer.scan([*titles, "Another Title", "Another Title"])
    assert [len(each) for each in double.asked] == [150, 1]


@pytest.mark.slow
def test_another_baseline_is_another_key(tmp_path, double):
    catalog = make_catalog(tmp_path, make_planted())
    keys = {open_ready_scanner(double, catalog, "cpu", ReadySettings(fpr=fpr)).key for fpr in (0.01, 0.02)}
    keys.add(open_ready_scanner(double, catalog, "cpu", ReadySettings(catalog)).key)
    assert len(keys) == 3


def test_a_copy_judges_alike_without_reading_again(tmp_path, double, monkeypatch):
    titles = make_planted()
    scorer = open_ready_scanner(double, make_catalog(tmp_path, titles), "cpu")
    copied = scorer.make_factory()()
    assert copied.key == scorer.key
    found, same = scorer.scan(titles), copied.scan(titles)
    assert (found.score == same.score).all()
    assert found.reason == same.reason
    asked = []
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place, tagger="llm": asked.append(place) or double)
    assert copy_ready_scorer(*scorer.make_factory().args).scan(["Fresh 5v"]).flagged.all()
    assert asked == ["cpu"]


@pytest.mark.slow
def test_processes_judge_from_the_sample(tmp_path, double):
    titles = make_planted()
    catalog = make_catalog(tmp_path, titles)
    scorer = open_ready_scanner(double, catalog, "cpu")
    scan_catalog(catalog, tmp_path / "one.csv", scorer, form=ScanForm(chunk=40))
    with ScorerPool(scorer, scorer.make_factory(), 2) as pool:
        scan_catalog(catalog, tmp_path / "two.csv", pool, form=ScanForm(chunk=40))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


# Options.


@pytest.mark.slow
def test_a_reference(call, tmp_path):
    before = make_catalog(tmp_path, make_titles(200), "before.jsonl")
    catalog = make_catalog(tmp_path, make_planted(120, 40, "Deluxe", seed=1))
    code, said, _ = call(catalog, "--reference", before, "--out", tmp_path / "found.csv")
    assert code == 1
    assert "A reference of 200 titles, taken for clean" in said
    assert "No reference was given" not in said
    rows = read_rows(tmp_path / "found.csv")
    assert sum(row["flagged"] == "true" for row in rows[:40]) > 30
    assert "not in the reference" in "".join(row["reason"] for row in rows)


def test_few_titles_need_a_reference(call, tmp_path):
    catalog = make_catalog(tmp_path, [*make_titles(9, seed=1), "Red 5v"])
    code, _, err = call(catalog, "--out", tmp_path / "found.csv")
    assert code == 2
    assert "50 different titles or more, and there are 10" in err
    assert "--reference FILE" in err
    before = make_catalog(tmp_path, make_titles(200), "before.jsonl")
    assert call(catalog, "--reference", before, "--out", tmp_path / "found.csv")[0] == 1


@pytest.mark.slow
def test_allowed_titles_are_told(call, tmp_path):
    catalog, allow = make_catalog(tmp_path, make_planted()), tmp_path / "allow.txt"
    assert call(catalog, "--out", tmp_path / "all.csv")[0] == 1
    before = {row["title"]: row for row in read_rows(tmp_path / "all.csv") if row["tier"]}
    allow.write_text("5v\n" + "".join(f"{title}\n" for title in before if not title.endswith("5v")))
    code, said, _ = call(catalog, "--out", tmp_path / "found.csv", "--allow", allow)
    rows = {row["title"]: row for row in read_rows(tmp_path / "found.csv")}
    assert code == 0
    assert len(rows) == 150
    assert {rows[title]["tier"] for title in before} == {"allowed"}
    assert all(rows[title]["reason"] == before[title]["reason"] for title in before)
    assert all(row["clean_title"] == title for title, row in rows.items())
    assert f"Suspicious, but allowed by --allow: {len(before)} titles" in said
    code, told, _ = call(catalog, "--out", tmp_path / "found.csv", "--allow", allow, "--json", "--only-flagged")
    assert code == 0
    assert json.loads(told)["allowed"] == len(before)
    assert read_rows(tmp_path / "found.csv") == []


def test_review_alone_is_no_finding(call, tmp_path, double):
    titles = make_titles(200)
    code, said, _ = call(
        make_catalog(tmp_path, titles), "--out", tmp_path / "found.csv", "--fpr", 0.001, "--review-fpr", 0.2, "--json"
    )
    told = json.loads(said)
    rows = read_rows(tmp_path / "found.csv")
    review = [row for row in rows if row["tier"] == "review"]
    assert (code, told["flagged"]) == (0, 0)
    assert told["review"] == len(review) > 10
    assert all(row["reason"] and row["flagged"] == "false" and row["clean_title"] == row["title"] for row in review)
    assert told["basis"]["sampled"] == told["basis"]["calibrated_on"] + told["basis"]["left_out"] == 200
    assert told["basis"]["promised"] >= 1 / 201


@pytest.mark.slow
def test_hostile_titles_and_reasons(call, tmp_path):
    code, _, _ = call(make_catalog(tmp_path, [*make_planted(), *HOSTILE]), "--out", tmp_path / "found.csv")
    rows = read_rows(tmp_path / "found.csv")
    assert code == 1
    assert len(rows) == 158
    assert not any(set(row["reason"]) & set("\x1b\u202e\u200b\ud800") for row in rows)
    assert rows[150]["title"] == "'=1+1 5v"
    assert rows[156]["score"] == ""
    assert call(make_catalog(tmp_path, [*make_planted(), *HOSTILE]), "--out", tmp_path / "a.parquet")[0] == 1
    assert pl.read_parquet(tmp_path / "a.parquet")["reason"].str.contains("\u202e").sum() == 0


def test_quiet_says_nothing_and_an_interruption_is_told(call, tmp_path, monkeypatch, double):
    catalog = make_catalog(tmp_path, make_planted())
    assert call(catalog, "--out", tmp_path / "found.csv", "--quiet")[1:] == ("", "")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(CatalogJudge, "learn", stop)
    code, _, err = call(catalog, "--out", tmp_path / "other.csv")
    assert code == 3
    assert "Interrupted before a title was judged" in err


def test_no_promise_is_made_where_none_can_be(tmp_path, double):
    scorer = open_ready_scanner(double, make_catalog(tmp_path, [f"{title} 5v" for title in make_titles(60)]), "cpu")
    object.__setattr__(scorer.judge.baseline, "thresholds", (np.inf, np.inf))
    console = Console(width=400)
    with console.capture() as said:
        console.print(format_ready_basis(scorer))
    assert "No false-positive rate can be promised, and nothing is flagged" in said.get()
    assert scorer.scan(["Red"]).threshold is None


def test_an_unsure_span_is_not_taken_out(tmp_path):
    flags, span = np.array([True, True]), (np.array([0, 0]), np.array([2, 2]))
    found = ExplainedSuspicion(np.ones(2), *span, flags, ~flags, ("x", "y"), np.array([True, False]), 0.5, "double")
    clean = [verdicts.make_finding("ab cd", found, at).clean_title for at in range(2)]
    assert clean == ["cd", None]


def test_what_is_taken_out_is_surely_suspicious():
    titles = make_planted(150, 6, "5v")
    for high, certain in ((5.0, True), (0.5, False)):  # a tagger that is sure of it, and one that is hardly
        double = ReadyDouble(("5v",))
        double.high = high
        found = CatalogJudge.learn(double, titles, fpr=0.2).judge(titles)
        assert found.flagged[:6].all()
        assert set(found.sure[:6].tolist()) == {certain}


# In Python.


@pytest.mark.slow
def test_lists_and_frames_are_scanned_without_a_fit(monkeypatch, double):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place, tagger="llm", slips=False: double)
    scanner = cowbird.load_scanner()
    titles = [*make_planted(), None, ""]
    found = scanner.scan(titles)
    assert found["flagged"][:6].all()
    assert found["judged"].to_list()[-2:] == [False, False]
    assert found["reason"][0].startswith("6 titles share '5v'")
    assert found["clean_title"][0] + " 5v" == titles[0]
    frame = pl.DataFrame({"id": range(150), "title": make_planted()})
    assert scanner.scan(frame)["score"].to_list() == found["score"].to_list()[:150]
    assert scanner.scan(make_planted(20, 2), reference=make_titles(200))["flagged"][:2].all()
    with pytest.raises(UserError, match="50 different titles"):
        scanner.scan(["Heat"])


@pytest.mark.slow
def test_the_scanner_that_ships_finds_a_planted_word(tmp_path):
    try:
        scanner = cowbird.load_scanner()
    except UserError as error:
        pytest.skip(f"the language model is not here: {error}")
    titles = make_planted(300, 12, "5v")
    summary = scan_catalog(
        make_catalog(tmp_path, titles), tmp_path / "found.csv",
        open_ready_scanner(scanner, tmp_path / "catalog.jsonl", "cpu"),
    )  # fmt: skip
    rows = read_rows(tmp_path / "found.csv")
    assert sum(row["flagged"] == "true" for row in rows[:12]) >= 11
    assert sum(row["flagged"] == "true" for row in rows[12:]) <= 12
    assert summary.judged == 300


# What a newcomer is told.


@pytest.mark.slow
def test_too_few_titles_to_flag_any_are_told(call, tmp_path):
    catalog = make_catalog(tmp_path, make_titles(120))
    code, said, _ = call(catalog, "--out", tmp_path / "found.csv")
    assert code == 0
    assert "Too few titles to flag any at 0.01: 120 set the threshold, and it takes 199." in said
    assert "(--reference FILE), or raise --fpr" in said
    told = json.loads(call(catalog, "--out", tmp_path / "found.csv", "--json")[1])
    assert told["basis"]["flaggable"] == 0
    said = call(catalog, "--out", tmp_path / "found.csv", "--fpr", "0.02")[1]
    assert "Too few titles" not in said
    assert "At 0.02, about 2 of 120 clean titles are flagged." in said
    before = make_catalog(tmp_path, make_titles(120, seed=3), "before.jsonl")
    assert "Too few titles" not in call(catalog, "--out", tmp_path / "found.csv", "--reference", before)[1]


@pytest.mark.slow
@pytest.mark.parametrize("many", [60, 198, 199, 250, 330])
def test_as_many_titles_are_flaggable_as_the_threshold_lets_through(double, many):
    titles = [f"{title} {nth}" for nth, title in enumerate(make_titles(many))]
    baseline = CatalogJudge.learn(double, titles).baseline
    at = rank_threshold(baseline.calibrated_on, 0.01)
    assert baseline.flaggable == at - 1
    assert (baseline.flaggable > 0) == (baseline.calibrated_on >= count_titles_to_flag(0.01))
    assert CatalogJudge.learn(double, titles, make_titles(400)).baseline.flaggable is None


@pytest.mark.slow
def test_titles_for_review_are_shown(call, tmp_path):
    catalog = make_catalog(tmp_path, [f"{title} {nth}" for nth, title in enumerate(make_titles(200))])
    options = ("--out", tmp_path / "found.csv", "--fpr", 0.001, "--review-fpr", 0.2)
    said = call(catalog, *options)[1]
    review = [row for row in read_rows(tmp_path / "found.csv") if row["tier"] == "review"]
    worst = max(review, key=lambda row: float(row["score"]))
    assert "for review, the most suspicious first" in said
    assert worst["reason"] in said
    assert f"For review: {len(review)} more titles, tier 'review' in the findings." in said
    assert said.partition("For review:")[0].count(" row ") == 3
    said = call(catalog, *options, "--only-flagged")[1]
    assert f"For review: {len(review)} more titles, not in the findings (--only-flagged)." in said


def test_findings_without_ids_are_told(call, tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("number,title\n" + "".join(f"{nth},{title}\n" for nth, title in enumerate(make_titles(60))))
    said = call(path, "--out", tmp_path / "found.csv")[1]
    assert "The findings have no ids" in said
    assert "--id-column" in said
    said = call(path, "--out", tmp_path / "found.csv", "--id-column", "number")[1]
    assert "have no ids" not in said


def test_scores_and_thresholds_have_one_form(call, tmp_path):
    code, said, _ = call(make_catalog(tmp_path, make_planted()), "--out", tmp_path / "found.csv", "--json")
    rows = read_rows(tmp_path / "found.csv")
    texts = {row["threshold"] for row in rows} | {row["score"] for row in rows}
    assert code == 1
    assert texts == {str(float(str(np.float32(text)))) for text in texts}
    assert str(json.loads(said)["basis"]["threshold"]) == rows[0]["threshold"]


@pytest.mark.parametrize("value", [None, np.inf, -np.inf, np.nan, 1e300])
def test_what_is_no_finite_score_is_none(value):
    assert verdicts.shorten_score(value) is None


def test_the_time_of_both_passes_counts(call, tmp_path, monkeypatch):
    catalog = make_catalog(tmp_path, make_planted())
    learn = CatalogJudge.learn

    def learn_slowly(*args, **more):
        time.sleep(0.3)
        return learn(*args, **more)

    monkeypatch.setattr(CatalogJudge, "learn", learn_slowly)
    told = json.loads(call(catalog, "--out", tmp_path / "found.csv", "--json")[1])
    assert told["seconds"] > 0.3
    assert told["titles_per_second"] == pytest.approx(150 / told["seconds"])


def test_a_wrong_column_is_told_before_anything_is_loaded(call, tmp_path, monkeypatch):
    catalog = make_catalog(tmp_path, make_planted())
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place: pytest.fail("loaded"))
    for args, said in (
        ((catalog, "--text-column", "name"), "Set --text-column to the column's name."),
        ((catalog, "--id-column", "name"), "Set --id-column to the column's name."),
        ((catalog, "--reference", tmp_path / "catalogue.jsonl"), "Did you mean catalog.jsonl?"),
    ):
        code, _, err = call(*args, "--out", tmp_path / "found.csv")
        assert code == 2
        assert said in err


@pytest.mark.parametrize(("rate", "told"), [("0.01", True), ("0.05", False)])
def test_what_was_measured_at_one_rate_is_not_told_of_another(call, tmp_path, rate, told):
    catalog = make_catalog(tmp_path, make_planted(300))
    _, out, _ = call(catalog, "--out", tmp_path / "f.csv", "--fpr", rate)
    assert ("where 1 % was asked for" in out) is told
    assert "Titles were read by" in out


@pytest.mark.slow
def test_other_columns_are_named_where_none_was_asked_about(call, tmp_path):
    frame = pl.DataFrame({"id": range(150), "title": make_planted(), "seller": "x", "brand": "y"})
    frame.write_csv(tmp_path / "items.csv")
    _, said, err = call(tmp_path / "items.csv", "--out", tmp_path / "found.csv")
    assert "Other columns were not asked about (seller, brand)." in said
    assert "--seller-column COLUMN" in said
    assert "--explain COLUMN" in said
    assert "loading libraries" in err
    assert "loading the scanner" in err
    _, said, err = call(tmp_path / "items.csv", "--explain", "brand", "--out", tmp_path / "again.csv")
    assert "Other columns" not in said
    frame.drop("seller", "brand").write_csv(tmp_path / "plain.csv")
    _, said, err = call(tmp_path / "plain.csv", "-q", "--out", tmp_path / "plain-found.csv")
    assert not err
    _, said, _ = call(tmp_path / "plain.csv", "--out", tmp_path / "plain-found.csv")
    assert "Other columns" not in said


def test_a_cascade_without_a_reference_says_what_it_misses(tmp_path, double):
    catalog, before = make_catalog(tmp_path, make_planted()), make_catalog(tmp_path, make_titles(150), "before.jsonl")
    for reference, tagger, told in ((None, "cascade", True), (None, "small", False), (before, "cascade", False)):
        scorer = replace(open_ready_scanner(double, catalog, "cpu", ReadySettings(reference)), tagger=tagger)
        console = Console(width=500, record=True, file=io.StringIO())
        console.print(format_ready_basis(scorer))
        said = " ".join(console.export_text().split())
        assert ("follow one template" in said and "--reference FILE it flagged all" in said) is told


@pytest.mark.parametrize(("spread", "coarse"), [((0.0, 0.03), True), ((0.008, 0.012), False), ((0.008, 0.03), True)])
def test_how_coarse_a_promise_is_is_told(spread, coarse, tmp_path, double):
    before = make_catalog(tmp_path, make_titles(220), "before.jsonl")
    scorer = open_ready_scanner(double, make_catalog(tmp_path, make_titles(120, seed=3)), "cpu", ReadySettings(before))
    baseline = replace(scorer.judge.baseline, spread=spread, fprs=(0.01, 0.05))
    told = replace(scorer, judge=replace(scorer.judge, baseline=baseline))
    console = Console(width=500, record=True, file=io.StringIO())
    console.print(format_ready_basis(told))
    low, high = (f"{100 * share:.2g}" for share in spread)
    said = f"In batches of clean titles that the scanner knows, {low} to {high} % were above it."
    assert (said in console.export_text()) is coarse
    assert describe_basis(told)["batches_flagged"] == list(spread)


def test_what_the_language_model_was_shown_is_told(tmp_path):
    def show(scorer):
        console = Console(width=500, record=True, file=io.StringIO())
        console.print(format_ready_basis(scorer))
        return " ".join(console.export_text().split())

    catalog = make_catalog(tmp_path, make_planted())
    reference = make_catalog(tmp_path, make_titles(120, seed=3), "before.jsonl")
    scorers = [open_ready_scanner(ContextDouble(), catalog, "cpu", ReadySettings(each)) for each in (None, reference)]
    alone, beside = (show(scorer) for scorer in scorers)
    many = describe_basis(scorers[0])["shown_at_most"]
    assert 8 <= many <= 75
    assert f"shown up to {many} titles of this catalogue in which little looked suspicious" in alone
    assert "shown up to 60 titles of those that are taken for clean" in beside
    plain = open_ready_scanner(ReadyDouble(), catalog, "cpu")
    assert " shown " not in show(plain)
    assert describe_basis(plain)["shown_at_most"] == 0
