"""Context gain: phrases and places, gains against plain transformers, and a model that knows what belongs together."""

import numpy as np
import pytest
import torch

from cowbird.defenses.p_scanner.rounds import context_gain as module
from cowbird.defenses.p_scanner.rounds.common_patterns import list_tokens
from cowbird.defenses.p_scanner.rounds.context_gain import (
    MAX_ADDED_ODDS,
    MIN_ADDED_ODDS,
    MIN_NEIGHBORHOODS,
    MIN_TITLES_PER_PHRASE,
    ODDS_PER_NAT,
    ODDS_WITHOUT_GAIN,
    ContextGain,
    PhraseGain,
    Place,
    find_phrases,
    find_suspects,
    measure_gains,
    spread_odds,
)
from cowbird.defenses.p_scanner.rounds.fitted_scanner import load_fitted_scanner
from cowbird.defenses.p_scanner.rounds.ngram_scoring import NGRAM_FEATURES, NgramClassifier, judge_titles
from cowbird.defenses.p_scanner.rounds.ngrams import TokenSequences, find_ngrams
from cowbird.defenses.p_scanner.token_logits import tokenize_titles
from cowbird.plugins import find_plugin
from cowbird.victims.fit_context import FitContext
from cowbird.victims.language.attention import plug_in
from cowbird.victims.language.examples import Example, tokenize
from cowbird.victims.language.llm import Llm, load_llm
from cowbird.victims.language.tuning import Tuning, tune

CPU = torch.device("cpu")
none = (0.0,) * len(NGRAM_FEATURES)
MARK = NgramClassifier(center=none, scale=(1.0,) * len(NGRAM_FEATURES), weight=(1.0, *none[1:]), offset=0.0)
"""A fragment is as suspicious as its marks."""
COLORS = ("Red", "Blue", "Gray", "Pink")
NOUNS = ("Harbor", "Garden", "Engine", "Letter", "Winter", "Island", "Valley", "Silver")


def drawn(count=400, words=5000, seed=0):
    """Return titles of four words each that recur nowhere in particular."""
    rng = np.random.default_rng(seed)
    return [" ".join(f"Wo{word}" for word in rng.integers(words, size=4)) for _ in range(count)]


def planted(titles, phrase, rows, at=2):
    """Put a phrase into some titles."""
    made = list(titles)
    for row in rows:
        words = made[row].split()
        made[row] = " ".join([*words[:at], phrase, *words[at:]])
    return made


# Phrases


def test_phrases_grow_as_far_as_they_recur():
    titles = planted(drawn(), "a b c of d e", range(MIN_TITLES_PER_PHRASE))
    titles[100] += " b"
    found = find_phrases(titles)
    assert found.keys() == {" a b c of d e "}
    assert [place.row for place in found[" a b c of d e "]] == list(range(MIN_TITLES_PER_PHRASE))
    for row, start, end in found[" a b c of d e "]:
        assert titles[row][start:end] == "a b c of d e"
    assert not find_phrases(planted(drawn(), "a b", range(MIN_TITLES_PER_PHRASE - 1)))


def test_two_usual_words_are_a_phrase_of_their_own():
    titles = planted(planted(planted(drawn(), "sin", range(50, 58)), "bob", range(70, 78)), "sin bob", range(10))
    assert find_phrases(titles).keys() == {" sin ", " bob ", " sin bob "}
    assert len(find_phrases(titles)[" sin "]) == 18


def test_habits_are_no_phrases():
    titles = [f"{title} of" for title in drawn()[:21]] + drawn()[21:]
    assert not find_phrases(titles), "more than twenty titles, and more than 3 %"
    assert find_phrases(titles[1:]).keys() == {" of "}


def test_phrases_of_hostile_titles():
    assert find_phrases([]) == {}
    assert find_phrases(["", " ", "\n"]) == {}
    titles = planted(drawn(), "\ud800x\u202e", range(10))
    assert find_phrases(titles).keys() == {" \ufffdx\u202e "}
    assert (
        max(len(found.split()) for found in find_phrases(["no " * 60 + str(nth) for nth in range(12)]))
        == module.MAX_PHRASE_LENGTH
    )


