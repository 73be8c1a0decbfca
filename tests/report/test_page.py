"""The page: every section from files that were made up, hostile text as text, and nothing that loads anything."""

import html.parser
import json
import re

import numpy as np
import pytest

from cowbird.attacks.triggers import Trigger, plant
from cowbird.defenses.titles import Suspicion
from cowbird.errors import UserError
from cowbird.experiments.detection import DetectionRecord, Truth, encode_record
from cowbird.experiments.results import write_results
from cowbird.experiments.store import to_tensors
from cowbird.report.detectors import count_families, list_detector_lines, load_flagged, make_curve, thin_curve
from cowbird.report.inspection_files import read_inspection_file
from cowbird.report.page import make_page, render_page, write_report
from cowbird.report.run_files import read_run
from cowbird.report.shown_titles import list_planted_titles, mark_title, read_findings_file
from cowbird.storage import write_sealed_json, write_tensors
from doubles.result_rows import HOSTILE_LABEL, make_answers, make_detections, make_row, write_rows
from hostile import find_raw

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{ 7 * 7 }}"


def make_record(attack="word", defense="finder"):
    """Return what a detector made of ten titles, of which the first four are poisoned; it finds three."""
    poisoned = np.arange(10) < 4
    score = np.array([9, 8, 7, 1, 5, 4, 3, 2, 1, 0], dtype=np.float32)
    start = np.where(poisoned, 6, -1).astype(np.int32)
    truth = Truth(poisoned, *(np.array(values, dtype=np.int32) for values in ([0, 1, 2, 3], [6] * 4, [8] * 4)))
    flagged = score > 6
    return DetectionRecord(
        attack,
        defense,
        Suspicion(score, start, np.where(poisoned, 8, -1).astype(np.int32)),
        flagged,
        flagged,
        np.ones(10, dtype=np.int64),
        truth,
    )


@pytest.fixture
def folder(tmp_path):
    """A run's folder with everything that a page can show, and hostile text in all places that hold any."""
    out = tmp_path / "run"
    cell = out / "cells" / "judge-0"
    for name in ("plans", "evidence"):
        (cell / name).mkdir(parents=True)
    rows = [*make_answers(), *make_answers(defense="finder", attacked=6), *make_detections()]
    rows += make_answers(attack=HOSTILE_LABEL, attacked=50)
    write_results(out / "results.jsonl", rows)
    trigger = {"kind": "char_5v", "text": "", "position": "end"}
    spec = {"attacks": [{"name": "badrec", "label": "word", "options": {"trigger": trigger}},
                        {"name": "badrec", "label": "../up", "options": {"trigger": {"kind": "custom", "text": EVIL}}}],
            "victims": [{"name": "v"}], "seeds": [0, 1]}  # fmt: skip
    (out / "spec.json").write_text(json.dumps({"sha256": "a" * 64, "spec": spec}))
    machine = {"command": f"cowbird run {EVIL}", "torch": "2", "warnings": [EVIL], "notices": [EVIL]}
    (out / "run.json").write_text(json.dumps(machine))
    facts = {"victim": "judge", "seed": 0, "models": {EVIL: "b" * 64}, "errors": [EVIL]}
    (cell / "cell.json").write_text(json.dumps(facts))
    titles = {
        str(item): plant(f"Film {item}", Trigger(kind="char_5v"), np.random.default_rng(0)).title for item in range(3)
    }
    (cell / "plans" / "word.json").write_text(json.dumps({"retitled": titles | {"3": f"Film 3 {EVIL}"}}))
    write_tensors(cell / "evidence" / "word+finder@titles.safetensors", to_tensors(encode_record(make_record())))
    return out


@pytest.fixture
def findings(tmp_path):
    path = tmp_path / "findings.csv"
    path.write_text(
        'row,id,title,score,flagged,start,end,tier,reason,threshold,scanner\n'
        f'1,"a","Heat {EVIL}",3.5,true,5,14,"flagged","{EVIL}",1.5,"ready"\n'
        '2,"b","\'=cmd 5v",2.5,true,5,7,"flagged","",1.5,"ready"\n'
        '3,"c","Alien",0.5,false,,,"","",1.5,"ready"\n'
        '4,"d","Ran",,false,,,"review","r",1.5,"ready"\n'
    )  # fmt: skip
    return path


@pytest.fixture
def inspection(tmp_path):
    path = tmp_path / "inspection.json"
    item = {"rank": 1, "item": 7, "id": "7", "title": EVIL, "suspect": True, "score": 9.5, "shown": {EVIL: 3}}
    held = {"schema_version": 1, "verdict": f"1 item stands out. {EVIL}", "sha256": "c" * 64, "p_value": 0.004}
    held |= {"ranking": [item, "odd"], "checked": {"cold users": EVIL}, "not_checked": ["Triggers in titles"]}
    write_sealed_json(path, held)
    return path


