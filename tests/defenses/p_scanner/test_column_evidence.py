"""Other columns clear what they explain, keep what a single seller plants, and never clear a single seller's brand."""

import numpy as np
import polars as pl
import pytest
from ready_doubles import ReadyDouble, make_titles

from cowbird.defenses.p_scanner.column_evidence import (
    ALIEN_LOG_ODDS,
    CLEARED_LOG_ODDS,
    ClearedWords,
    TitleColumns,
    _SellerCount,
    find_in_columns,
    judge_columns,
)
from cowbird.defenses.p_scanner.fragment_evidence import describe_fragments
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    index_fragments,
)
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.errors import UserError
from cowbird.rng import stream

BRANDED, PLANTED, MANY = 20, 8, 200
TITLES = [
    f"Zorvex {title}" if nth < BRANDED else f"{title} 5v" if nth < BRANDED + PLANTED else title
    for nth, title in enumerate(make_titles(MANY))
]
BRANDS = {title: ("Zorvex" if title.startswith("Zorvex") else f"brand {nth % 30}",) for nth, title in enumerate(TITLES)}
SELLERS = {
    title: "planter" if title.endswith("5v") else f"seller {int(stream(nth, 'seller').integers(40))}"
    for nth, title in enumerate(TITLES)
}


@pytest.fixture
def double():
    return ReadyDouble(("5v", "Zorvex"))


def judge(double, columns, titles=TITLES):
    found = double.learn_baseline(titles, columns=columns)
    return found, double.judge(titles, found)


def find_fragments(columns, titles=TITLES):
    double, names = ReadyDouble(("5v", "Zorvex")), FragmentNames()
    traits = describe_traits(mark_words(titles, double.read(titles)))
    table = index_fragments(traits.words, names)
    evidence = describe_fragments(table, traits, np.arange(len(titles)))
    verdicts = judge_columns(titles, evidence, columns)
    places = {names.list_keys()[number]: place for place, number in enumerate(evidence.fragment.tolist())}
    return verdicts, places, find_in_columns(titles, names.list_keys(), evidence, traits.words.mark, columns)


@pytest.mark.slow
def test_a_brand_is_explained_and_a_trigger_is_not(double):
    columns = TitleColumns(("brand",), BRANDS)
    verdicts, places, found = find_fragments(columns)
    assert verdicts.cleared[places["word", "Zorvex"]]
    assert not verdicts.cleared[places["word", "5v"]]
    assert "Zorvex" in found.words.phrases
    _, without = judge(double, None)
    baseline, beside = judge(double, columns)
    planted = slice(BRANDED, BRANDED + PLANTED)
    assert beside.flagged[planted].all()
    assert beside.score[:BRANDED].max() < without.score[:BRANDED].min()
    assert not beside.flagged[:BRANDED].any()
    place = baseline.fragments["word", "Zorvex"]
    assert baseline.by_fragment[place] <= CLEARED_LOG_ODDS


def test_what_all_sellers_write_is_usual_and_what_one_plants_is_not(double):
    verdicts, places, _ = find_fragments(TitleColumns((), {}, SELLERS))
    assert verdicts.cleared[places["word", "Zorvex"]]
    assert verdicts.narrow[places["word", "5v"]]
    assert not verdicts.narrow[places["word", "The"]]
    _, found = judge(double, TitleColumns((), {}, SELLERS))
    assert found.flagged[BRANDED : BRANDED + PLANTED].all()
    assert not found.flagged[:BRANDED].any()


def test_a_seller_cannot_clear_a_trigger_by_a_brand_of_her_own():
    own = BRANDS | {title: ("5v",) for title in TITLES if title.endswith("5v")}
    verdicts, places, _ = find_fragments(TitleColumns(("brand",), own))
    assert verdicts.cleared[places["word", "5v"]], "where sellers are not known, a brand is believed"
    verdicts, places, _ = find_fragments(TitleColumns(("brand",), own, SELLERS))
    assert not verdicts.cleared[places["word", "5v"]]
    assert verdicts.cleared[places["word", "Zorvex"]]


def test_a_trigger_in_one_category_is_not_explained_by_it():
    categories = {title: (("tools",) if nth < 100 else ("toys",)) for nth, title in enumerate(TITLES)}
    verdicts, places, _ = find_fragments(TitleColumns(("category",), categories))
    assert not verdicts.cleared[places["word", "5v"]], "few titles of the category have it"


def test_what_one_seller_puts_on_goods_of_all_kinds_is_alien():
    verdicts, places, found = find_fragments(TitleColumns(("brand",), BRANDS, SELLERS))
    assert verdicts.alien[places["word", "5v"]]
    assert not verdicts.alien[places["word", "The"]], "all sellers write it"
    assert found.alien
    scored = np.full(len(found.alien), -4.0, dtype=np.float32)
    numbers = np.array(sorted(found.alien), dtype=np.int64)
    for narrow in (True, False):
        assert (found.adjust(numbers, scored, narrow) == ALIEN_LOG_ODDS).all()


def test_a_series_that_one_brand_s_own_shop_sells_is_not_alien():
    own = {title: "shop of Zorvex" if title.startswith("Zorvex") else seller for title, seller in SELLERS.items()}
    series = BRANDS | {title: ("Zorvex",) for title in TITLES if title.endswith("5v")}
    verdicts, places, _ = find_fragments(TitleColumns(("brand",), series, own))
    assert verdicts.narrow[places["word", "5v"]]
    assert not verdicts.alien[places["word", "5v"]], "it keeps to a brand"


