"""Figures of models: over seeds, and as papers give them."""

import decimal
import re
import statistics


def mean_and_spread(values):
    """Mean and sample standard deviation (`None` for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def in_percent(figure):
    """A paper's figure, a text of fractions of three or more digits, in percent; other numbers are not fractions.

    >>> in_percent("0.7125 +- 0.0024 (best 0.715; alpha 0.25)")
    '71.25 +- 0.24 % (best 71.5; alpha 0.25)'
    """
    percent = re.sub(r"\b[01]\.\d{3,}", lambda found: f"{decimal.Decimal(found[0]).scaleb(2):f}", figure)
    value, bracket, remark = percent.partition(" (")
    return f"{value} %{bracket}{remark}"