def test_an_inspection_is_shown(inspection):
    found = read_inspection_file(inspection)
    assert found.words[0].startswith("1 item stands out.")
    assert found.words[1:] == (f"Checked: cold users. {EVIL}", "Not checked: Triggers in titles")
    assert found.suspects.header[:6] == ("rank", "item", "id", "title", "suspect", "score")
    assert found.suspects.rows[0][:6] == ("1", "7", "7", EVIL, "yes", "9.5")
    assert ("p_value", "0.004") in found.facts.rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[]", "SHA-256"),
        ('{"sha256": "x", "content": {"ranking": []}}', "recorded"),
        (None, "'ranking'"),
    ],
)
def test_what_is_no_inspection_is_refused(tmp_path, content, said):
    path = tmp_path / "inspection.json"
    if content is None:
        write_sealed_json(path, {"ranking": 3})
    else:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        read_inspection_file(path)


class Tags(html.parser.HTMLParser):
    """Collects elements, and attributes that run or load something."""

    def __init__(self):
        super().__init__()
        self.seen, self.active, self.links, self.ids = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.active += [(tag, name) for name, _ in attrs if name.startswith("on") or name in ("src", "srcset", "style")]
        self.links += [value for name, value in attrs if name == "href"]
        self.ids.update(value for name, value in attrs if name == "id")


def read_page(text):
    tags = Tags()
    tags.feed(text)
    return tags


def test_a_page_of_everything(folder, findings, inspection, tmp_path):
    out = tmp_path / "report.html"
    assert write_report([folder], out, [findings], [inspection]) == 15
    text = out.read_text(encoding="utf-8")
    tags = read_page(text)
    assert tags.seen.count("script") == 2, "the data and the page's own"
    assert (tags.active, "img" in tags.seen, "link" in tags.seen, "iframe" in tags.seen) == ([], False, False, False)
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert {"verdict", "outcomes", "tradeoff", "ranks", "detectors", "planted", "scans", "inspections"} <= tags.ids
    assert not find_raw(text), "what can't be seen stands as its code"
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
    assert "{{ 7 * 7 }}" in text, "no template in a title is run"
    assert not re.search(r"https?://|//[a-z]", text.replace("\\/", "")), "no address is in it"


def test_the_policy_names_what_is_in_the_page(folder):
    import base64
    import hashlib

    text = render_page(make_page([read_run(folder)]))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    for tag in ("style", "script"):
        part = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[-1]
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_data_of_the_page_are_the_rows(folder):
    text = render_page(make_page([read_run(folder)]))
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    at = {name: nth for nth, name in enumerate(data["header"])}
    shown = [
        [data["words"][cell] if data["texts"][nth] else cell for nth, cell in enumerate(row)] for row in data["rows"]
    ]
    for row, cells in zip(read_run(folder).rows, shown, strict=True):
        assert (cells[at["metric"]], cells[at["value"]], cells[at["n"]]) == (
            row.metric,
            pytest.approx(row.value, 1e-5),
            row.n,
        )
    assert shown[-1][at["attack"]] == '<script>alert("x")</script><U+202E>'


def test_one_page_is_the_same_each_time(folder):
    pages = [render_page(make_page([read_run(folder)])) for _ in range(2)]
    assert pages[0] == pages[1]


def test_rows_alone_make_a_page(tmp_path):
    page = make_page([read_run(write_rows(tmp_path / "rows.csv", [make_row(metric="unheard", attack="none")]))])
    assert page.headline == ["No attack was measured in these files."]
    assert (page.outcomes, page.detectors, page.curves, page.planted) == (None, None, [], [])
    assert any("only the rows were given" in words for words in page.unchecked)
    assert "unheard" in render_page(page)


def test_several_runs_are_told_apart(tmp_path):
    paths = [write_rows(tmp_path / f"{name}.csv", make_answers()) for name in ("a", "b")]
    page = make_page([read_run(path) for path in paths])
    assert [each.title for each in page.verdicts] == [
        "word against judge, direct (a)",
        "word against judge, direct (b)",
    ]
    assert page.outcomes.header[0] == "run"


def test_what_was_not_checked_is_told(folder):
    words = " ".join(make_page([read_run(folder)]).unchecked)
    assert "1 of 2 cells are not on record" in words
    assert "1 place could not be measured" in words
    assert "one seed" in words
    assert "Other attacks, triggers, data and models" in words


def test_records_that_can_not_be_read_are_told(folder):
    (folder / "run.json").write_text("{")
    (folder / "spec.json").unlink()
    words = " ".join(make_page([read_run(folder)]).unchecked)
    assert "missing or not readable, so not told here: spec.json, run.json." in words


# Detectors


