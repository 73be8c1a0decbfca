"""Arrays say the same of titles as a walk through each of them: honest titles, hostile ones and any text."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ready_doubles import make_titles, mark
from walked_titles import (
    walk_counts,
    walk_fragments,
    walk_occurrences,
    walk_rarity,
    walk_rules,
    walk_shape,
    walk_traits,
)

from cowbird.defenses.p_scanner.fragment_evidence import (
    MAX_TITLES_COMPARED,
    _compare_titles,
    _measure_quantiles,
)
from cowbird.defenses.p_scanner.fragment_index import FragmentIndex
from cowbird.defenses.p_scanner.fragment_table import (
    FragmentNames,
    find_recurring,
    index_fragments,
)
from cowbird.defenses.p_scanner.title_evidence import TITLE_FEATURES, CatalogProfile, describe_titles
from cowbird.defenses.p_scanner.title_rules import write_shape
from cowbird.defenses.p_scanner.title_traits import describe_traits, mark_words
from cowbird.defenses.p_scanner.title_words import _BLANKS, apply_rules, split_titles

HOSTILE = [
    "", " ", "\t \n", "a", "A", "\ud800x \udc00", "x" * 500, " ".join(f"w{nth % 70}" for nth in range(150)),
    "漢字テスト\u3000東京", "İstanbul i̇ ß SS", "aaa bbb aaa aaa Aaa", "A\u00a0B\u2003C", "x\x1cy\x1dz\x85w\u2028v",
    "1½ ² ٣٤", "ΑΣ ας", "\x00null x\x00", "🏳️‍🌈 flag!", "w" * 39 + "1" + "x" * 30, "ǅ ǆ Ǆ", "5v 5V, (5v)",
    "don't 'quoted' \"q\" “smart”", "a.com/x www.b @me https://x", "<b>x</b> {{y}} `z` ### \\n ${w} %d",
    "Best  Best  deal", "ALL CAPS here and THERE", "iPhone McDonald aBcDe!!!", "x\u200by \u202ez",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(["Heat", "heat", "5v", "WOW", "wow!", "The", "é", "漢字", "7", "--"]), max_size=9).map(
        " ".join
    ),
    st.text(st.characters(exclude_categories=()), max_size=40),
)
titles_lists = st.lists(texts, max_size=12)


def marked(titles, seed=0):
    made = mark_words(titles, mark(titles, ("5v", "WOW", "heat")))
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 3, len(made.text)).round(0).astype(np.float32)
    return type(made)(made.cut, noise, made.verdict)


def list_marks(words, row):
    return words.mark[words.offsets[row] : words.offsets[row + 1]].tolist()


def test_blanks_are_what_python_splits_at():
    assert np.flatnonzero(_BLANKS).tolist() == [code for code in range(sys.maxunicode + 1) if chr(code).isspace()]


@settings(max_examples=60, deadline=None)
@given(titles_lists)
def test_words_stand_where_they_are_cut(titles):
    cut = split_titles(titles)
    for row, title in enumerate(titles):
        here = slice(*cut.offsets[row : row + 2])
        assert cut.text[here] == title.split()
        assert [title[a:b] for a, b in zip(cut.start[here], cut.end[here], strict=True)] == title.split()
    assert [cut.vocabulary[number] for number in cut.number] == cut.text


@settings(max_examples=60, deadline=None)
@given(titles_lists)
def test_rules_are_those_of_a_walk(titles):
    assert apply_rules(split_titles(titles)).tolist() == [walk_rules(title) for title in titles]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(max_codepoint=0x250), max_size=60))
def test_shapes_are_those_of_a_walk(word):
    assert write_shape(word) == walk_shape(word)


@settings(max_examples=60, deadline=None)
@given(titles_lists, st.integers(0, 9))
def test_traits_are_those_of_a_walk(titles, seed):
    words = marked(titles, seed)
    traits = describe_traits(words)
    got = zip(traits.highest.tolist(), traits.start.tolist(), traits.end.tolist(), traits.kind.tolist(), strict=True)
    assert list(got) == [walk_traits(title, list_marks(words, row)) for row, title in enumerate(titles)]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(titles_lists, st.integers(0, 1))
def test_rarity_is_that_of_a_walk(titles, less):
    known = [*make_titles(20), *HOSTILE[::2]]
    traits = describe_traits(marked([*known, *titles]))
    profile = CatalogProfile.measure(traits, np.arange(len(known)))
    assert (profile.characters, profile.words, profile.shapes) == walk_counts(known)
    rows = len(known) + np.arange(len(titles), dtype=np.int64)
    first = TITLE_FEATURES.index("rarest character")
    got = describe_titles(traits, rows, profile, own=bool(less))[:, first : first + 9]
    spans = zip(titles, traits.start[rows].tolist(), traits.end[rows].tolist(), strict=True)
    want = np.array([walk_rarity(*span, profile, less) for span in spans], dtype=np.float32).reshape(-1, 9)
    np.testing.assert_array_equal(got, want)


@settings(max_examples=60, deadline=None)
@given(titles_lists, st.booleans())
def test_fragments_are_those_of_a_walk(titles, few):
    words, names = marked(titles), FragmentNames()
    wanted = find_recurring(words) if few else None
    table = index_fragments(words, names, wanted)
    keys, texts = names.list_keys(), [*words.cut.vocabulary, None]
    seen: dict = {}
    for row, title in enumerate(titles):
        here = slice(*table.offsets[row : row + 2])
        parts = (table.fragment, table.type, table.mark, table.place, table.before, table.behind)
        got = [
            (keys[number], kind, high, place, texts[before], texts[behind])
            for number, kind, high, place, before, behind in zip(*(part[here].tolist() for part in parts), strict=True)
        ]
        want = walk_occurrences(title, list_marks(words, row))
        assert got == [each for each in want if wanted is None or each[0] in wanted]
        seen.update((each[0], None) for each in got)
    assert keys == list(seen)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(titles_lists, titles_lists)
def test_known_fragments_are_found_where_a_walk_finds_them(known, titles):
    keys = list(dict.fromkeys(key for title in known for key, *_ in walk_fragments(title)))
    fragments = {key: 3 * nth for nth, key in enumerate(keys)}
    found, owner = FragmentIndex(fragments).find(split_titles(titles))
    want = [
        (fragments[key], row)
        for row, title in enumerate(titles)
        for key in dict.fromkeys(key for key, *_ in walk_fragments(title))
        if key in fragments
    ]
    assert list(zip(found.tolist(), owner.tolist(), strict=True)) == want


def test_a_phrase_is_found_whose_beginning_is_no_known_phrase():
    index = FragmentIndex({("word", "buy it now"): 5, ("word", "now"): 2})
    assert [part.tolist() for part in index.find(split_titles(["buy it now", "buy now", "it now"]))] == [
        [5, 2, 2, 2],
        [0, 0, 1, 2],
    ]


@pytest.mark.parametrize(("pairs", "sampled"), [(1, 150), (50, 150), (1 << 22, 150), (50, 3)])
def test_titles_are_as_alike_as_one_fragment_after_the_other_says(monkeypatch, pairs, sampled):
    monkeypatch.setattr("cowbird.defenses.p_scanner.fragment_evidence.MAX_PAIRS_COMPARED", pairs)
    titles = [f"{title} zq" for title in make_titles(150)]
    table = index_fragments(marked(titles), FragmentNames())
    groups = [np.arange(0, 150, 2), np.array([3, 7]), np.array([5]), np.arange(150), np.array([1, 2, 3])]
    borders = np.concatenate([[0], np.cumsum([len(group) for group in groups])])
    got = _compare_titles(table, np.arange(150), sampled, np.concatenate(groups), borders)
    words = [set(table.word[slice(*table.word_offsets[row : row + 2])].tolist()) for row in range(150)]
    total = np.bincount(table.word[: table.word_offsets[sampled]]).astype(float)
    usual = (total * (total - 1)).sum() / (sampled * (sampled - 1))
    for group, alike in zip(groups, got.tolist(), strict=True):
        chosen = group[:: len(group) // MAX_TITLES_COMPARED + 1] if len(group) > MAX_TITLES_COMPARED else group
        size = len(chosen)
        if size < 2:
            assert alike == 0
            continue
        shared = sum(len(words[a] & words[b]) for a in chosen for b in chosen if a != b)
        if size > 2:
            shared -= len(set.intersection(*(words[row] for row in chosen))) * size * (size - 1)
        assert alike == pytest.approx(np.log((shared / (size * (size - 1)) + 0.02) / (usual + 0.02)), rel=1e-6)


def test_medians_and_quartiles_are_those_of_each_fragment():
    rng = np.random.default_rng(3)
    sizes = [1, 2, 3, 7, 8, 9, 40, 41]
    mark_of = rng.normal(0, 2, sum(sizes)).astype(np.float32)
    borders = np.concatenate([[0], np.cumsum(sizes)])
    middle, low = _measure_quantiles(mark_of, borders)
    parts = [mark_of[a:b] for a, b in pairwise(borders)]
    assert middle.tolist() == [np.median(part) for part in parts]
    assert low.tolist() == [min(part) if len(part) < 8 else np.sort(part)[len(part) // 4] for part in parts]
