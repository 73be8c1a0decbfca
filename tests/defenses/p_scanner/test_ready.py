"""The ready scanner: scoring is learned, kept and read back; baselines find triggers without a fit and say what they
rest on; verdicts depend on the title alone."""

from dataclasses import replace

import numpy as np
import pytest
from ready_doubles import ReadyDouble, make_titles, mark

from cowbird.defenses.p_scanner.baseline import LEFT_OUT_LOG_ODDS, SURE_LOG_ODDS
from cowbird.defenses.p_scanner.baseline_learning import find_flood
from cowbird.defenses.p_scanner.fragment_evidence import (
    FRAGMENT_FEATURES,
    FragmentEvidence,
    describe_fragments,
)
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    index_fragments,
)
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.scoring import (
    FRAGMENT_WEIGHT,
    LEAST_FRAGMENT,
    LEAST_RARITY,
    MAX_LOG_ODDS,
    NO_FRAGMENT,
    RARE_WEIGHTS,
    READY_SCORING,
    READY_SMALL_SCORING,
    choose_trusted,
    join_evidence,
    load_scoring,
    weigh_fragments,
)
from cowbird.defenses.p_scanner.title_evidence import TITLE_FEATURES, CatalogProfile, describe_titles
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.defenses.p_scanner.training.scoring_training import PlantedScan, fit_network, learn_scoring
from cowbird.errors import UserError
from cowbird.files import hash_file
from cowbird.metrics.detection import auroc
from cowbird.storage import read_tensors, write_tensors


@pytest.fixture(scope="module")
def scanner():
    """Return the scoring that ships, without a tagger: marks are given."""
    return ReadyScanner(None, load_scoring())


def plant(titles, rows, text):
    return [f"{title} {text}" if nth in rows else title for nth, title in enumerate(titles)]


def judge(scanner, titles, suspicious=(), reference=(), **fields):
    marks = mark([*reference, *titles], suspicious)
    baseline = scanner.learn_baseline(titles, reference, marks=marks, **fields)
    return baseline, scanner.judge(titles, baseline, marks=mark(titles, suspicious))


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_a_trigger_is_flagged_at_small_and_large_shares(scanner, share):
    rows = set(range(int(share * 500)))
    titles = plant(make_titles(500), rows, "5v")
    baseline, found = judge(scanner, titles, ("5v",))
    planted = np.array([nth in rows for nth in range(500)])
    assert auroc(found.score, planted) > 0.99
    assert found.flagged[planted].mean() > 0.95
    row = next(iter(rows))
    assert titles[row][found.start[row] : found.end[row]] == "5v"
    assert f"{len(rows):,} titles share '5v'" in found.reason[row]
    assert baseline.left_out >= len(rows) * 0.9
    assert baseline.promised > baseline.fprs[0]


def test_a_trigger_of_moderate_log_odds_does_not_set_the_threshold_for_itself():
    double, rows = ReadyDouble(), range(0, 300, 10)
    double.high = -0.2  # the tagger finds the trigger less likely than not
    titles = plant(make_titles(300), rows, "5v")
    baseline = double.learn_baseline(titles)
    log_odds = baseline.by_fragment[baseline.fragments["word", "5v"]]
    assert LEFT_OUT_LOG_ODDS < log_odds < SURE_LOG_ODDS
    assert baseline.left_out == len(rows)
    assert double.judge(titles, baseline).flagged[list(rows)].all()


def test_a_flood_that_stands_apart_does_not_set_the_threshold():
    rng = np.random.default_rng(0)
    clean, flood = rng.normal(-4, 1, 400).astype(np.float32), rng.normal(1, 0.3, 100).astype(np.float32)
    score = np.concatenate([clean, flood])
    log_odds = np.concatenate([np.full(400, -3.0), np.full(100, 1.5)]).astype(np.float32)
    bar = find_flood(score, log_odds)
    assert (log_odds > bar).sum() == 100
    assert find_flood(score - 4 * (log_odds > 0), log_odds) == LEFT_OUT_LOG_ODDS  # it does not stand apart
    assert find_flood(score[:405], log_odds[:405]) == LEFT_OUT_LOG_ODDS  # five titles are no flood
    assert find_flood(score, log_odds - 2) == LEFT_OUT_LOG_ODDS  # none is more likely a trigger than not
    assert find_flood(score, log_odds + 2) == LEFT_OUT_LOG_ODDS  # they are left out anyway


