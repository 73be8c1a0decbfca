"""Result rows that tests make up: attacks, defenses and detectors with known numbers."""

from cowbird.experiments.results import Row, to_csv
from cowbird.metrics.intervals import wilson

HOSTILE_LABEL = '<script>alert("x")</script>\u202e'
"""What a label may be in a file of somebody else's."""


def make_row(**changes):
    fields = {
        "experiment": "made", "dataset": "films", "victim": "judge", "attack": "word", "defense": "none",
        "scenario": "direct", "group": "trigger", "metric": "asr", "k": 0, "seed": 0, "value": 0.5, "low": 0.4,
        "high": 0.6, "n": 100,
    }  # fmt: skip
    return Row(**(fields | changes))


def make_rate(successes, n=100, **changes):
    found = wilson(successes, n)
    return make_row(value=found.value, low=found.low, high=found.high, n=n, **changes)


def make_answers(attack="word", defense="none", clean=5, attacked=95, accuracy=70, seed=0, lost=None, **where):
    """Return the rows of a victim that says yes or no: how many of a hundred questions an attack turns."""
    place = {"attack": attack, "defense": defense, "seed": seed, **where}
    rows = [
        make_rate(attacked, metric="asr", **place),
        make_rate(clean, metric="asr_clean", **place),
        make_rate(accuracy, metric="auc", group="all", **place),
        make_rate(72, metric="auc_clean", group="all", **place),
    ]
    if lost is not None:
        value, low, high = lost
        rows.append(make_row(metric="auc_lost", group="all", value=value, low=low, high=high, **place))
    return rows


def make_detections(attack="word", defense="finder", recall=80, fpr=2, seed=0, **where):
    """Return the rows of a detector: what it finds of a hundred poisoned titles, and flags of a hundred clean ones."""
    place = {"attack": attack, "defense": defense, "scenario": "none", "group": "all", "seed": seed, **where}
    return [
        make_rate(recall, metric="recall", **place),
        make_rate(fpr, metric="false_positive_rate", **place),
        make_row(metric="detection_auroc", value=0.9, low=0.85, high=0.95, **place),
    ]


def write_rows(path, rows):
    path.write_text(to_csv(rows), encoding="utf-8")
    return path
