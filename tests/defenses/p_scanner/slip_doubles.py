"""A language model that knows plain words, in place of one that is read: what tests of slips share."""

from ready_doubles import NOUNS, ReadyDouble

from cowbird.defenses.p_scanner import title_slips
from cowbird.defenses.p_scanner.ready import ReadyScanner
from cowbird.defenses.p_scanner.spelling import list_plain_words
from cowbird.defenses.p_scanner.title_slips import SlipReader


class LineDouble:
    """Finds a text the less likely, the more words it has that are not plain, or no nouns of ours."""

    def __init__(self, monkeypatch):
        self.asked, self.loaded = [], 0
        monkeypatch.setattr(title_slips, "measure_lines", self.measure)
        monkeypatch.setattr(title_slips, "read_shown_titles", lambda loaded, device: self)

    def load(self):
        self.loaded += 1

    def measure(self, shown, texts):
        self.asked.append(list(texts))
        words = [[word.lower() for word in text.split()] for text in texts]
        odd = [sum(word not in list_plain_words() for word in each) for each in words]
        rare = [sum(word.capitalize() not in NOUNS for word in each) for each in words]
        return [-14.0 * many - some for many, some in zip(odd, rare, strict=True)]


class SpellingDouble(ReadyDouble):
    """A scanner whose tagger finds nothing, beside a language model that knows plain words."""

    identity = ReadyScanner.identity

    def __init__(self, monkeypatch, device):
        super().__init__(("5v",))
        self.lines = LineDouble(monkeypatch)
        self.slips = SlipReader(self.lines.load, device)