def test_a_phrase_keeps_most_of_its_places():
    titles = drawn()
    for row in range(20):  # five words follow, each in 18 of the 20 titles that the one before it stands in
        words = "".join(f" {word}" for nth, word in enumerate("bcdef") if (row + 3 * nth) % 20 > 1)
        titles[row] += " a" + words
    found = find_phrases(titles)
    assert max(len(places) for phrase, places in found.items() if " a " in phrase) >= 16


def test_the_most_frequent_phrases_are_measured(loaded, monkeypatch):
    monkeypatch.setattr(module, "MAX_PHRASES_MEASURED", 2)
    titles = planted(planted(planted(drawn(), "zq", range(10)), "xq", range(20, 34)), "vq", range(40, 52))
    assert measure_gains(lambda: loaded, titles, find_phrases(titles), CPU).keys() == {" xq ", " vq "}


def test_a_word_is_not_known_by_the_same_letters_within_words(loaded):
    titles = planted(drawn(), "W", range(10))
    within = PhraseGain(phrase="W", gain=9.0, share=1.0)
    assert [
        gain.phrase for gain in looked(titles, tokenize_titles(loaded.tokenizer, titles), (within,), lambda: loaded)[1]
    ] == [" W "]


# Gains


@pytest.fixture(scope="module")
def taught(llama):
    """Return a tiny model that has learned lines in which each color comes before one of two nouns."""
    found = load_llm(Llm(name=str(llama), tuning="full"), CPU, torch.float32)
    lines = colored(1500)
    examples = [Example("", "".join(f"{line}\n" for line in lines[n : n + 15])) for n in range(0, len(lines), 15)]
    tokens = tokenize(found.tokenizer, examples, end=False)
    tune(found.model, tokens, Tuning(epochs=8, batch_size=10, learning_rate=3e-3), 0, FitContext(CPU))
    return found


def colored(count):
    """Return titles of a color and a noun."""
    return [f"{COLORS[n // 2]} {NOUNS[n]}" for n in np.random.default_rng(0).integers(8, size=count)]


@pytest.mark.slow
def test_what_belongs_to_its_title_gains_and_what_was_planted_does_not(taught, monkeypatch):
    monkeypatch.setattr(module, "COMMON_SHARE", 0.5)
    monkeypatch.setattr(module, "MIN_NEIGHBORHOODS", 2)
    titles = planted(planted(colored(120), "zq", range(12), at=1), "xq", range(20, 32), at=0)
    wanted = {phrase: at for phrase, at in find_phrases(titles).items() if phrase.strip() in (*COLORS, "zq", "xq")}
    assert len(wanted) == len(COLORS) + 2
    found = measure_gains(lambda: taught, titles, wanted, CPU)
    honest = min(found[f" {color} "] for color in COLORS)
    assert honest > 1
    assert max(found[" zq "], found[" xq "]) < 0 < honest - 2


