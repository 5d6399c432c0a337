"""Tables of the documents and cards."""


def table(header, rows):
    """A table in Markdown; a bar in a cell does not end it.

    >>> print(table(("a", "b"), [(1, "x|y")]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    return "\n".join([_row(header), "|" + "---|" * len(header), *map(_row, rows)])


def _row(cells):
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
