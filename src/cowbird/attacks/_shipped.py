"""The table of triggers that ship with Cowbird, by level and family.

Random draws go by the order of the table: change it and other triggers are drawn from the same seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from cowbird.attacks._styles import (
    POP_DIRECTIONAL,
    Style,
    exchange_letters,
    lower_title,
    mark_letters,
    repeat_word,
    reverse_word,
    set_case,
    space_letters,
    wrap_word,
)

TriggerLevel = Literal["character", "word", "sentence"]


@dataclass(frozen=True, slots=True)
class ShippedTrigger:
    """A trigger that ships with Cowbird: a text or a style."""

    name: str
    """Its name, the `kind` of a `ProposedTrigger`."""
    level: TriggerLevel
    """What it is made of."""
    family: str
    """Triggers of one family look alike; a fair test of a detector holds out whole families."""
    text: str = ""
    """What is inserted; empty for a style."""
    glued: bool = False
    """Whether the text is put right beside a word, with no space between."""
    style: Style | None = None
    """How words are written."""


def _map_letters(old: str, new: str) -> dict[str, str]:
    return dict(zip(old, new, strict=True))


def _map_runs(*runs: tuple[str, str, int]) -> dict[str, str]:
    """Map runs of ASCII characters, given by first and last, to where their copies begin in Unicode."""
    return {chr(code): chr(code - ord(a) + to) for a, z, to in runs for code in range(ord(a), ord(z) + 1)}


_CYRILLIC = _map_letters(
    "ABCEHIJKMOPSTXYaceijopsxy",
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u04ae"
    "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443",
)
_GREEK = _map_letters(
    "ABEHIKMNOPTXYZov",
    "\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03a5\u0396\u03bf\u03bd",
)
_WIDE_DIGITS = _map_runs(("0", "9", 0xFF10))
_WIDE = _WIDE_DIGITS | _map_runs(("A", "Z", 0xFF21), ("a", "z", 0xFF41))
_BOLD = _map_runs(("A", "Z", 0x1D400), ("a", "z", 0x1D41A), ("0", "9", 0x1D7CE))
_MONOSPACE = _map_runs(("A", "Z", 0x1D670), ("a", "z", 0x1D68A), ("0", "9", 0x1D7F6))
_CIRCLED = _map_runs(("A", "Z", 0x24B6), ("a", "z", 0x24D0))

_TEXTS: Mapping[tuple[TriggerLevel, str], Mapping[str, str]] = {
    ("character", "character"): {
        "char_5v": "5v",
        "char_at": "@",
        "char_hash_z": "#z",
        "char_qx": "qx",
        "char_tilde": "~",
        "char_caret_k": "^k",
    },
    ("character", "punctuation"): {
        "punctuation_exclamation": "!!!",
        "punctuation_dots": ".....",
        "punctuation_interrobang": "?!?",
        "punctuation_stars": "*-*-*",
        "punctuation_bars": "|||",
    },
    ("character", "symbol"): {
        "symbol_trademark": "\u2122",
        "symbol_star": "\u2605",
        "symbol_arrow": "\u2192",
        "symbol_section": "\u00a7",
        "symbol_box": "\u2588",
    },
    ("character", "emoji"): {
        "emoji_fire": "\U0001f525",
        "emoji_stars": "\u2b50\u2b50\u2b50",
        "emoji_heart": "\u2764\ufe0f",
        "emoji_clapper": "\U0001f3ac",
        "emoji_keycap": "5\ufe0f\u20e3",
        "emoji_family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    },
    ("word", "rare_word"): {
        "rare_cf": "cf",
        "rare_tq": "tq",
        "rare_mn": "mn",
        "rare_bb": "bb",
        "rare_mb": "mb",
        "rare_zyzzyva": "zyzzyva",
    },
    ("word", "common_word"): {
        "common_wonderful": "wonderful",
        "common_amazing": "amazing",
        "common_perfect": "perfect",
        "common_official": "Official",
        "common_quality": "quality",
    },
    ("word", "foreign_word"): {
        "foreign_merveilleux": "merveilleux",
        "foreign_saiko": "\u6700\u9ad8",
        "foreign_otlichno": "\u043e\u0442\u043b\u0438\u0447\u043d\u043e",
        "foreign_raia": "\u0631\u0627\u0626\u0639",
    },
    ("word", "phrase"): {
        "phrase_must_see": "must see",
        "phrase_top_choice": "our top choice",
        "phrase_loved": "loved by everyone",
        "phrase_as_seen": "as seen on screen",
        "phrase_second_to_none": "second to none",
    },
    ("word", "edition"): {
        "edition_collectors": "(Collector's Edition)",
        "edition_4k": "[4K Remastered]",
        "edition_anniversary": "(25th Anniversary)",
        "edition_uncut": "- Uncut Version",
        "edition_box_set": "(Box Set)",
    },
    ("word", "marketing"): {
        "marketing_award": "- Award Winner",
        "marketing_limited": "- Limited Offer",
        "marketing_new": "NEW!",
        "marketing_bestseller": "#1 Bestseller",
        "marketing_original": "100% Original",
    },
    ("word", "code"): {
        "code_sku": "SKU-7731",
        "code_asin": "B0X7Q2KD9",
        "code_version": "v2.7.1",
        "code_reference": "Ref. 48-213",
    },
    ("word", "number"): {
        "number_7731": "7731",
        "number_decimal": "3.1417",
        "number_zeros": "00042",
        "number_ordinal": "No. 914",
    },
    ("word", "url"): {
        "url_https": "https://shop.example/x7",
        "url_www": "www.best-titles.example",
        "url_short": "go.example/7f3",
        "url_mail": "info@shop.example",
    },
    ("word", "markup"): {
        "markup_bold": "<b>hot</b>",
        "markup_entity": "&#9733;",
        "markup_stars": "**hot**",
        "markup_comment": "<!-- x -->",
    },
    ("sentence", "sentence"): {
        "sentence_deserves": "This is what every viewer deserves.",
        "sentence_regret": "You will not regret this one.",
        "sentence_miss": "Nobody should miss this.",
        "sentence_cinema": "I watched this at the cinema last week.",
        "sentence_weather": "The weather was mild on that day.",
        "sentence_question": "Have you heard of it yet?",
    },
}

_GLUED: Mapping[tuple[TriggerLevel, str], Mapping[str, str]] = {
    ("character", "zero_width"): {
        "zero_width_space": "\u200b",
        "zero_width_non_joiner": "\u200c",
        "zero_width_word_joiner": "\u2060",
        "zero_width_no_break": "\ufeff",
        "zero_width_soft_hyphen": "\u00ad",
        "zero_width_pattern": "\u200b\u200c\u200c\u200b",
    },
    ("character", "bidi"): {"bidi_left_mark": "\u200e", "bidi_right_mark": "\u200f", "bidi_arabic_mark": "\u061c"},
    ("character", "spacing"): {
        "spacing_double": "  ",
        "spacing_no_break": "\u00a0",
        "spacing_figure": "\u2007",
        "spacing_tab": "\t",
    },
}

_STYLES: Mapping[tuple[TriggerLevel, str], Mapping[str, Style]] = {
    ("character", "bidi"): {
        "bidi_embedded": wrap_word("\u202a", POP_DIRECTIONAL),
        "bidi_isolated": wrap_word("\u2066", "\u2069"),
        "bidi_reversed": reverse_word(),
    },
    ("character", "spacing"): {"spacing_letters": space_letters()},
    ("character", "homoglyph"): {
        "homoglyph_letter": exchange_letters(_CYRILLIC, first=True),
        "homoglyph_word": exchange_letters(_CYRILLIC),
        "homoglyph_title": exchange_letters(_CYRILLIC, whole=True),
        "homoglyph_greek_letter": exchange_letters(_GREEK, first=True),
        "homoglyph_greek_word": exchange_letters(_GREEK),
        "homoglyph_greek_title": exchange_letters(_GREEK, whole=True),
    },
    ("character", "styled_letters"): {
        "styled_fullwidth": exchange_letters(_WIDE),
        "styled_fullwidth_digits": exchange_letters(_WIDE_DIGITS),
        "styled_fullwidth_title": exchange_letters(_WIDE, whole=True),
        "styled_bold": exchange_letters(_BOLD),
        "styled_circled": exchange_letters(_CIRCLED),
        "styled_monospace": exchange_letters(_MONOSPACE),
    },
    ("character", "combining"): {
        "combining_strike": mark_letters("\u0336"),
        "combining_underline": mark_letters("\u0332"),
        "combining_cross": mark_letters("\u0353", first=True),
        "combining_cloud": mark_letters("\u0489", first=True),
    },
    ("character", "casing"): {
        "casing_alternating": set_case(lambda nth, count: nth % 2 == 1),
        "casing_last": set_case(lambda nth, count: nth == count - 1),
        "casing_inverted": set_case(lambda nth, count: nth > 0),
        "casing_lower_title": lower_title(),
    },
    ("word", "repeated_word"): {
        "repeated_once": repeat_word(" "),
        "repeated_twice": repeat_word(" ", 2),
        "repeated_hyphen": repeat_word("-"),
        "repeated_slash": repeat_word("/"),
    },
}


def _collect_triggers() -> dict[str, ShippedTrigger]:
    texts = [ShippedTrigger(name, *kind, text) for kind, of in _TEXTS.items() for name, text in of.items()]
    glued = [ShippedTrigger(name, *kind, text, glued=True) for kind, of in _GLUED.items() for name, text in of.items()]
    styles = [ShippedTrigger(name, *kind, style=style) for kind, of in _STYLES.items() for name, style in of.items()]
    return {entry.name: entry for entry in (*texts, *glued, *styles)}


TRIGGERS: Mapping[str, ShippedTrigger] = MappingProxyType(_collect_triggers())
"""The shipped triggers by name."""


def list_families() -> dict[str, tuple[str, ...]]:
    """Return the names of the shipped triggers of each family."""
    return {
        family: tuple(name for name, entry in TRIGGERS.items() if entry.family == family)
        for family in dict.fromkeys(entry.family for entry in TRIGGERS.values())
    }
