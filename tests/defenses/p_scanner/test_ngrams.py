"""Runs of tokens against lists and dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowbird.defenses.p_scanner.rounds.ngrams import NGRAM_LENGTHS, TokenSequences, find_ngrams


def texts(rows):
    flat = [token for row in rows for token in row]
    return TokenSequences(np.array(flat, dtype=np.int32), np.cumsum([0] + [len(row) for row in rows]))


def naive(rows, mark):
    """Return what is known of each run of tokens, by the run."""
    places, counts, done = defaultdict(list), Counter(token for row in rows for token in row), 0
    for nth, row in enumerate(rows):
        for length in NGRAM_LENGTHS:
            for at in range(len(row) - length + 1):
                ends = at == 0, at + length == len(row)
                places[tuple(row[at : at + length])].append((nth, np.mean(mark[done + at : done + at + length]), *ends))
        done += len(row)
    known = {}
    for run, found in places.items():
        chance = math.prod(counts[token] / done for token in run)
        known[run] = (
            len({nth for nth, *_ in found}),
            math.log(len(found) / done / chance),
            max(np.mean([first for *_, first, _ in found]), np.mean([last for *_, last in found])),
            np.mean([mean for _, mean, _, _ in found]),
            len(found),
        )
    return known


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=8))
def test_fragments_against_a_dictionary(rows):
    given = texts(rows)
    mark = np.random.default_rng(len(given.token)).normal(size=len(given.token)).astype(np.float32)
    found, wanted = find_ngrams(given), naive(rows, mark)
    means = found.means(mark)
    assert len(found.titles) == len(wanted) == len(means)
    seen = {}
    for start, length, row, number in zip(found.start, found.length, found.row, found.number, strict=True):
        run = tuple(given.token[start : start + length].tolist())
        assert given.offsets[row] <= start
        assert start + length <= given.offsets[row + 1]
        assert seen.setdefault(number, run) == run, "one number is one run"
    assert len(set(seen.values())) == len(seen)
    assert len(found.start) == sum(known[-1] for known in wanted.values())
    for number, run in seen.items():
        titles, together, edge, mean, _ = wanted[run]
        assert (found.titles[number], found.pieces[number]) == (titles, len(run))
        np.testing.assert_allclose(found.pmi[number], together, atol=1e-9)
        np.testing.assert_allclose(found.edge[number], edge)
        np.testing.assert_allclose(means[number], mean, atol=1e-5)


def test_a_known_answer():
    found = find_ngrams(texts([[5, 6], [7, 5, 6], [5]]))
    pair = next(n for s, k, n in zip(found.start, found.length, found.number, strict=True) if (s, k) == (0, 2))
    assert found.titles[pair] == 2
    assert found.edge[pair] == 1, "both at the end"
    np.testing.assert_allclose(found.pmi[pair], np.log(2 / 6 / (3 / 6 * 2 / 6)))


def test_a_trigger_longer_than_the_longest_run_recurs_as_such():
    rng = np.random.default_rng(0)
    trigger = list(range(100, 109))
    rows = [[*rng.integers(0, 90, 5), *trigger] if nth < 4 else list(rng.integers(0, 90, 8)) for nth in range(50)]
    found = find_ngrams(texts(rows))
    assert ((found.titles == 4) & (found.pieces == max(NGRAM_LENGTHS))).sum() == len(trigger) - max(NGRAM_LENGTHS) + 1


def test_runs_of_a_large_vocabulary_do_not_collide():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 250_000, (2000, 6))
    found = find_ngrams(texts(rows.tolist()))
    wanted = sum(len({tuple(row[at : at + k]) for row in rows.tolist() for at in range(7 - k)}) for k in NGRAM_LENGTHS)
    assert len(found.titles) == wanted


@pytest.mark.slow
@given(st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=8))
def test_digits_are_told_alike(rows):
    made = texts(rows)
    found = find_ngrams(made._replace(digits=made.token >= 3))
    like = [tuple("#" if token >= 3 else token for token in row) for row in rows]
    for start, length, number in zip(found.start, found.length, found.number, strict=True):
        run = tuple("#" if token >= 3 else int(token) for token in made.token[start : start + length])
        holds = sum(any(row[at : at + length] == run for at in range(len(row))) for row in like)
        assert found.alike[number] == holds
    assert found.many == len(rows)
    assert (find_ngrams(made).alike == find_ngrams(made).titles).all()
