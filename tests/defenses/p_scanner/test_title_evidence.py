"""Evidence on single titles and on fragments: known answers, at any share, with hostile titles among them."""

import numpy as np
import pytest
from ready_doubles import make_titles, mark

from cowbird.defenses.p_scanner.fragment_evidence import FRAGMENT_FEATURES, describe_fragments
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    count_fragments,
    index_fragments,
)
from cowbird.defenses.p_scanner.title_evidence import TITLE_FEATURES, CatalogProfile, describe_titles
from cowbird.defenses.p_scanner.title_traits import NO_MARK, describe_traits, mark_words


def traits_of(titles, suspicious=()):
    return describe_traits(mark_words(titles, mark(titles, suspicious)))


def feature(values, name):
    return values[:, TITLE_FEATURES.index(name)]


def fragment(evidence, names, key, name):
    place = np.flatnonzero(evidence.fragment == names.fragments[key])
    return float(evidence.features[place[0], FRAGMENT_FEATURES.index(name)])


def test_words_have_the_highest_mark_of_their_tokens():
    titles = ["Heat 5v now", "", "  Two  spaces "]
    words = mark_words(titles, mark(titles, ("5v",)))
    assert words.text == ["Heat", "5v", "now", "Two", "spaces"]
    assert words.mark[1] == 5
    assert words.offsets.tolist() == [0, 3, 3, 5]
    assert [titles[2][a:b] for a, b in zip(words.start[3:], words.end[3:], strict=True)] == ["Two", "spaces"]


def test_the_most_suspicious_words_are_found():
    traits = traits_of(["Heat buy now Two", "Heat", ""], ("buy", "now"))
    assert (traits.start[0], traits.end[0]) == (5, 12)
    assert traits.highest.tolist()[0] == 5
    assert traits.highest[2] == NO_MARK
    assert (traits.start[2], traits.end[2]) == (0, 0)


def test_what_is_rare_in_the_catalogue_counts_and_a_title_is_left_out_of_its_own_count():
    titles = [*make_titles(200), "Winter Song ☂", "Winter 7q9 Song"]
    traits = traits_of(titles)
    profile = CatalogProfile.measure(traits, np.arange(len(titles)))
    own = describe_titles(traits, np.arange(len(titles)), profile, own=True)
    alone = np.log((profile.size + 1) / 0.5)
    assert feature(own, "rarest character")[200] == pytest.approx(alone, abs=1e-5)
    assert feature(own, "rarest shape")[201] == pytest.approx(alone, abs=1e-5)
    assert feature(own, "rarest hard rule")[200] == pytest.approx(alone, abs=1e-5)
    assert feature(own, "rarest hard rule")[:200].max() == 0
    other = describe_titles(traits, np.array([200]), profile)
    assert feature(other, "rarest character")[0] < alone


def test_marks_are_ranked_among_words_of_their_kind():
    titles = [*make_titles(300), "Winter 5v Song"]
    traits = traits_of(titles, ("5v",))
    profile = CatalogProfile.measure(traits, np.arange(300))
    found = describe_titles(traits, np.arange(301), profile)
    for name in ("rarity of title log-odds", "rarity of highest mark", "rarity of marks by kind"):
        assert feature(found, name)[300] == feature(found, name).max()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_a_trigger_stands_out_at_any_share_and_a_brand_does_not(share):
    titles = make_titles(400)
    many = int(share * 400)
    planted = [f"{title} 5v" if nth < many else title for nth, title in enumerate(titles)]
    planted += [f"Lumo {('Lamp', 'Bulb')[nth % 2]} {('Warm', 'White')[nth // 2 % 2]} {nth}" for nth in range(20)]
    traits, names = traits_of(planted, ("5v",)), FragmentNames()
    table = index_fragments(traits.words, names)
    evidence = describe_fragments(table, traits, np.arange(len(planted)))
    trigger, brand = ("word", "5v"), ("word", "Lumo")
    assert np.exp(fragment(evidence, names, trigger, "count")) == pytest.approx(many, rel=1e-4)
    assert fragment(evidence, names, trigger, "mean mark") == 5
    assert fragment(evidence, names, brand, "mean mark") < -4
    assert fragment(evidence, names, trigger, "last") == 1
    assert fragment(evidence, names, brand, "first") == 1
    assert fragment(evidence, names, brand, "likeness of its titles") > fragment(
        evidence, names, trigger, "likeness of its titles"
    )


def test_a_fragment_that_is_new_has_grown():
    before, now = make_titles(300), [f"{title} Deluxe" for title in make_titles(100, seed=1)]
    traits, names = traits_of([*before, *now]), FragmentNames()
    table = index_fragments(traits.words, names)
    known = (count_fragments(table, np.arange(300)), 300)
    evidence = describe_fragments(table, traits, 300 + np.arange(100), known)
    assert fragment(evidence, names, ("word", "Deluxe"), "growth of its share") > 5
    assert abs(fragment(evidence, names, ("word", "The"), "growth of its share")) < 0.7


def test_hostile_titles_are_described():
    titles = ["", " ", "\ud800 x", "\x00", "x" * 5000, "\u202ea b c", "a a a a", *make_titles(50)]
    traits, names = traits_of(titles), FragmentNames()
    evidence = describe_fragments(index_fragments(traits.words, names), traits, np.arange(len(titles)))
    profile = CatalogProfile.measure(traits, np.arange(len(titles)))
    assert np.isfinite(evidence.features).all()
    assert np.isfinite(describe_titles(traits, np.arange(len(titles)), profile, own=True)).all()


def test_nothing_recurs_in_one_title_or_none():
    traits, names = traits_of(["Heat Two"]), FragmentNames()
    table = index_fragments(traits.words, names)
    assert len(describe_fragments(table, traits, np.arange(1)).fragment) == 0
    assert len(describe_fragments(table, traits, np.arange(0)).fragment) == 0


def test_fragments_of_a_very_long_title_are_capped():
    long = " ".join(f"w{nth}" for nth in range(2000))
    traits, names = traits_of([long, f"{long} 5v", "Heat"]), FragmentNames()
    table = index_fragments(traits.words, names)
    assert ("word", "w0 w1 w2 w3") in names.fragments
    assert ("word", "5v") in names.fragments, "the end counts"
    assert ("word", "w1000") not in names.fragments
    assert table.offsets[1] < 500
