"""One's own table: what its columns are, and its rows as the numbers that a model takes.

What is learned from the training rows (vocabularies, the values in place of
missing ones) is a list of `Column`s, which is kept in the folder of the model;
`encode` makes the same numbers of another file.
"""

import dataclasses
import sys
from typing import NamedTuple

import numpy as np

from zoo.csv_files import finite_number
from zoo.csv_files import is_meant_as_number
from zoo.csv_files import is_number
from zoo.csv_files import read_csv
from zoo.messages import some

# Cells that say nothing, whatever their case. A folder made before one of them was added still means the same: a
# category's text is looked up in its vocabulary, where it then is, and a column of numbers had refused it.
MISSING = {"", "?", "na", "n/a", "nan", "null", "#n/a", "#na", "<na>"}
# These say nothing among numbers alone: + and - are classes or categories too, and so is none beside mild and severe.
MISSING_NUMBERS = MISSING | {"-", ".", "none"}
MOST_CATEGORIES = 100  # different texts in a column; more are names or numbers gone wrong
KINDS = ("number", "category", "ignored")
LARGEST = 1e19  # number to learn from: the variance of larger ones may be none of float32's
SMALLEST = 1e-7  # deviation of a column: Keras divides by no smaller one
EPSILON = 1e-7  # of the mean: float32 has seven digits
MOST_COLUMNS = 10_000  # that the network sees, one-hot vectors included


class Column(NamedTuple):
    """A column of the file.

    `kind` is one of `KINDS`. `vocabulary` holds the texts of a category, which
    get the codes 1, 2, ...; 0 is a missing or an unknown one. `fill` stands in
    place of a missing number; where `flagged`, a further column says which
    numbers are missing.
    """

    name: str
    kind: str
    vocabulary: tuple = ()
    fill: float = 0.0
    flagged: bool = False
    reason: str = ""  # of `"ignored"`


@dataclasses.dataclass(frozen=True)
class Table:
    """The columns of a file, and the one to predict."""

    columns: tuple
    target: str

    def feature_names(self):
        """Names of the numbers of a row, in order."""
        names = []
        for column in self.columns:
            names += [column.name] * (column.kind != "ignored") + [f"{column.name} is missing"] * column.flagged
        return names

    def sizes(self):
        """For `keras_mpelu.OneHotColumns`: codes of each number of a row, 0 where it is a number."""
        sizes = []
        for column in self.columns:
            if column.kind != "ignored":
                sizes.append(len(column.vocabulary) + 1 if column.kind == "category" else 0)
            sizes += [0] * column.flagged
        return sizes

    def to_json(self):
        return {"target": self.target, "columns": [column._asdict() for column in self.columns]}

    @classmethod
    def from_json(cls, saved):
        columns = (Column(**{**column, "vocabulary": tuple(column["vocabulary"])}) for column in saved["columns"])
        return cls(tuple(columns), saved["target"])


def is_missing(text, marks=MISSING):
    return text.strip().lower() in marks


def learn(path, header, rows, target, categorical=(), ignore=()):
    """The `Table` of a file.

    Args:
        path: Of the file, for messages.
        header: Names of the columns.
        rows: `(line, cells)` of each row.
        target: The column to predict.
        categorical: Columns of numbers that are codes of categories.
        ignore: Columns to leave out.

    Raises:
        ValueError: a column is neither of numbers nor of some categories, is
            not there, or nothing is left to learn from.
    """
    for name in (*categorical, *ignore):
        if name not in header or name == target:
            raise ValueError(f"{path} has no column {name!r} beside the target; its columns are {some(header)}")
    columns, refused = [], {}
    for place, name in enumerate(header):
        if name == target:
            continue
        if name in ignore:
            columns.append(Column(name, "ignored", reason="as asked"))
            continue
        cells = [(line, row[place]) for line, row in rows]
        try:
            columns.append(_learn_column(path, name, cells, name in categorical))
        except ValueError as error:
            refused[name] = error
    if refused:
        error, *others = refused.values()
        if not others:
            raise error
        raise ValueError(
            f"{error}; as little can be taken as they are: {some(list(refused)[1:])}; to leave all out: --ignore "
            f"{' '.join(map(repr, (*ignore, *refused)))}"
        ) from error
    table = Table(tuple(columns), target)
    taken = {column.name for column in columns if column.kind != "ignored"}
    for column in columns:
        flag = f"{column.name} is missing"
        if column.flagged and flag in taken:
            raise ValueError(
                f"{path} has a column {flag!r}, which is also the name of what says where {column.name!r} has missing "
                f"cells; rename it, or leave it out by --ignore {flag!r}"
            )
    width = sum(max(size, 1) for size in table.sizes())
    if not width:
        reasons = ", ".join(sorted({column.reason for column in columns})) or "there is none"
        raise ValueError(f"{path} has no column to learn from beside {target!r} ({reasons})")
    if width > MOST_COLUMNS:
        raise ValueError(
            f"{path} has {width} columns (categories count as many as they have values), expected at most "
            f"{MOST_COLUMNS}; leave some out, in the file or by --ignore"
        )
    return table