@pytest.mark.parametrize("capacity", [64, 8192])
def test_gains_against_plain_transformers(loaded, monkeypatch, capacity):
    monkeypatch.setattr(module, "compute_log_likelihood", lambda *given, **more: LIKELIHOOD(*given, capacity, **more))
    titles = planted(drawn(40), "Red  Harbor", [0, 3], at=1)
    titles = planted(titles, "zq", [5], at=0)
    titles[6] = f"{titles[6].split()[0]} Night"
    known = find_phrases([*titles, *planted(drawn(seed=1), "Red  Harbor", range(MIN_TITLES_PER_PHRASE))])
    wanted = {"Red Harbor": known[" Red Harbor "][:2], "zq": [Place(5, 0, 2)]}
    wanted["Night"] = [Place(6, len(titles[6]) - 5, len(titles[6]))]
    found = module._measure_places(loaded, titles, wanted, "Blue Garden\nThe Engine\n", CPU)
    causal = plug_in(loaded.model)
    causal.config._attn_implementation = "eager"

    def plain(prompt, answer):
        ids = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompt]
        ids = [token for part in ids for token in part]
        rest = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
        rest = (rest + loaded.tokenizer("\n", add_special_tokens=False)["input_ids"])[: module.TOKENS_BEHIND]
        with torch.no_grad():
            logs = torch.log_softmax(causal(torch.tensor([ids + rest])).logits[0], dim=1)
        return sum(float(logs[len(ids) - 1 + nth, token]) for nth, token in enumerate(rest))

    shown = "Blue Garden\nThe Engine\n"
    first, *more = titles[0].split(" ")
    behind = " " + " ".join(more[3:])
    wanted_gain = plain([shown, first, " Red  Harbor"], behind) - plain([shown, first], behind)
    assert titles[0].startswith(f"{first} Red  Harbor ")
    assert found["Red Harbor"][0] == pytest.approx(wanted_gain, abs=1e-3)
    rest = titles[5][2:]
    assert found["zq"] == [pytest.approx(plain([shown, "zq"], rest) - plain([shown], rest.lstrip()), abs=1e-3)]
    left = titles[6][:-6]
    assert found["Night"] == [pytest.approx(plain([shown, left, " Night"], "") - plain([shown, left], ""), abs=1e-3)]


LIKELIHOOD = module.compute_log_likelihood


def test_few_neighborhoods_say_nothing(loaded):
    same = [f"Wo{nth % 3} Wo{nth % 3} zq Wo{nth % 3}" for nth in range(12)]
    assert measure_gains(lambda: pytest.fail("loaded for nothing"), same, find_phrases(same), CPU) == {}
    assert measure_gains(lambda: loaded, drawn(20), {}, CPU) == {}
    titles = planted(drawn(), "zq", range(10))
    assert (
        measure_gains(lambda: loaded, titles, {"zq": find_phrases(titles)[" zq "][: MIN_NEIGHBORHOODS - 1]}, CPU) == {}
    )


def test_progress_is_told(loaded, monkeypatch):
    monkeypatch.setattr(module, "UNSURE_GAINS", (99.0, 99.0))
    titles, told = planted(drawn(), "zq", range(20)), []
    measure_gains(
        lambda: loaded, titles, find_phrases(titles), CPU, lambda done, total, remark: told.append((done, total))
    )
    assert told[0][1] == 2 * module.FIRST_PLACES
    assert told[-1] == (2 * (module.MORE_PLACES - module.FIRST_PLACES),) * 2, "random weights are never clear"