def test_a_flood_is_flagged_without_a_reference():
    double, rows = ReadyDouble(), range(0, 300, 4)
    double.high = -2.0
    titles = plant(make_titles(300), rows, "5v")
    baseline = double.learn_baseline(titles)
    assert baseline.by_fragment.max() < LEFT_OUT_LOG_ODDS
    assert baseline.left_out == len(rows)
    assert double.judge(titles, baseline).flagged[list(rows)].all()


@pytest.mark.slow
def test_a_reference_tells_what_is_new(scanner):
    before = make_titles(400)
    titles = plant(make_titles(300, seed=1), set(range(60)), "Deluxe")
    planted = np.arange(300) < 60
    _, without = judge(scanner, titles)
    baseline, found = judge(scanner, titles, reference=before)
    assert auroc(found.score, planted) > 0.95
    assert auroc(found.score, planted) >= auroc(without.score, planted)
    assert baseline.reference == 400
    assert "60 titles share 'Deluxe'; log-odds" in "".join(found.reason)
    assert "not in the reference" in "".join(found.reason)


@pytest.mark.slow
def test_clean_titles_are_flagged_at_about_the_rate_asked_for(scanner):
    titles = make_titles(900)
    baseline, _ = judge(scanner, titles[:600], fpr=0.05)
    fresh = scanner.judge(titles[600:], baseline, marks=mark(titles[600:]))
    assert fresh.flagged.mean() < 0.1
    assert (fresh.review & fresh.flagged).sum() == 0


def test_a_verdict_depends_on_the_title_alone(scanner):
    titles = plant(make_titles(200), {3, 4, 5}, "5v")
    baseline, whole = judge(scanner, titles, ("5v",))
    part = scanner.judge(titles[3:9], baseline, marks=mark(titles[3:9], ("5v",)))
    # Marks of the double are drawn by row, so words that are not suspicious differ a little.
    assert np.abs(part.score[:3] - whole.score[3:6]).max() < 1
    again = scanner.judge(titles, baseline, marks=mark(titles, ("5v",)))
    assert (again.score == whole.score).all()
    assert again.reason == whole.reason


def test_baselines_refuse_what_they_cannot_rest_on(scanner):
    few = make_titles(20)
    with pytest.raises(UserError, match="50 different titles"):
        scanner.learn_baseline(few, marks=mark(few))
    titles = make_titles(60)
    for rate in (0, 1, -1, 2.5):
        with pytest.raises(UserError, match="between 0 and 1"):
            scanner.learn_baseline(titles, fpr=rate, marks=mark(titles))


def test_hostile_titles_are_judged(scanner):
    baseline, _ = judge(scanner, make_titles(100))
    titles = ["", "\ud800", "\x00\x1b[31m", "x" * 4000, "\u202eevil", " ", "a\u200bb"]
    found = scanner.judge(titles, baseline, marks=mark(titles))
    assert np.isfinite(found.score).all()
    assert ((found.start == -1) == (found.end == -1)).all()
    assert all(end <= len(title) for title, end in zip(titles, found.end.tolist(), strict=True))


def make_scan(seed, text):
    titles = plant(make_titles(150, seed), set(range(12)), text)
    traits, names = describe_traits(mark_words(titles, mark(titles, (text,)))), FragmentNames()
    rows = np.arange(len(titles))
    evidence = describe_fragments(index_fragments(traits.words, names), traits, rows)
    features = describe_titles(traits, rows, CatalogProfile.measure(traits, rows), own=True)
    return PlantedScan(features, evidence, np.where(rows < 12, 1, -1)), names


@pytest.mark.slow
def test_scoring_is_learned_and_kept(tmp_path):
    scans = [make_scan(seed, text)[0] for seed, text in enumerate(("zq", "5v", "||"))]
    model = learn_scoring(scans, [], 0, epochs=(20, 10, 20))
    same = learn_scoring(scans, [], 0, epochs=(20, 10, 20))
    fresh, names = make_scan(9, "x7")
    found = model.score_titles(fresh.features, fresh.evidence)
    assert auroc(found.score, fresh.trigger > 0) > 0.95
    assert (found.score == same.score_titles(fresh.features, fresh.evidence).score).all()
    label = fresh.label_fragments()
    assert label[np.flatnonzero(fresh.evidence.fragment == names.fragments["word", "x7"])] == 1
    assert model.save(tmp_path / "scoring.safetensors", {"seed": "0"}) == hash_file(tmp_path / "scoring.safetensors")
    again = load_scoring(tmp_path / "scoring.safetensors")
    assert (again.score_titles(fresh.features, fresh.evidence).score == found.score).all()


