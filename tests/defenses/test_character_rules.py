"""Rules about characters: what each finds and spares, spans, and how well planted triggers stand out."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cowbird.attacks.triggers import TRIGGERS, Trigger, plant
from cowbird.defenses import _character_finders, character_rules
from cowbird.defenses.character_rules import (
    CASE_RULES,
    CHARACTER_RULES,
    CharacterRules,
    TitleCharacters,
    find_broken_rules,
)
from cowbird.defenses.titles import Suspicion
from cowbird.metrics.detection import auroc

FIRST = (
    "Quiet",
    "Last",
    "Am\u00e9lie's",
    "Red",
    "McCabe",
    "Night",
    "Old",
    "Dr.",
    "Zo\u00eb",
    "iPhone",
    "USA",
    "Caf\u00e9",
)
SECOND = ("Harbor", "Garden", "Engine", "Letter", "Mirror", "Forest", "Express", "Jury", "Quartz", "Wolves", "Score")
LAST = ("", "", " (1999)", ": Part 2", "?", "!", " & Sons", " II", "...", " - The Movie", ", The (1987)", " 3000")


def natural(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = (rng.choice(list(words), count) for words in (FIRST, SECOND, LAST))
    return ["".join([one, " ", two, end]) for one, two, end in zip(*parts, strict=True)]


def broken(titles):
    """Return the verdicts of the rules alone, by the one that speaks loudest."""
    columns = [(one.score, one.start, one.end) for _, one in find_broken_rules(titles)[: len(CHARACTER_RULES)]]
    score, start, end = (np.stack(column) for column in zip(*columns, strict=True))
    return Suspicion(
        score.max(axis=0), *(column[score.argmax(axis=0), np.arange(len(titles))] for column in (start, end))
    )


UNICODE = ("zero_width", "bidi", "homoglyph", "styled_letters", "combining")
PLANTED = [name for name, entry in TRIGGERS.items() if entry.family in UNICODE]
PLANTED += ["spacing_no_break", "spacing_figure", "spacing_tab", "casing_alternating", "casing_last", "casing_inverted"]
PLANTED += ["punctuation_exclamation", "punctuation_dots", "punctuation_bars"]


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("position", ["start", "middle"])
def test_planted_triggers_stand_out_and_their_span_is_on_them(kind, position):
    rng, titles = np.random.default_rng(1), natural(300)
    poisoned, spans = np.zeros(len(titles), dtype=bool), {}
    trigger = Trigger(kind=kind, position=position)
    for row in rng.choice(len(titles), 30, replace=False):
        planted = plant(titles[row], trigger, rng)
        if planted.title != titles[row]:
            titles[row], poisoned[row], spans[row] = planted.title, True, planted.spans
    assert poisoned.any()
    found = CharacterRules().suspect(titles)
    cased = kind.startswith("casing")  # a capital behind an apostrophe is spared, for names such as dell'Arte
    assert auroc(found.score, poisoned) > (0.9 if cased else 0.95)
    hits = [spans[row][0][0] < found.end[row] and found.start[row] < spans[row][-1][1] for row in spans]
    assert np.mean(hits) > (0.85 if cased else 0.95)


@pytest.mark.parametrize(
    ("rule", "title", "expected"),
    [
        ("find_hidden", "Re\u200bd", "\u200b"),
        ("find_hidden", "R\u00aded\ufeff", "\u00ad\ufeff"),
        ("find_hidden", "R\x00\x7f\ud800\ue000", "\x00\x7f\ud800\ue000"),
        ("find_hidden", "Re\u200dd", "\u200d"),
        ("find_hidden", "R\u3164d\u2800", "\u3164\u2800"),
        ("find_hidden", "\U0001f468\u200d\U0001f469 \u2764\ufe0f\u200d\U0001f525", ""),
        ("find_hidden", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ""),
        ("find_hidden", "\u0645\u200c", "\u200c"),
        ("find_mixed", "R\u0435d \u041c\u0438\u0440 Mir", "\u0435"),
        ("find_mixed", "H\u03bfp\u0435", "\u03bf\u0435"),
        ("find_mixed", "\u041c\u0438\u0440 Mir \u6771\u4eac Story \u00b5m Ame\u0301lie \u03b1-ray", ""),
        ("find_styled", "\uff32ed \U0001d411 \u24c7 \uff11 \u1d00", "\uff32\U0001d411\u24c7\uff11\u1d00"),
        ("find_styled", "Am\u00e9lie\u2122 \u00bd \u00b2 \u6771 \u2605 \ufb01", ""),
        ("find_marks", "R\u0336e\u0336d", "\u0336\u0336"),
        ("find_marks", "\u0301 x", "\u0301"),
        ("find_marks", "x \u0301", "\u0301"),
        ("find_marks", "e\u0301 Ho\u0302\u0300 \u0438\u0306 \u05e9\u05b8\u05c1 \u0e01\u0e34\u0e48 5\ufe0f\u20e3", ""),
        ("find_marks", "\u6771\u0301\u0301\u0301\u0301", "\u0301" * 4),
        ("find_odd_spaces", "R e\td\u00a0\n\u2009", "\t\u00a0\n\u2009"),
        ("find_odd_case", "hArBoR harboR hARBOR rEd", "ABRRARBORE"),
        ("find_odd_case", "McCabe iPhone USA YouTube DeVito Red \u00c9mile eBay OK dell'Arte", ""),
        ("find_digits", "h4rbor B2 2B R2D2 Part 2 1999 Peer2Peer", "42"),
        ("find_repeated_signs", "Up!!! ..... ||| No!! ... ?!?", "!!!.....|||"),
        ("find_repeated_signs", "\u2605\u2605\u2605 000 aaa", "\u2605\u2605\u2605"),
        ("find_repeated_spaces", " Red  Blue   Up ", "   "),
        ("find_repeated_spaces", "Red \t Blue\u00a0 Up", ""),
        ("find_spelled", "H a r b o r of", "H a r b o r"),
        ("find_spelled", "Up a  b c d2", "a  b c"),
        ("find_spelled", "A B Harbor a b", ""),
        ("find_spelled", "a b1 c 1 2 3 d! e", ""),
        ("find_repeated_words", "Red red Harbor-harbor x", "red-harbor"),
        ("find_repeated_words", "Up & up, on . On", "& up. On"),
        ("find_repeated_words", "Red redder bored red a a 12 12 Red, red", ""),
        ("find_repeated_words", "Zo\u00eb zo\u00eb \ud800", "zo\u00eb"),
        ("find_repeated_words", "Up (1995) (1995) 1995/1995", "(1995)/1995"),
        ("find_repeated_words", "Up (1995) 1995 (12) (12) (red red)", "red"),
        ("find_repeated_words", "Red red red-red", "red red"),
        ("find_repeated_words", "Hi-Fi Hi-Fi Up! up! L'Or/L'Or", "Hi-Fiup!/L'Or"),
        ("find_repeated_words", "Red Hi-Fi Hi-Fi2 A! A K K 41 41 -- --", ""),
        ("find_repeated_words", "Up,-Up, Dr. No Hi-Fi.Hi-Fi", "-Up,.Hi-Fi"),
        ("find_repeated_often", "Snap! Snap! Snap! Red! Red!", "Snap! Snap!"),
        ("find_repeated_later", "Red red Up up-up", "up"),
        ("find_repeated_later", "Red red", ""),
        ("find_repeated_often", "Up up Red red red red", "red red red"),
        ("find_repeated_often", "Red red-red Up/up", ""),
        ("find_repeated_joined", "Red/red Up up Old-old Up & up", "/red& up"),
        ("find_disguised", "Red \u0412\u043e\u0443 of", "\u0412\u043e\u0443"),
        ("find_disguised", "\u0410 Red \u0392\u039f\u03a5 \u13aa \u0585", "\u0410\u0392\u039f\u03a5\u13aa\u0585"),
        ("find_disguised", "Red \u041c\u0438\u0440 \u0412\u043e\u0443", ""),
        ("find_disguised", "\u0412\u043e\u0443 2 \u6771", ""),
    ],
)
def test_rules(rule, title, expected):
    found = getattr(_character_finders, rule)(TitleCharacters.of(["!!", title, "!!"]))[2:-2]
    assert "".join(letter for letter, hit in zip(title, found, strict=True) if hit) == expected


def test_rules_end_where_titles_do():
    for rule, titles in {
        "find_repeated_signs": ["!!", "!"],
        "find_odd_case": ["har", "B"],
        "find_mixed": ["R", "\u0435"],
        "find_marks": ["a", "\u0301\u0301"],
        "find_digits": ["a1", "b", "2c"],
        "find_hidden": ["\U0001f468", "\u200d", "\U0001f468"],
        "find_repeated_spaces": ["a ", " b"],
        "find_spelled": ["a b", "c", "d e"],
        "find_repeated_words": ["red ", "red", "-red"],
        "find_repeated_often": ["red red ", "red"],
        "find_disguised": ["Red", "\u0412\u043e\u0443"],
    }.items():
        found = getattr(_character_finders, rule)(TitleCharacters.of(titles))
        assert found.any() == (rule in ("find_marks", "find_hidden")), rule


def test_the_loudest_rule_gives_score_and_span():
    titles = ["Red Harbor", "Red H\u200brb\u200br H\u200b", "h4rbor \u0435ver", "Red \u202aHarbor\u202c", "Up!!!", ""]
    found = CharacterRules().suspect(titles)
    assert found.score.tolist()[1:] == [60, 12, 60, 10, -np.inf]
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True))[1:] == [
        *((5, 9), (7, 8), (4, 12), (2, 5), (-1, -1))
    ]


def test_rare_characters_are_those_of_the_catalogue(monkeypatch):
    titles = ["aab"] * 7 + ["ab7"]
    found = CharacterRules().suspect(titles)
    bits = -np.log2([8.5 / 9] * 7 + [1.5 / 9])
    np.testing.assert_allclose(found.score, bits, rtol=1e-6)
    assert (found.start[-1], found.end[-1]) == (2, 3)
    monkeypatch.setattr(character_rules, "CHUNK_CHARACTERS", 3)
    again = CharacterRules().suspect(titles)
    assert np.array_equal(again.score, found.score)
    assert np.array_equal(again.start, found.start)
    assert np.array_equal(again.end, found.end)


def naive_spelled(title):
    """Return which characters are of a run of three and more words of one letter each, one of them small."""
    found, run, at = [False] * len(title), [], 0
    for word in [*title.split(" "), "xx"]:
        if len(word) == 1 and word.isalpha():
            run.append(at)
        elif word:
            if len(run) >= 3 and any(title[place].islower() for place in run):
                found[run[0] : run[-1] + 1] = [True] * (run[-1] + 1 - run[0])
            run = []
        at += len(word) + 1
    return found


def naive_token(text):
    """Return where what repeats the beginning of a text begins and ends, between spaces; nothing if it does not."""
    for length in range(len(text.split(" ")[0]), 1, -1):
        unit = text[:length]
        for gap in (3, 2, 1):
            joint, ends = text[length : length + gap], [length]
            if len(joint) < gap or set(joint) - set(" /_.&+~-") or not any(map(str.isalpha, unit)):
                continue
            while text[ends[-1] :].startswith(joint + unit):
                ends.append(ends[-1] + gap + length)
            end = max((at for at in ends[1:] if text[at : at + 1] in ("", " ")), default=0)
            if end:
                return length + len(joint) - len(joint.lstrip(" ")), end
    return None


def naive_echoed(title):
    """Return which characters repeat the word before them, or stand between the two behind spaces."""
    found, done = [False] * len(title), 0
    for begin in range(len(title)):
        for length in range(2, len(title) - begin):
            word = title[begin : begin + length]
            if begin < done or not word.isalpha() or (begin and title[begin - 1].isalpha()):
                continue
            for gap in (1, 2, 3):
                joint, again = title[begin + length :][:gap], title[begin + length + gap :][:length]
                end = begin + length + gap + length
                plain = len(joint) == gap and not set(joint) - set(" /_.&+~-") and again.lower() == word.lower()
                ends = [end] if plain else []
                while ends and title[ends[-1] :][: gap + length].lower() == (joint + word).lower():
                    ends.append(ends[-1] + gap + length)
                end = max((at for at in ends if not title[at : at + 1].isalpha()), default=0)
                if end:
                    told = end - begin - length - len(joint) + len(joint.lstrip(" "))
                    found[end - told : end], done = [True] * told, end
        if begin >= done and (not begin or title[begin - 1] == " "):
            told = naive_token(title.lower()[begin:])
            if told:
                first, end = begin + told[0], begin + told[1]
                found[first:end], done = [True] * (end - first), end
    return found


@given(st.lists(st.text("abA -", max_size=14), max_size=5))
@example(["A A A", "a  b A-", "- a A b b"])
def test_new_rules_against_loops(titles):
    text = TitleCharacters.of(titles)
    for rule, naive in (("find_spelled", naive_spelled), ("find_repeated_words", naive_echoed)):
        wanted = [hit for title in titles for hit in naive(title)]
        assert getattr(_character_finders, rule)(text).tolist() == wanted, rule
    wanted = [title[at - 1 : at + 1] == "  " for title in titles for at in range(len(title))]
    assert _character_finders.find_repeated_spaces(text).tolist() == wanted


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.text(st.characters(codec=None) | st.sampled_from("ab  1!"), max_size=20), max_size=6))
def test_what_is_broken_is_what_the_rules_say_without_rarity(titles):
    found, every = broken(titles), CharacterRules().suspect(titles)
    assert (every.score >= found.score).all()
    for title, score, start in zip(titles, found.score, found.start, strict=True):
        text = TitleCharacters.of([title])
        told = [(weight, hits) for weight, hits in ((w, rule(text)) for w, rule in CHARACTER_RULES) if hits.any()]
        loudest = max((weight for weight, _ in told), default=-np.inf)
        assert score == loudest
        firsts = [int(hits.argmax()) for weight, hits in told if weight == loudest]
        assert start in (firsts or [-1])


def test_echoes_take_no_longer_in_long_words():
    start = time.process_time()
    assert (
        broken(["x" * 10_000, "ab " * 3_333, "ab-" * 3_333 + "x", ("x" * 3000 + "-") * 3]).score.tolist()[0] == -np.inf
    )
    assert time.process_time() - start < 2


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(st.text(st.characters(codec=None), max_size=20), max_size=6))
def test_any_titles(titles):
    found = CharacterRules().suspect(titles)
    for title, score, start, end in zip(titles, found.score, found.start, found.end, strict=True):
        assert (score == -np.inf) == (not title) == (start == end == -1)
        assert end <= len(title)


@pytest.mark.slow
def test_many_titles_take_seconds():
    titles = natural(20_000)
    titles[::3] = [f"\u202a{title} \u0435s\u200b caf\u0435e\u0336" for title in titles[::3]]
    start = time.process_time()
    CharacterRules().suspect(titles)
    assert time.process_time() - start < 4


def test_each_rule_says_which_titles_break_it():
    titles = ["the harbor", "RED", "Red Harbor", "77", "", "Red H\u200brb  x", "h4rbor Harbor harbor"]
    found = find_broken_rules(titles)
    names = [rule.__name__ for _, rule in (*CHARACTER_RULES, *CASE_RULES)]
    told = {name: np.flatnonzero(np.isfinite(one.score)).tolist() for name, (_, one) in zip(names, found, strict=True)}
    assert {name: rows for name, rows in told.items() if rows} == {
        **{"find_hidden": [5], "find_repeated_spaces": [5], "find_digits": [6], "find_repeated_words": [6]},
        **{"find_repeated_later": [6], "islower": [0], "is_all_lower": [0], "isupper": [1]},
    }
    for weight, one in found:
        assert set(one.score.tolist()) <= {weight, -np.inf}
    lower = found[len(CHARACTER_RULES)][1]
    assert (lower.start[0], lower.end[0], lower.start[1]) == (0, 10, -1)
    loudest = np.max([one.score for _, one in found[: len(CHARACTER_RULES)]], axis=0)
    assert loudest.tolist() == [*[-np.inf] * 5, 60, 10]
    assert all(len(one) == 0 for _, one in find_broken_rules([]))


def test_rare_characters_need_not_count():
    titles = [*(f"red harbor {nth}" for nth in range(20)), "red hœrbor", "red har\u200bbor"]
    every, ruled = CharacterRules().suspect(titles), CharacterRules(rarity=False).suspect(titles)
    assert every.score[20] > 0
    assert ruled.score[20] == -np.inf
    assert ruled.score[21] == every.score[21] == 60