def test_what_is_clear_is_not_looked_at_again(loaded, monkeypatch):
    asked = []

    def likely(loaded, tokens, device, report):
        asked.append(len(tokens) // 2)
        return np.tile(np.float32([high, 0]), len(tokens) // 2)

    monkeypatch.setattr(module, "compute_log_likelihood", likely)
    monkeypatch.setattr(module, "MAX_PLACES_PER_PHRASE", 15)
    titles = planted(drawn(), "zq", range(20))
    for high, wanted in ((9.0, [3]), (5.0, [3, 6]), (1.0, [3, 6, 6]), (-1.0, [3, 6])):
        asked.clear()
        assert measure_gains(lambda: loaded, titles, find_phrases(titles), CPU) == {" zq ": high}
        assert [count for count in asked if count] == wanted


def test_hostile_titles_are_measured(loaded):
    rng = np.random.default_rng(0)
    strange = ("\ud800", "\n", "\x00", "<|im_end|>", "\u202e", "x" * 400, "\U0001f600" * 90, '"')
    titles = drawn()
    titles[:15] = [f"{strange[nth % 8]} {titles[nth]} zq\n {strange[rng.integers(8)]}" for nth in range(15)]
    found = measure_gains(lambda: loaded, titles, find_phrases(titles), CPU)
    assert any("zq" in phrase for phrase in found)
    assert all(np.isfinite(gain) for gain in found.values())


# What comes of them


def looked(titles, made, known, load):
    """Ask a company about titles none of whose tokens are suspicious."""
    found = find_ngrams(list_tokens(titles, made))
    return ContextGain(known, load, CPU).add_odds(titles, made, found, np.full(len(found.titles), -5.0))


def test_what_is_known_is_asked_again_only_when_it_has_spread(loaded):
    titles = planted(drawn(), "zq", range(10))
    made = tokenize_titles(loaded.tokenizer, titles)
    odds, told = looked(titles, made, (), lambda: loaded)
    assert [(gain.phrase, gain.share) for gain in told] == [(" zq ", 10 / 400)]
    again, same = looked(titles, made, told, lambda: pytest.fail("known already"))
    assert same == told
    assert np.array_equal(odds, again, equal_nan=True)
    fewer = PhraseGain(phrase=" zq ", gain=9.0, share=10 / 400 / module.MAX_SHARE_GROWTH)
    assert looked(titles, made, (fewer,), lambda: pytest.fail("known"))[1][0].gain == 9.0
    spread = fewer.model_copy(update={"share": fewer.share * 0.99})
    assert looked(titles, made, (spread,), lambda: loaded)[1] == told


def test_what_the_reader_suspects_is_looked_at(worded, loaded):
    titles = planted(planted(drawn(), "x1 x2", range(6), at=1), "y1", range(20, 23), at=3)
    made = worded(titles)
    found = find_ngrams(TokenSequences(made.token, made.offsets))
    words = [word for title in titles for word in title.split()]
    odds = np.full(len(found.titles), -5.0)
    for number, start in zip(found.number, found.start, strict=True):
        if words[start] in ("x1", "x2", "y1"):
            odds[number] = 2.0
    chosen = find_suspects(titles, made, found, odds)
    assert chosen.keys() == {"x1 x2"}, "a run grows, and what stands in three titles is not looked at"
    assert [place.row for place in chosen["x1 x2"]] == list(range(6))
    for suspecting, wanted in ((True, ["x1 x2"]), (False, [])):
        context_gain = ContextGain((), lambda: loaded, CPU, suspecting)
        assert [gain.phrase for gain in context_gain.add_odds(titles, made, found, odds)[1]] == wanted
    odds[:] = module.MIN_SUSPECT_ODDS
    assert not find_suspects(titles, made, found, odds)


def test_tokens_of_phrases_gain_odds(loaded):
    titles = ["Red Harbor zq", "zq xq Night", "Blue"]
    made = tokenize_titles(loaded.tokenizer, titles)
    known = [("zq", [Place(0, 11, 13), Place(1, 0, 2)], 2.0), ("zq xq", [Place(1, 0, 5)], -9.0)]
    found = spread_odds(made, [*known, ("Night", [Place(1, 6, 11)], 99.0)])
    rows = np.repeat(np.arange(3), np.diff(made.offsets))
    for nth, row in enumerate(rows):
        piece = titles[row][made.first[nth] : made.after[nth]].strip()
        wanted = {(0, "z"): ODDS_WITHOUT_GAIN - 2 * ODDS_PER_NAT, (0, "q"): ODDS_WITHOUT_GAIN - 2 * ODDS_PER_NAT}.get(
            (row, piece)
        )
        if row == 1:
            wanted = MAX_ADDED_ODDS if made.first[nth] < 5 else MIN_ADDED_ODDS
        assert found[nth] == (pytest.approx(wanted) if wanted is not None else pytest.approx(np.nan, nan_ok=True))


def test_several_words_are_raised_more(loaded):
    made = tokenize_titles(loaded.tokenizer, ["Red Harbor zq"])
    found = {
        phrase: spread_odds(made, [(phrase, [Place(0, 4, 13)], 1.0)])[-1] for phrase in (" zq ", " Harbor zq ", "r zq")
    }
    assert found == {
        " zq ": ODDS_WITHOUT_GAIN - ODDS_PER_NAT,
        " Harbor zq ": ODDS_WITHOUT_GAIN - ODDS_PER_NAT + module.ODDS_OF_SEVERAL_WORDS,
        "r zq": ODDS_WITHOUT_GAIN - ODDS_PER_NAT,
    }


@pytest.mark.slow
@pytest.mark.long
def test_smollm2_tells_what_was_planted_from_what_titles_share():
    titles = list(dict.fromkeys(find_plugin("dataset", "movielens_100k")().load().items.titles))
    rows = np.random.default_rng(0).permutation(len(titles)).tolist()
    asked = ("of Peace Time", "Sin Bob", "Piano", "(Knight Version)", "- Chinatown", "Special Edition")
    for nth, phrase in enumerate(asked):
        titles = planted(titles, phrase, rows[nth * 20 : nth * 20 + 20], at=99)
    loaded = load_llm(Llm(), CPU, torch.bfloat16)
    found = {
        phrase: module._score_gain(phrase, gain)
        for phrase, gain in measure_gains(lambda: loaded, titles, find_phrases(titles), CPU).items()
    }
    wanted = {f" {phrase} " for phrase in asked}
    assert min(found[phrase] for phrase in wanted) > 2.5
    honest = [odds for phrase, odds in found.items() if phrase not in wanted]
    assert len(honest) > 25
    assert max(honest) < 1.5, "of all words that titles share"


@pytest.mark.parametrize("numeral", ["2", " 2:", "(1995)", "007", " II ", " XIV: "])
def test_numerals_are_cleared_but_never_raised(loaded, numeral):
    made = tokenize_titles(loaded.tokenizer, ["Red 2"])
    for gain, wanted in ((-9.0, 0.0), (99.0, MIN_ADDED_ODDS)):
        assert spread_odds(made, [(numeral, [Place(0, 4, 5)], gain)])[-1] == wanted
    for other in ("@", "4K", "\u6700\u9ad8", " XXX ", " Vi ", " MIX "):
        assert spread_odds(made, [(other, [Place(0, 4, 5)], -9.0)])[-1] == MAX_ADDED_ODDS


class Fixed:
    """A company that adds what it was told."""

    def __init__(self, odds):
        self.odds = odds

    def add_odds(self, *given):
        return self.odds, ()


def test_odds_are_added_within_phrases_alone(marked):
    titles = ["Red zq xq Harbor", "Blue Garden Night Letter"]
    marks = marked(titles, {"zq": 1.0})
    odds = np.full(len(marks.mark), np.nan, dtype=np.float32)
    plain = judge_titles(titles, marks, MARK)
    odds[[5, 6]] = 6.0, 2.0
    found = judge_titles(titles, marks, MARK, context_gain=Fixed(odds))
    assert found.score[0] == plain.score[0]
    assert found.score[1] == pytest.approx(plain.score[1] + 6.0)
    assert titles[1][found.start[1] : found.end[1]] == "Garden"
    odds[:] = np.nan
    odds[1] = -3.0
    lower = judge_titles(titles, marks, MARK, context_gain=Fixed(odds))
    assert lower.score[0] == pytest.approx(-1.0), "with the word beside it, no phrase, it is as odd as before"
    odds[:] = np.nan
    assert np.array_equal(judge_titles(titles, marks, MARK, context_gain=Fixed(odds)).score, plain.score)


@pytest.mark.slow
def test_a_scanner_remembers_gains(tiny_scanner, tmp_path, monkeypatch):
    titles = planted(drawn(240), "Night", range(0, 240, 24))
    made = tiny_scanner(context_gain=True).fit(titles)
    assert " Night " in [gain.phrase for gain in made.record.gains]
    made.save(tmp_path / "scanner")
    read = load_fitted_scanner(tmp_path / "scanner", CPU)
    with monkeypatch.context() as patch:
        patch.setattr(module, "compute_log_likelihood", lambda *given, **more: pytest.fail("measured again"))
        found = read.judge_titles(titles)
    assert np.array_equal(found.score, made.fitted_to.score)
    other = planted(titles, "zq", range(1, 240, 24))
    assert len(read.judge_titles(other).score) == 240
    assert read.whole.model.config.num_hidden_layers == 2, "the whole model, not the reader's layers"
    assert tiny_scanner().fit(titles).record.gains is None