def test_a_flooded_catalogue_does_not_say_what_is_usual():
    scan, _ = make_scan(0, "5v")
    trusted = choose_trusted(load_scoring().fragment.score(scan.evidence.features), scan.evidence, len(scan.features))
    assert trusted[12:].mean() > 0.9
    assert trusted[:12].mean() < 0.2


def test_damaged_scoring_is_refused(tmp_path):
    held, _ = read_tensors(READY_SCORING)
    path = tmp_path / "scoring.safetensors"
    for change, header in (
        ({}, {"cowbird": "0"}),
        ({"title.mean": held["title.mean"][:3]}, {"cowbird": "1"}),
        ({"joined.bias2": held["joined.bias2"] * float("nan")}, {"cowbird": "1"}),
    ):
        write_tensors(path, held | change, header)
        with pytest.raises(UserError, match="scoring weights"):
            load_scoring(path)
    write_tensors(path, {key: value for key, value in held.items() if key != "title.mean"}, {"cowbird": "1"})
    with pytest.raises(UserError, match="scoring weights"):
        load_scoring(path)


def test_a_network_of_one_row_is_fitted():
    network = fit_network(np.ones((1, 4), dtype=np.float32), np.ones(1, dtype=np.float32), 0, 4, 2)
    assert np.isfinite(network.score(np.zeros((3, 4), dtype=np.float32))).all()


def test_without_a_reference_a_fragment_counts_beside_what_the_networks_say():
    odds = np.array([NO_FRAGMENT, LEAST_FRAGMENT - 1, LEAST_FRAGMENT, LEAST_FRAGMENT + 3, 99.0], dtype=np.float32)
    added = [0, 0, 0, FRAGMENT_WEIGHT * 3, FRAGMENT_WEIGHT * (MAX_LOG_ODDS - LEAST_FRAGMENT)]
    assert weigh_fragments(odds).tolist() == added


def test_a_title_without_a_fragment_has_the_score_of_its_own_features():
    model = load_scoring(READY_SMALL_SCORING)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, len(TITLE_FEATURES))).astype(np.float32)
    nothing = np.empty(0, dtype=np.int64)
    none = FragmentEvidence(nothing, np.empty((0, len(FRAGMENT_FEATURES)), np.float32), nothing, nothing)
    found = model.score_titles(features, none)
    np.testing.assert_array_equal(found.score, model.score_alone(features))
    drawn = rng.normal(size=(200, len(FRAGMENT_FEATURES))).astype(np.float32)
    for known in (0, 1):
        drawn[:, FRAGMENT_FEATURES.index("whether a reference is known")] = known
        numbers = drawn[[model.fragment.score(drawn).argmax()]]
        shared = FragmentEvidence(np.array([5]), numbers, np.zeros(2, int), np.arange(2))
        found = model.score_titles(features, shared)
        given = join_evidence(found.alone, model.fragment.score(shared.features), found.worst, shared)
        added = np.zeros(6) if known else weigh_fragments(found.fragment)
        assert known or added[:2].min() > 0
        np.testing.assert_allclose(found.score[:2], (model.joined.score(given) + added)[:2], rtol=1e-6)
        np.testing.assert_array_equal(found.score[2:], found.alone[2:])


def test_rare_spelling_and_capitals_add_what_lies_above_the_least_rarity():
    model = load_scoring()
    assert not load_scoring(READY_SMALL_SCORING).weighs_rare, "beside the small tagger they hide more than they find"
    features = np.random.default_rng(0).normal(size=(4, len(TITLE_FEATURES))).astype(np.float32)
    features[:, -2:] = [[0, LEAST_RARITY], [LEAST_RARITY + 2, 0], [0, LEAST_RARITY + 2], [7, 7]]
    added = [0, 2 * RARE_WEIGHTS[0], 2 * RARE_WEIGHTS[1], (7 - LEAST_RARITY) * sum(RARE_WEIGHTS)]
    plain = replace(model, weighs_rare=False)
    np.testing.assert_allclose(model.score_alone(features) - plain.score_alone(features), added, atol=1e-5)
    muted = features.copy()
    muted[:, -2:] = 0
    np.testing.assert_array_equal(plain.score_alone(features), plain.score_alone(muted))