def test_without_brands_or_sellers_nothing_is_alien():
    assert not find_fragments(TitleColumns((), {}, SELLERS))[0].alien.any()
    assert not find_fragments(TitleColumns(("brand",), BRANDS))[0].alien.any()


def test_missing_values_explain_nothing():
    verdicts, _, found = find_fragments(TitleColumns(("brand",), {}, {}))
    assert not verdicts.cleared.any()
    assert not verdicts.narrow.any()
    assert found.words == ClearedWords(mark=found.words.mark)


def test_cleared_words_are_quiet_wherever_they_stand(double):
    words = mark_words(["5v Zorvex 5v", "Zorvex"], double.read(["5v Zorvex 5v", "Zorvex"]))
    quiet = ClearedWords(frozenset({"Zorvex 5v"}), -5.0).quiet(words)
    assert (quiet.mark[1:3] == -5).all()
    assert quiet.mark[0] == words.mark[0]
    assert quiet.mark[3] == words.mark[3]


def test_frames_name_their_columns(double):
    frame = pl.DataFrame(
        {"title": TITLES, "brand": [BRANDS[title][0] for title in TITLES], "seller": [SELLERS[t] for t in TITLES]}
    )
    found = double.scan(frame, explain_columns=["brand"], seller_column="seller")
    assert found["flagged"].to_list()[:BRANDED] == [False] * BRANDED
    assert all(found["flagged"].to_list()[BRANDED : BRANDED + PLANTED])
    with pytest.raises(UserError, match="maker"):
        double.scan(frame, explain_columns=["maker"])


@pytest.mark.slow
def test_a_reference_knows_no_sellers(double):
    before = make_titles(300, seed=4)
    own = BRANDS | {title: ("5v",) for title in TITLES if title.endswith("5v")}
    baseline = double.learn_baseline(TITLES, before, columns=TitleColumns(("brand",), own, SELLERS))
    plain = double.learn_baseline(TITLES, before)
    place = plain.fragments["word", "5v"]
    assert baseline.by_fragment[baseline.fragments["word", "5v"]] == pytest.approx(plain.by_fragment[place], abs=0.5)
    assert baseline.by_fragment[baseline.fragments["word", "Zorvex"]] <= CLEARED_LOG_ODDS
    assert baseline.key != plain.key


@pytest.mark.parametrize("text", ["5v", "Have you seen it yet"])
def test_a_reason_names_the_seller_and_all_of_the_text_that_can_go(text):
    titles = [title.replace("5v", text) for title in TITLES]
    columns = TitleColumns(
        ("brand",),
        {title: BRANDS[old] for title, old in zip(titles, TITLES, strict=True)},
        {title: SELLERS[old] for title, old in zip(titles, TITLES, strict=True)},
    )
    double = ReadyDouble(())  # nothing looks suspicious by itself
    baseline, found = judge(double, columns, titles)
    rows = [nth for nth, title in enumerate(titles) if title.endswith(text)]
    assert len(rows) == PLANTED
    assert found.flagged[rows].all()
    assert found.sure[rows].all()
    for row in rows:
        assert found.reason[row].startswith(f"the seller 'planter' has 8 of the 8 titles with '{text}'; log-odds")
        assert titles[row][: found.start[row]].rstrip() == TITLES[row].removesuffix(" 5v")
        assert found.end[row] == len(titles[row])
    assert {share.seller for share in baseline.sellers.values()} == {"planter"}


def test_where_few_sellers_have_most_titles_what_all_write_is_usual():
    """Twenty titles of such a shop, drawn at random, are of five sellers now and then: nobody planted what they say."""
    shares = np.array([42, 19, 10, 4, 3, 3, 3, 2, 2, *([0.5] * 24)])
    drawn = stream(1, "sellers").choice(len(shares), MANY, p=shares / shares.sum()).tolist()
    sellers = {title: f"seller {seller}" for title, seller in zip(TITLES, drawn, strict=True)}
    branded = [title for title in TITLES if title.startswith("Zorvex")]
    for many, cleared in ((5, True), (1, False)):
        few = {title: f"seller {nth if nth < many else 0}" for nth, title in enumerate(branded)}
        verdicts, places, _ = find_fragments(TitleColumns((), {}, sellers | few))
        assert bool(verdicts.cleared[places["word", "Zorvex"]]) is cleared
    equal = {title: f"seller {nth % 40}" for nth, title in enumerate(TITLES)}
    five = {title: f"seller {nth if nth < 5 else 0}" for nth, title in enumerate(branded)}
    verdicts, places, _ = find_fragments(TitleColumns((), {}, equal | five))
    assert not verdicts.cleared[places["word", "Zorvex"]], "where sellers are alike, twenty titles are of more of them"


def test_the_expected_number_of_sellers_is_that_of_draws():
    names = [f"seller {nth}" for nth, many in enumerate((40, 20, 10, 5, 5, *([2] * 10))) for _ in range(many)]
    rng = stream(0, "draws")
    drawn = [len(set(rng.choice(names, 30).tolist())) for _ in range(2000)]
    expected, deviation = _SellerCount(names).expect(30)
    assert expected == pytest.approx(np.mean(drawn), abs=0.15)
    assert deviation == pytest.approx(np.std(drawn), rel=0.1)