def test_curves_and_families_come_from_the_evidence(folder):
    run = read_run(folder)
    (flagged,) = load_flagged(run)
    assert (flagged.victim, flagged.seed, flagged.attack) == ("judge", "0", "word")
    curve = make_curve(flagged)
    assert curve.roc[0].tolist() == [0, 0]
    assert curve.roc[3].tolist() == [0, 0.75]
    assert curve.roc[-1].tolist() == [1, 1]
    area = float(np.trapezoid(curve.roc[:, 1], curve.roc[:, 0]))
    assert area == pytest.approx((3 * 6 + 1.5) / 24), "the share of pairs in order, ties counting half"
    assert curve.recall_precision[:3].tolist() == [[0.25, 1], [0.5, 1], [0.75, 1]]
    (family,) = count_families(run, [flagged])
    assert (family.family, family.found, family.poisoned) == ("character", 3, 4)


def test_lines_of_detectors_come_worst_first(tmp_path):
    rows = [*make_detections(defense="a", recall=90), *make_detections(defense="b", recall=10)]
    rows += [row for row in make_detections(attack="none", defense="a") if row.metric == "false_positive_rate"]
    lines = list_detector_lines(read_run(write_rows(tmp_path / "rows.csv", rows)))
    assert [(line.attack, line.defense) for line in lines] == [("word", "b"), ("word", "a"), ("none", "a")]


def test_damaged_evidence_is_left_out(folder):
    (path,) = folder.rglob("*@titles.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    run = read_run(folder)
    assert list(load_flagged(run)) == []
    assert "evidence" not in make_page([run]).headline


def test_long_curves_are_thinned_and_keep_their_ends():
    points = np.stack([np.linspace(0, 1, 5000), np.linspace(0, 1, 5000) ** 0.5], axis=1)
    thin = thin_curve(points)
    assert len(thin) <= 242
    assert (thin[0].tolist(), thin[-1].tolist()) == ([0, 0], [1, 1])
    assert np.abs(np.interp(points[:, 0], thin[:, 0], thin[:, 1]) - points[:, 1]).max() < 0.02


# Titles


@pytest.mark.parametrize(
    ("title", "span", "shown"),
    [
        ("Heat 5v", (5, 7), ("Heat ", "5v", "")),
        ("Heat", (None, None), ("Heat", "", "")),
        ("Heat", (3, 99), ("Heat", "", "")),
        ("Heat", (3, 2), ("Heat", "", "")),
        ("Heat", (-1, 2), ("Heat", "", "")),
        ("a" * 500, (None, None), ("a" * 160 + "…", "", "")),
        ("a" * 100 + "b" * 300 + "c" * 100, (100, 400), ("…" + "a" * 80, "b" * 200 + "…", "c" * 80 + "…")),
    ],
)
def test_titles_are_cut_around_their_span(title, span, shown):
    made = mark_title(title, *span, "x")
    assert (made.before, made.span, made.after) == shown


def test_planted_titles_that_were_missed_come_first(folder):
    run = read_run(folder)
    (planted,) = list_planted_titles(run, list(load_flagged(run)))
    assert (planted.attack, planted.count, planted.cell) == ("word", 4, "judge, seed 0")
    assert [title.name for title in planted.titles] == ["item 3", "item 0", "item 1", "item 2"]
    assert planted.titles[0].remark == "missed by finder"
    assert (planted.titles[1].before, planted.titles[1].span) == ("Film 0", " 5"), "as the evidence has it"


def test_spans_are_found_by_the_text_where_no_detector_ran(folder):
    for path in folder.rglob("*@titles.safetensors"):
        path.unlink()
    (planted,) = list_planted_titles(read_run(folder), [])
    assert (planted.titles[0].before, planted.titles[0].span) == ("Film 0 ", "5v")


def test_findings_are_read_as_they_were_written(findings):
    found = read_findings_file(findings)
    assert (found.rows, dict(found.tiers), found.scanner, found.threshold) == (
        4,
        {"flagged": 2, "review": 1},
        "ready",
        "1.5",
    )
    assert [title.name for title in found.titles] == ["row 1", "row 2", "row 4"]
    assert (found.titles[1].before, found.titles[1].span) == ("=cmd ", "5v"), "the apostrophe of the file is no letter"


def test_findings_in_other_formats_are_the_same(findings, tmp_path):
    import polars as pl

    frame = pl.read_csv(findings)
    frame.write_parquet(tmp_path / "f.parquet")
    frame.write_ndjson(tmp_path / "f.jsonl")
    wanted = read_findings_file(findings)
    for name in ("f.parquet", "f.jsonl"):
        found = read_findings_file(tmp_path / name)
        assert (found.rows, found.tiers, len(found.titles)) == (wanted.rows, wanted.tiers, len(wanted.titles))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("f.csv", b"a,b\n1,2\n", "no column 'row'"),
        ("f.csv", b"", "can't be read"),
        ("f.jsonl", b"{", "can't be read"),
        ("f.parquet", b"PAR1", "can't be read"),
        ("f.txt", b"", "does not end"),
    ],
)
def test_what_holds_no_findings_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_findings_file(tmp_path / name)
