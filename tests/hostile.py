"""Hostile text for tests: what can't be seen or steers a terminal, written down apart from the code that hides it."""

import re
import unicodedata

DEFAULT_IGNORABLE_RANGES = (
    *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
    *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
"""Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, the same in versions 12 to 17)."""
DEFAULT_IGNORABLE = [chr(code) for low, high in DEFAULT_IGNORABLE_RANGES for code in range(low, high + 1)]
BIDI_CONTROLS = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
BLANK_LETTERS = list("\u115f\u1160\u2800\u3164\uffa0\ufffc")
NO_CHARACTERS = list("\ud800\udbff\udc00\udfff\ue000\uf8ff\ufdd0\uffff\U000e0041\U0010fffd\U000f0000")
SPACES = list("\u00a0\u1680\u2000\u2003\u2007\u2009\u200a\u2028\u2029\u202f\u205f\u3000")
SEQUENCES = {
    "color": "\x1b[31mred\x1b[0m",
    "clear screen": "\x1b[2J\x1b[H",
    "cursor up": "\x1b[1A\x1b[2K",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "C1 color": "\x9b31mred",
    "C1 title": "\x9d0;owned\x9c",
    "device status": "\x1b[6n",
    "backspaces": "safe\b\b\b\bevil",
    "carriage return": "safe\revil",
}
"""ANSI and OSC sequences, and the like."""
UNSEEN = sorted({*DEFAULT_IGNORABLE, *BIDI_CONTROLS, *CONTROLS, *BLANK_LETTERS, *NO_CHARACTERS, *SPACES})
"""All of the above, one character each."""
PAYLOAD = "A\u3164B\u202eC\u2066D\u200bE\ufe0fF\u034fG\U000e0041H\u2800I\x9bJ\x1b]0;owned\x07K\x1b[31mL[red]M"
"""A bit of everything, for places that hold any text; `VISIBLE_PAYLOAD` is how it is shown."""
VISIBLE_PAYLOAD = (
    "A<U+3164>B<U+202E>C<U+2066>D<U+200B>E<U+FE0F>F<U+034F>G<U+E0041>H<U+2800>I<U+009B>J<U+001B>]0;owned<U+0007>K"
    "<U+001B>[31mL[red]M"
)
FILE_PAYLOAD = PAYLOAD + "\udcff"
"""The same for the name of a file that is read, with a byte that is no UTF-8."""
_OWN_STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_UNSEEN_SET = frozenset(UNSEEN)


def find_raw(text, own_styles=False):
    """Return what of a program's output can't be seen; line breaks may be there.

    Args:
        text: The output.
        own_styles: Whether the program writes to a terminal and may color and move on its own.
    """
    plain = _OWN_STYLES.sub("", text) if own_styles else text
    return sorted(
        {
            f"U+{ord(letter):04X}"
            for letter in plain
            if letter != "\n" and (letter in _UNSEEN_SET or unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs"))
        }
    )
