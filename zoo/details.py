"""What recipe.json says of a model: names of classes and columns, and its data. Anyone may have written it."""

import json
import numbers

from zoo.tables import KINDS
from zoo.tables import Table

LONGEST = 2**24  # bytes
TEXTS = ("name", "base_model", "license", "task")
OBJECTS = ("data", "results", "recipe", "versions", "table")
TASKS = ("classification", "regression")


def read_details(folder, model=None):
    """What recipe.json in a folder says, checked; without one, `{}`.

    Args:
        folder: The path of a folder of weights.
        model: Its model, which numbers and names are then held to.

    Returns:
        A dictionary. `name` is that of the folder where the file gives none.

    Raises:
        ValueError: the file holds something else than it should; the message
            names it.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        return {}
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected at most {LONGEST}")
    try:
        details = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # RecursionError: a thousand brackets
        raise ValueError(f"{path} is not JSON in UTF-8: {error}; save the model again") from None
    check_details(details, path, model)
    said = {key: value for key, value in details.items() if value is not None}
    if "class_names" in said:
        said["class_names"] = [str(name) for name in said["class_names"]]
    return {"name": folder.absolute().name, **said}


def check_details(details, where, model=None):
    """Raises ValueError where details are not of the form of recipe.json, or do not fit the model.

    Args:
        details: What was read, or what is to be written.
        where: What the message calls it.
        model: The model, or `None`.
    """

    def fail(what):
        raise ValueError(f"{where}: {what}")

    if not isinstance(details, dict):
        fail(f"expected an object, received {_kind(details)}")
    for key in TEXTS:
        if not isinstance(details.get(key), str | None):
            fail(f"expected a text as {key}, received {_kind(details[key])}")
    for key in OBJECTS:
        if not isinstance(details.get(key), dict | None):
            fail(f"expected an object as {key}, received {_kind(details[key])}")
    if details.get("task") not in (None, *TASKS):
        fail(f"expected one of {', '.join(TASKS)} as task, received {details['task'][:80]!r}")
    for key in ("name", "sha256"):
        if not isinstance((details.get("data") or {}).get(key), str | None):
            fail(f"expected a text as {key} of data, received {_kind(details['data'][key])}")
    classes, columns = (details.get(key) for key in ("class_names", "feature_names"))
    if not _are(classes, str | numbers.Real):
        fail("expected a list of names as class_names")
    if not _are(columns, str) or len(set(columns or ())) < len(columns or ()):
        fail("expected a list of different texts as feature_names")
    table = None
    if details.get("table") is not None:
        try:
            table = Table.from_json(details["table"])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            fail(f"table is not one that `python -m training finetune` writes ({type(error).__name__}: {error})")
        _check_table(table, fail)
    if model is not None:
        _check_fit(model, classes, columns, table, fail)


def _kind(value):
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )


def _are(values, kind):
    return values is None or (
        isinstance(values, list | tuple)
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
    )


def _check_table(table, fail):
    if not isinstance(table.target, str):
        fail("expected a text as target of table")
    for column in table.columns:
        texts = isinstance(column.name, str) and isinstance(column.reason, str) and _are(column.vocabulary, str)
        flag = isinstance(column.flagged, bool) and column.flagged <= (column.kind == "number")
        if not texts or not flag or column.kind not in KINDS:
            fail(f"table has a column that is none: {str(column)[:200]}")
        if isinstance(column.fill, bool) or not isinstance(column.fill, numbers.Real) or not abs(column.fill) < 1e39:
            fail(f"expected a finite number in place of missing ones in column {column.name!r} of table")
    if len({column.name for column in table.columns}) < len(table.columns):
        fail("table has two columns of one name")


def _check_fit(model, classes, columns, table, fail):
    """Lengths; a model of several inputs or outputs has none to compare."""
    outputs, inputs = model.output_shape, model.input_shape
    # One output may stand for two classes, as the probability of the second.
    if classes and isinstance(outputs, tuple) and outputs[-1] != len(classes) and (outputs[-1], len(classes)) != (1, 2):
        fail(f"class_names has {len(classes)} names, but {model.name} has {outputs[-1]} outputs")
    names = table.feature_names() if table else columns
    if names and (not isinstance(inputs, tuple) or len(inputs) != 2 or inputs[1] not in (None, len(names))):
        key = "table" if table else "feature_names"
        fail(f"{key} has {len(names)} columns, but {model.name} takes inputs of shape {_shape(inputs)}")


def _shape(inputs):
    return inputs[1:] if isinstance(inputs, tuple) else inputs