def _learn_column(path, name, cells, categorical):
    present = [(line, text) for line, text in cells if not is_missing(text)]
    if not present:
        return Column(name, "ignored", reason="empty")
    said = [(line, text) for line, text in present if not is_missing(text, MISSING_NUMBERS)]
    if not categorical and not said:
        return Column(name, "ignored", reason="empty")
    if not categorical and all(is_number(text) for _, text in said):
        present = said
        values = [finite_number(path, line, name, text) for line, text in present]  # refuses infinities
        flagged = len(present) < len(cells)
        if min(values) == max(values) and not flagged:
            return Column(name, "ignored", reason="constant")
        line, text = present[np.argmax(np.abs(values))]
        finite_number(path, line, name, text, LARGEST)
        deviation, middle = float(np.std(values)), float(np.mean(values))
        what = f"{path}, column {name!r}: its numbers differ by some {deviation:.3g} around {middle:.6g}"
        varies = min(values) < max(values)
        if varies and deviation < abs(middle) * EPSILON:
            raise ValueError(
                f"{what}, which float32 cannot tell apart; subtract a constant such as the smallest of them, or if "
                f"they are codes give --categorical {name!r}"
            )
        if varies and deviation < SMALLEST:
            raise ValueError(f"{what}, of which the network would see next to nothing; give it in a smaller unit")
        return Column(name, "number", fill=float(np.median(values)), flagged=flagged)
    texts = {text.strip() for _, text in present}
    if len(texts) > MOST_CATEGORIES:
        what = f"{path} has {len(texts)} different values in column {name!r}, more than {MOST_CATEGORIES} categories"
        other = next(((line, text) for line, text in said if not is_number(text)), None)
        if other is None:
            raise ValueError(f"{what}; group them, take it as a number (no --categorical), or leave it out by --ignore")
        raise ValueError(
            f"{what}, and they are not all numbers (line {other[0]}: {other[1]!r}); "
            f"{'write them as numbers such as 1234.5' if is_meant_as_number(other[1]) else 'mend them'}, or leave the "
            f"column out by --ignore {name!r}"
        )
    if len(texts) == 1 and len(present) == len(cells):
        return Column(name, "ignored", reason="constant")
    return Column(name, "category", vocabulary=tuple(sorted(texts)))


def stray_text(cells):
    """The first `(line, text)` that is no number where most are meant as numbers; `None` where there is none."""
    present = [(line, text.strip()) for line, text in cells if not is_missing(text, MISSING_NUMBERS)]
    meant = sum(is_meant_as_number(text) for _, text in present)
    if 2 * meant <= len(present):
        return None
    return next(((line, text) for line, text in present if not is_number(text)), None)


def encode(table, path, header, rows, quiet=False):
    """The rows as float32 `(rows, features)`; unless `quiet`, a line on stderr tells of unknown categories.

    Raises:
        ValueError: a column is missing from the file, or a cell of a number's
            column is no finite number.
    """
    wanted = [column for column in table.columns if column.kind != "ignored"]
    if missing := [column.name for column in wanted if column.name not in header]:
        raise ValueError(f"{path} lacks the columns {some(missing)}; the model takes {len(wanted)} columns")
    known = {column.name for column in table.columns} | {table.target}
    if extra := [name for name in header if name not in known]:
        raise ValueError(f"{path} has the further columns {some(extra)}, which the model does not know; remove them")
    features = []
    for column in wanted:
        place = header.index(column.name)
        cells = [(line, row[place]) for line, row in rows]
        if column.kind == "category":
            codes = {text: code for code, text in enumerate(column.vocabulary, start=1)}
            features.append([codes.get(text.strip(), 0) for _, text in cells])
            if not quiet:
                _tell_of_unknown(path, column.name, codes, cells)
            continue
        empty = [is_missing(text, MISSING_NUMBERS) for _, text in cells]
        features.append(
            [
                column.fill if lacks else finite_number(path, line, column.name, text)
                for (line, text), lacks in zip(cells, empty, strict=True)
            ]
        )
        if column.flagged:
            features.append(empty)
    return np.array(features, "float32").T


def _tell_of_unknown(path, name, codes, cells):
    """A line on stderr: TRUE for true, or 8001.0 for 8001, would else be taken as missing without a word."""
    unknown = [(line, text.strip()) for line, text in cells if text.strip() not in codes and not is_missing(text)]
    if unknown:
        line, text = unknown[0]
        print(
            f"{path}: column {name!r} has {len(unknown)} of {len(cells)} cells with a category that the model does not "
            f"know, taken as missing (first in line {line}: {text!r}; it knows {some(list(codes))})",
            file=sys.stderr,
        )


def one_hot(rows, sizes):
    """What `keras_mpelu.OneHotColumns` makes of the rows, by NumPy."""
    columns = []
    for column, size in zip(rows.T, sizes, strict=True):
        columns += [column == code for code in range(size)] if size else [column]
    return np.array(columns, "float32").T


def read_rows(table, path):
    """The rows of a file for a model, without need of the target."""
    header, rows = read_csv(path)
    return encode(table, path, header, rows)
