"""Write tables of `docs/measured` from the result files, so that no figure is copied by hand.

    python docs/make_tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; `TABLES` says how each is made. Rows of a scenario are
ordered by what the attack reaches in its group, the worst for the platform first.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import polars as pl

DOCS = Path(__file__).parent
PAGES = ("measured/aprec.md", "measured/aprec_tables.md", "measured/p_scanner.md")
"""Pages that hold generated tables."""
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NONE = "–"
"""What a cell shows where nothing was measured."""


@cache
def load_rows(name: str) -> pl.DataFrame:
    """Return the rows of a result file."""
    return pl.read_csv(DOCS / "results" / name, infer_schema_length=None)


def find_value(rows: pl.DataFrame, metric: str, group: str) -> tuple[float, float | None, float | None] | None:
    """Return value and interval of a metric, or `None` where it was not measured."""
    found = rows.filter((pl.col("metric") == metric) & (pl.col("group") == group))
    if found.height == 0 or found["value"][0] is None:
        return None
    return found["value"][0], found["low"][0], found["high"][0]


def format_number(value: float) -> str:
    """Return a rate or a ratio with two or three digits."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    shown = f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
    return (f"{value:.6f}".rstrip("0") if "e" in shown else shown).replace("-", "−")


def format_interval(found: tuple[float, float | None, float | None] | None) -> str:
    """Return a value with its interval."""
    if found is None:
        return NONE
    value, low, high = found
    if low is None or high is None or value == low == high:
        return format_number(value)
    return f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"


def format_change(found: tuple[float, float | None, float | None] | None) -> str:
    """Return a relative change in percent."""
    if found is None:
        return NONE
    value, low, high = (f"{100 * (each or 0):+.1f}".replace("-", "−") for each in found)
    return f"{value} % [{low}, {high}]"


def make_row(rows: pl.DataFrame, attack: str) -> list[str]:
    """Return the cells of one attack in one scenario."""
    measured = partial(find_value, rows)
    if attack == "none":
        ndcg = measured("ndcg", "all")
        return [NONE, NONE, NONE, NONE, NONE, f"NDCG@10 {format_interval(ndcg)}"]
    aimed = "target" if measured("exposure_hr", "target") else "all"
    clean = measured("exposure_hr_clean", aimed)
    return [
        format_interval(measured("exposure_hr", aimed)) + (" (all)" if aimed == "all" else ""),
        format_interval(measured("exposure_hr", "other")) if aimed == "target" else NONE,
        format_interval(clean),
        format_interval(measured("lift_hr", aimed)) if clean and clean[0] > 0 else NONE,
        format_interval(measured("selectivity_hr", "all")),
        format_change(measured("ndcg_change", "all")),
    ]


