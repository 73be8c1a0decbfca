"""Age brackets, the groups of MovieLens-1M, for sources that give ages."""

import polars as pl

AGE_BRACKETS = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
"""Bracket by its lowest age."""


def bracket_ages(column: str) -> pl.Expr:
    """Return an expression that turns a column of ages in years into brackets; null where it is no age."""
    age = pl.col(column).str.strip_chars().cast(pl.Int32, strict=False)
    label = pl.when(age < 1).then(None)
    for low, high in zip(list(AGE_BRACKETS)[1:], list(AGE_BRACKETS.values()), strict=False):
        label = label.when(age < low).then(pl.lit(high))
    return label.when(age < 130).then(pl.lit(AGE_BRACKETS[56])).otherwise(None).alias("age_group")
