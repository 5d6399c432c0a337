"""Checks of the numbers that builders take: one error that says what was expected."""

import numbers


def check_integer(name, value, least=1):
    """Raises a ValueError unless the value is an integer of `least` or more."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is an integer, {least} or more; received {value!r}")


def check_rate(name, value):
    """Raises a ValueError unless the value is a rate of dropout: a number, at least 0 and below 1."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name} is one number, at least 0 and below 1; received {value!r}")
