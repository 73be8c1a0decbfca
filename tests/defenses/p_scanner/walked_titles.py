"""What titles and their fragments say, found by a walk through every title: the plain way that arrays must equal."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np

from cowbird.defenses.p_scanner import title_rules
from cowbird.defenses.p_scanner.fragment_index import HEAD_WORDS, MAX_PHRASE_WORDS, TAIL_WORDS
from cowbird.defenses.p_scanner.title_rules import RULES, classify_text, count_word, write_shape
from cowbird.defenses.p_scanner.title_traits import NO_MARK


def walk_rules(title):
    """Return the rules that a title meets."""
    words = title.split()
    found = {name for character in set(title) for name in title_rules._judge_character(character)}
    found.update(name for word in words for name in title_rules._judge_word.__wrapped__(word))
    if "  " in title or title != title.strip():
        found.add("odd space")
    if title_rules._ADDRESS.search(title):
        found.add("address")
    if title_rules._MARKUP.search(title):
        found.add("markup")
    plain = [word.lower().strip(".,-+!") for word in words]
    if any(first == second for first, second in pairwise(plain)):
        found.add("word repeated")
    long = [word for word in words if word.isalpha() and len(word) > 2]
    if any(map(str.isupper, long)) and not all(map(str.isupper, long)):
        found.add("word in capitals")
    if any(map(str.islower, long)) and not all(map(str.islower, long)):
        found.add("word in small letters")
    if words and not words[-1][-1].isalnum():
        found.add("mark at the end")
    if words and not words[0][0].isalnum():
        found.add("mark at the start")
    return [name in found for name in RULES]


def walk_shape(word):
    """Return a word's shape, character by character."""
    made = []
    for character in word[: title_rules.MAX_SHAPE_LENGTH]:
        mark = title_rules._shape_character(character)
        if not made or made[-1] != mark:
            made.append(mark)
    return "".join(made)


def walk_fragments(title):
    """Yield the fragments of a title: what each is, its type, and its first and last word."""
    text = re.findall(r"\S+", title)
    many = len(text)
    counted = [
        nth for nth in range(many) if many <= HEAD_WORDS + TAIL_WORDS or nth < HEAD_WORDS or nth >= many - TAIL_WORDS
    ]
    for nth in counted:
        for size in range(1, min(MAX_PHRASE_WORDS, many - nth) + 1):
            yield ("word", " ".join(text[nth : nth + size])), size - 1, nth, nth + size - 1
        yield ("shape", f"{'^' if nth == 0 else '$' if nth == many - 1 else '.'} {walk_shape(text[nth])}"), 4, nth, nth
        for character in sorted(set(text[nth])):
            if not (character.isascii() and character.isalnum()):
                yield ("character", character), 5, nth, nth
        if nth and text[nth].lower() == text[nth - 1].lower():
            yield ("repeated", ""), 7, nth, nth
    if many:
        end = text[-1][-1]
        yield ("end", "" if end.isalnum() else end), 6, many - 1, many - 1


def walk_occurrences(title, marks):
    """Return each fragment of a title once: what it is, type, mark, place, and the words beside it."""
    text = re.findall(r"\S+", title)
    many, found = len(text), {}
    for key, kind, first, last in walk_fragments(title):
        if key not in found:
            beside = (first - 1, last + 1) if key[0] == "word" else (first, last)
            place = 0 if first == 0 else 2 if last == many - 1 else 1
            near = [text[nth] if 0 <= nth < many else None for nth in beside]
            found[key] = (key, kind, max(marks[first : last + 1]), place, *near)
    return list(found.values())


def walk_traits(title, marks):
    """Return highest mark, most suspicious span and its kind."""
    words = list(re.finditer(r"\S+", title))
    if not words:
        return NO_MARK, 0, 0, 0
    low = high = int(np.argmax(marks))
    while low > 0 and marks[low - 1] > 0:
        low -= 1
    while high + 1 < len(marks) and marks[high + 1] > 0:
        high += 1
    start, end = words[low].start(), words[high].end()
    return max(marks), start, end, classify_text(title[start:end])


def walk_counts(titles):
    """Return in how many titles characters, words and shapes stand."""
    characters, known, shapes = Counter(), Counter(), Counter()
    for title in titles:
        text = title.split()
        characters.update(set(title))
        known.update({count_word(word) for word in text})
        shapes.update({*list_shapes(text), walk_capitals(text)})
    return characters, known, shapes


def walk_capitals(text):
    """Return how a title's words are written, all of them and the first."""

    def judge(word):
        if len(word) < 3 or not word.isalpha() or word.lower() == word.upper():
            return 0
        ways = {1: word.islower(), 2: word.isupper(), 4: word[0].isupper() and word[1:].islower()}
        return next((way for way, met in ways.items() if met), 8)

    bits = 0
    for word in text:
        bits |= judge(word)
    return f"@ {bits} {judge(text[0]) if text else 0}"


def list_shapes(text):
    """Return the shapes of a title's words, and the same with their place."""
    shapes = [walk_shape(word) for word in text]
    last = len(shapes) - 1
    placed = [("^" if nth == 0 else "$" if nth == last else ".") + " " + shape for nth, shape in enumerate(shapes)]
    return [*shapes, *placed]


def walk_rarity(title, start, end, profile, less):
    """Return how rare what a title is written with is in a catalogue."""
    text, span = title.split(), title[start:end]
    shapes, inside = list_shapes(text), span.split()
    unknown = sum(profile.words[count_word(word)] <= less for word in text)

    def rarest(counts, keys):
        if not keys:
            return 0.0
        count = min(counts[key] for key in keys)
        return float(-np.log((max(count - less, 0) + 0.5) / (profile.size + 1)))

    return [
        rarest(profile.characters, set(title)),
        rarest(profile.characters, set(span)),
        rarest(profile.shapes, shapes[: len(text)]),
        rarest(profile.shapes, shapes[len(text) :]),
        rarest(profile.shapes, [write_shape(word) for word in inside]),
        rarest(profile.words, [count_word(word) for word in inside]),
        unknown / max(1, len(text)),
        float(np.log1p(len(text))),
        float(np.log1p(len(span))),
    ]
