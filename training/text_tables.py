"""Tables as text: of documents and cards in Markdown, of files in CSV."""

import csv
import io


def markdown_table(header, rows):
    """A table in Markdown; a bar in a cell does not end it.

    >>> print(markdown_table(("a", "b"), [(1, "x|y")]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    return "\n".join([_row(header), "|" + "---|" * len(header), *map(_row, rows)])


def _row(cells):
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def csv_text(rows):
    """Dictionaries of the same keys as CSV, one row each.

    >>> print(csv_text([{"a": 1, "b": "x,y"}]), end="")
    a,b
    1,"x,y"
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
