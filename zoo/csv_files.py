"""CSV files of anyone's: read whole, and checked cell by cell."""

import csv
import itertools
import re

import numpy as np

from zoo.messages import some

MOST = float(np.finfo("float32").max)  # the models' numbers


def read_table(path, columns):
    """The named columns of a CSV with a header, as float32 rows.

    Raises:
        ValueError: a column is missing or one too many, a value is no finite
            number, or there are no rows.
    """
    return read_columns(path, *read_csv(path), columns)


def read_csv(path):
    """Header and numbered rows of a CSV file, checked for shape.

    Semicolons or tabs may separate the columns, where no comma does in the
    first line.
    Numbers have a point in such files too: in `3,14` and `1,234` the comma may
    be a decimal one or one of thousands, so neither is read as a number.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            unquoted = re.sub('"[^"]*"?', "", first.rstrip())
            separator = "," if "," in unquoted else max(",\t;", key=unquoted.count)
            # The file may be a pipe, which is read but once.
            reader = csv.reader(itertools.chain([first], file), delimiter=separator)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        mend = "; save it as UTF-8 (in Excel: CSV UTF-8)" if isinstance(error, UnicodeDecodeError) else ""
        raise ValueError(f"{path} is not a CSV text file in UTF-8: {error}{mend}") from error
    while rows and not rows[-1][1]:
        rows.pop()
    if len(header) == 1:  # where a blank line is a cell without a value
        rows = [(line, row or [""]) for line, row in rows]
    rows = [(line, row) for line, row in rows if row]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ValueError(f"{path} has the column {twice!r} twice; rename or remove one")
    if not header or not rows:
        raise ValueError(f"{path} has no rows; expected a header line and at least one row")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path} line {line} has {len(row)} values; the header has {len(header)}")
    return header, rows


def read_columns(path, header, rows, columns):
    """The same of a CSV that has been read."""
    missing = [name for name in columns if name not in header]
    extra = [name for name in header if name not in columns]
    if missing or extra:
        what = f"lacks the columns {some(missing)}" if missing else f"has the further columns {some(extra)}"
        raise ValueError(f"{path} {what}; the model takes exactly these {len(columns)}: {some(columns)}")
    return finite_numbers(path, header, rows, columns)


def finite_number(path, line, name, text, largest=MOST):
    """A cell as a float of at most a size; the message of the ValueError says where it is and what it holds."""
    value = float(text) if is_number(text) else float("nan")
    if largest < abs(value) <= MOST:
        raise ValueError(
            f"{path} line {line}, column {name!r}: {text!r} is too large, expected at most {largest:g} in size; "
            "give the column in a larger unit, or drop the row"
        )
    if not abs(value) <= MOST:  # NaN and infinities too
        comma = "," in text and is_meant_as_number(text)
        mend = "write it without a comma, such as 1234.5" if comma else "fill or drop the row"
        raise ValueError(f"{path} line {line}, column {name!r}: {text!r} is no finite number; {mend}")
    return value


def finite_numbers(path, header, rows, columns, largest=MOST):
    """Some columns of all rows, as float32."""
    places = [(name, header.index(name)) for name in columns]
    return np.array(
        [[finite_number(path, line, name, row[place], largest) for name, place in places] for line, row in rows],
        "float32",
    )


def is_number(text):
    """Whether Python reads a number in it, though perhaps one that is not finite."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python reads 1_0 as 10


def is_meant_as_number(text):
    """Whether it is a number but perhaps for commas, as in 1,234 or 3,14: decimal or of thousands, none can tell."""
    return is_number(text.replace(",", ""))
