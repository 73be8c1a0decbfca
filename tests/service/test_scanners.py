"""Scanners of a service: each title by itself, and what can't do that is refused."""

import pytest

from cowbird.defenses.p_scanner import ready
from cowbird.errors import UserError
from cowbird.scanning.calibrating import calibrate_catalog
from cowbird.service.scanners import ScannerSource, judge_titles, open_source
from defenses.p_scanner.ready_doubles import ReadyDouble, make_titles

RULES = ScannerSource(detector="character_rules")


def test_the_rules_judge_each_title_by_itself():
    served = open_source(RULES)
    scorer = served.make()
    titles = ["a\u200bb mug", "mug", "\u03a9 mug", "mug"]
    together = judge_titles(scorer, served.allow, titles)
    alone = [judge_titles(scorer, served.allow, [title])[0] for title in titles]
    assert together == alone
    assert [each.tier for each in together] == ["flagged", "none", "none", "none"]
    assert served.threshold == 9.5 and len(served.sha256) == 64


def test_hostile_titles_have_verdicts():
    served = open_source(RULES)
    titles = ["", " ", "\x00", "\ud800", "x" * 100_000, "\U0010ffff", "\u202e", "a\u0301" * 500, "=1+1", "<script>"]
    found = judge_titles(served.make(), served.allow, titles)
    assert len(found) == len(titles) and {each.tier for each in found} <= {"flagged", "review", "none"}
    assert not any(set(each.reason) & set("\u202e\x00\ud800") for each in found)


def test_a_reference_sets_the_threshold_and_its_hash(tmp_path):
    path = tmp_path / "clean.csv"
    path.write_text("title\n" + "".join(f"mug {nth}\n" for nth in range(300)))
    served = open_source(ScannerSource(detector="character_rules", reference=path, fpr=0.01))
    assert served.basis == {"kind": "detector", "reference": 300, "fpr": 0.01}
    found = judge_titles(served.make(), served.allow, ["mug", "m\u200bug"])
    assert [(each.tier, each.threshold) for each in found] == [("none", None), ("flagged", None)]
    path.write_text("title\n" + "".join(f"mug\u200b {nth}\n" for nth in range(300)))
    assert open_source(ScannerSource(detector="character_rules", reference=path)).sha256 != served.sha256


def test_allowed_texts_are_part_of_the_hash(tmp_path):
    (tmp_path / "allow").write_text("a\u200bb mug\n")
    served = open_source(ScannerSource(detector="character_rules", allow=tmp_path / "allow"))
    assert judge_titles(served.make(), served.allow, ["a\u200bb mug"])[0].tier == "allowed"
    assert served.sha256 != open_source(RULES).sha256


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ScannerSource(), "no threshold for single titles"),
        (ScannerSource(settings=("rarity=true",)), "none is named"),
        (ScannerSource(detector="character_rules", settings=("rarity=true",)), "compares titles"),
        (ScannerSource(detector="character_rules", settings=("nonsense=1",)), "nonsense"),
        (ScannerSource(detector="character_rules", review_fpr=0.1), "ready scanner"),
        (ScannerSource(detector="no_such"), "no_such"),
        (ScannerSource(detector="p_scanner"), "learns from a whole catalogue"),
        (ScannerSource(detector="perplexity"), "share"),
    ],
)
def test_what_can_not_judge_single_titles_is_refused(source, said):
    with pytest.raises(UserError, match=said) as caught:
        open_source(source)
    assert caught.value.hint


@pytest.fixture(scope="module")
def double():
    return ReadyDouble()


@pytest.mark.slow
def test_the_ready_scanner_judges_single_titles_calibrated_now_or_before(tmp_path, monkeypatch, double):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)
    clean, made = tmp_path / "clean.csv", tmp_path / "made"
    clean.write_text("title\n" + "\n".join(make_titles(200)) + "\n")
    calibrate_catalog(clean, made, "cpu")
    served = [open_source(ScannerSource(reference=clean)), open_source(ScannerSource(scanner=made, device="cpu"))]
    titles = ["Red River 5v", "The Winter Song", "", "\u202e"]
    found = [judge_titles(each.make(), each.allow, titles) for each in served]
    assert found[0] == found[1] and [each.tier for each in found[0]][:3] == ["flagged", "none", "none"]
    alone = [judge_titles(served[1].make(), served[1].allow, [title])[0] for title in titles]
    assert alone == found[1]
    assert served[1].basis["calibrated_on"] == 200 and served[1].label.startswith("calibrated ")
    looser = open_source(ScannerSource(scanner=made, device="cpu", fpr=0.1))
    assert looser.threshold < served[1].threshold and looser.sha256 != served[1].sha256
    with pytest.raises(UserError, match="counts flagged titles too"):
        open_source(ScannerSource(scanner=made, device="cpu", fpr=0.1, review_fpr=0.05))


def test_a_scanner_of_before_takes_no_reference(tmp_path):
    with pytest.raises(UserError, match="made before"):
        open_source(ScannerSource(scanner=tmp_path, reference=tmp_path))
    with pytest.raises(UserError, match="does not hold a scanner"):
        open_source(ScannerSource(scanner=tmp_path, device="cpu"))


@pytest.mark.parametrize("detector", [None, "character_rules"])
def test_rows_of_a_reference_that_cannot_be_read_are_told(tmp_path, monkeypatch, double, detector):
    monkeypatch.setattr(ready.ReadyScanner, "load", lambda place="cpu", tagger="llm": double)
    path, titles = tmp_path / "clean.csv", make_titles(150)
    path.write_text("id,title\n" + "".join(f"{nth},{title}\n" for nth, title in enumerate(titles)))
    whole = open_source(ScannerSource(detector=detector, reference=path))
    with path.open("a") as file:
        file.write("1,Red River,more\n" * 7)
    served = open_source(ScannerSource(detector=detector, reference=path))
    assert served.basis["reference_unread"][0]["count"] == served.unread[0].count == 7
    assert (whole.unread, served.sha256) == ((), whole.sha256)


@pytest.mark.parametrize("name", ["reference", "allow"])
def test_no_option_is_advised_that_a_service_does_not_have(tmp_path, name):
    path = tmp_path / "strange.csv"
    path.write_bytes(b"title\n" + "\n".join(["\u043a\u043d\u0438\u0433\u0430"] * 90).encode("cp1251"))
    with pytest.raises(UserError, match="is not in UTF-8") as caught:
        open_source(ScannerSource(detector="character_rules", **{name: path}))
    assert f"--{name}" in caught.value.hint
    assert "--encoding" not in caught.value.hint


def test_too_few_titles_of_a_reference_name_the_reference(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("title\nmug\n")
    with pytest.raises(UserError, match="there are 1") as caught:
        open_source(ScannerSource(reference=path))
    assert caught.value.hint == "Give a file with more titles: --reference FILE."