def make_grid(
    name: str, victim: str, scenarios: tuple[str, ...] | None = None, without: tuple[str, ...] = ()
) -> list[str]:
    """Return the lines of a table: what each attack reaches in each scenario, all seeds pooled."""
    pooled = load_rows(name).filter(
        pl.col("seed").is_null() & (pl.col("victim") == victim) & (pl.col("k").is_null() | (pl.col("k") == 10))
    )
    lines = [
        "| scenario | attack | exposure, group | exposure, others | exposure, group, clean model | lift, group | "
        "group / others | NDCG@10 change |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for scenario in scenarios or tuple(pooled["scenario"].unique(maintain_order=True)):
        part = pooled.filter(pl.col("scenario") == scenario)
        found: list[tuple[float, str, list[str]]] = []
        for attack in part["attack"].unique(maintain_order=True):
            if attack in without:
                continue
            rows = part.filter(pl.col("attack") == attack)
            reached = find_value(rows, "exposure_hr", "target") or find_value(rows, "exposure_hr", "all")
            worth = -1.0 if attack == "none" or reached is None else reached[0]
            found.append((worth, "clean" if attack == "none" else attack, make_row(rows, attack)))
        found.sort(key=lambda row: -row[0])
        for number, (_, attack, cells) in enumerate(found):
            lines.append(" | ".join([f"| {scenario if number == 0 else ''}", attack, *cells]) + " |")
    return lines


def make_seeds(name: str, scenario: str, attacks: tuple[str, ...]) -> list[str]:
    """Return the lines of a table: mean exposure over seeds, with a t interval."""
    rows = load_rows(name).filter((pl.col("scenario") == scenario) & (pl.col("k") == 10))
    lines = ["| victim | attack | exposure, group | exposure, others |", "| --- | --- | --- | --- |"]
    for victim in ("sasrec", "gru4rec"):
        found: list[tuple[float, str, list[str]]] = []
        for attack in attacks:
            part = rows.filter((pl.col("victim") == victim) & (pl.col("attack") == attack))
            means = [find_value(part, "exposure_hr_over_seeds", group) for group in ("target", "other")]
            found.append((means[0][0] if means[0] else -1.0, attack, [format_interval(mean) for mean in means]))
        found.sort(key=lambda row: -row[0])
        lines += [" | ".join([f"| {victim}", attack, *cells]) + " |" for _, attack, cells in found]
    return lines


def make_tuning() -> list[str]:
    """Return the lines of a table: what tuning the whole model leaves of the group attack, by learning rate."""
    pooled = load_rows("basic_replacement_ml1m.csv").filter(pl.col("seed").is_null() & (pl.col("k") == 10))
    lines = [
        "| learning rate | exposure, five targets | exposure, one target (r = 0.05) | NDCG@10, clean model |",
        "| --- | --- | --- | --- |",
    ]
    for rate, scenario in (
        ("not tuned", "direct"),
        ("3e-5", "fine-tune"),
        ("1e-4", "fine-tune-1e-4"),
        ("3e-4", "fine-tune-3e-4"),
    ):
        part = pooled.filter(pl.col("scenario") == scenario)
        asked = (
            ("age25-n5-r0.1", "exposure_hr", "target"),
            ("age25-n1-r0.05", "exposure_hr", "target"),
            ("none", "ndcg", "all"),
        )
        cells = [
            format_interval(find_value(part.filter(pl.col("attack") == attack), metric, group))
            for attack, metric, group in asked
        ]
        lines.append(" | ".join([f"| {rate}", *cells]) + " |")
    return lines


def make_detections(*names: str) -> list[str]:
    """Return the lines of a table: what defenses that flag titles find, by seed, the worst first."""
    parts = [load_rows(name).with_columns(pl.col("seed").cast(pl.Int64)) for name in names]
    rows = pl.concat(parts, how="vertical_relaxed").filter(
        (pl.col("scenario") == "none") & (pl.col("attack") != "none")
    )
    asked = ("flagged", "recall", "recall_at_fpr_1pct", "detection_auroc", "lost_clean_items")
    lines = [
        "| defense | titles flagged | recall of what it flags | recall at 1 % false positives | AUROC | "
        "clean items lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found: list[tuple[float, float, str]] = []
    for defense in rows["defense"].unique(maintain_order=True):
        part, cells, worth = rows.filter(pl.col("defense") == defense), list[str](), dict[str, float]()
        for metric in asked:
            values = part.filter(pl.col("metric") == metric).sort("seed")["value"].to_list()
            worth[metric] = sum(values) / len(values) if values else 0.0
            whole = metric in {"flagged", "lost_clean_items"}
            cells.append(" / ".join(f"{value:.0f}" if whole else f"{value:.2f}" for value in values) or NONE)
        line = " | ".join([f"| `{defense}`", *cells]) + " |"
        found.append((worth["recall"], worth["recall_at_fpr_1pct"], line))
    return lines + [line for *_, line in sorted(found, key=lambda row: row[:2])]


SCENARIOS = ("direct", "direct-provided", "fine-tune", "prompt-tune", "prompt-tune-provided", "prompt-tune-full")
OVERLAP = ("fine-tune-half-overlap", "fine-tune-half-overlap-3e-4")
SINGLE = ("basic-group-1", "prompt-enhanced-1")
"""Attacks with one target, which the platform has for one seed in five where items overlap by half."""
GROUP = ("basic-group", "basic-group-1", "prompt-enhanced", "prompt-enhanced-mild", "prompt-enhanced-1")
"""Attacks on a group."""
TABLES: dict[str, Callable[[], list[str]]] = {
    "tuning": make_tuning,
    "found-tallrec": partial(make_detections, "p_scanner_baselines_ml100k.csv", "p_scanner_titles_ml100k.csv"),
    "found-llara": partial(make_detections, "p_scanner_llara_baselines_ml100k.csv"),
    "seeds-softmax": partial(make_seeds, "aprec_ml1m.csv", "prompt-tune-provided", GROUP),
    "seeds-sampled": partial(make_seeds, "aprec_ml1m_sampled.csv", "prompt-tune-provided", GROUP),
}
"""Tables by name."""
for _victim in ("sasrec", "gru4rec"):
    TABLES[f"ml1m-{_victim}"] = partial(make_grid, "aprec_ml1m.csv", _victim, SCENARIOS)
    TABLES[f"sampled-{_victim}"] = partial(make_grid, "aprec_ml1m_sampled.csv", _victim, SCENARIOS)
    TABLES[f"ml100k-{_victim}"] = partial(make_grid, "aprec_ml100k.csv", _victim, SCENARIOS)
    TABLES[f"overlap-{_victim}"] = partial(make_grid, "aprec_ml1m.csv", _victim, OVERLAP, SINGLE)


def fill_tables(text: str) -> str:
    """Return a page with its tables made anew."""
    return MARKED.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], text)


if __name__ == "__main__":
    for page in PAGES:
        path = DOCS / page
        path.write_text(fill_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
