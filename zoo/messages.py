"""Words of error messages: names, lists of them, and what other packages' errors say."""

import difflib


def quoted(name, longest=100):
    """A name for a message, cut in the middle where it is no name."""
    text = repr(name)
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 :]}"


def some(names):
    """The first names of a list, for a message."""
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 5 else shown


def check_names(names, known, kind):
    """Raises the ValueError of the first name that is not in the list."""
    for name in names:
        if name not in known:
            raise unknown_name(name, known, kind)


def unknown_name(name, known, kind):
    """The ValueError for a name that is not in the list, with close ones."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=5, cutoff=0.5)
    if close:
        return ValueError(f"unknown {kind} {quoted(name)}; close: {', '.join(close)}")
    more = f", ... ({len(known)} in all)" if len(known) > 8 else ""
    return ValueError(f"unknown {kind} {quoted(name)}; there are: {', '.join(known[:8])}{more}")


def first_line(error):
    """What an exception says, in one line that fits into a message."""
    lines = str(error.__cause__ or error).split("\n")
    return _clipped(next((line.strip() for line in lines if line.strip()), type(error).__name__))


def words_of_keras(error):
    """Why Keras failed, in one line: the innermost cause, which it puts last, behind the whole config."""
    return _clipped(" ".join(str(error).rpartition("Exception encountered: ")[2].split()) or type(error).__name__)


def _clipped(line):
    return line if len(line) <= 300 else f"{line[:300]} ..."
