"""One's own data: a folder of class folders of images, or a CSV; and the rows that are held out."""

import collections
import dataclasses
import os
import pathlib

import numpy as np

from training.recipes import own_name
from zoo.csv_files import finite_number
from zoo.csv_files import finite_numbers
from zoo.csv_files import read_csv
from zoo.datasets import Dataset
from zoo.datasets import sha256_of
from zoo.labelled_files import read_image_folders
from zoo.messages import some
from zoo.registry import default_input_shape
from zoo.tables import LARGEST
from zoo.tables import is_missing

HELD_OUT, SEED = 0.2, 0  # of each class, as test rows
BATCH = 32  # rows of a step of fine-tuning, where there are so many


def own_dataset(path, arch, label):
    """A `Dataset` of one's own, for an architecture; everything is read and checked here.

    Raises:
        ValueError: the data are not usable, or not of the kind that the
            architecture takes.
        OSError: they cannot be read.
    """
    path, shape = pathlib.Path(path), default_input_shape(arch)
    if not path.exists():
        raise FileNotFoundError(f"no folder or CSV file {str(path)!r}")
    if path.is_dir() and shape is None:
        raise ValueError(f"{arch} takes the columns of a table; {path} is a folder: give a CSV, or an image model")
    if not path.is_dir() and shape is not None:
        raise ValueError(f"{arch} takes images; {path} is a file: give a folder of class folders of images")
    if path.is_dir():
        x, y, class_names = read_image_folders(path, shape)
        columns = ()
    else:
        x, y, class_names, columns = read_labelled_csv(path, label)
    dataset = hold_out(x, y, class_names, columns, HELD_OUT, SEED)
    return dataclasses.replace(dataset, name=own_name(path), sha256=sha256_of(x, y))


def check_writable(out):
    """Raises OSError before the work, not after it, where a folder cannot be made."""
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file; give another --out")
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"no permission to write in {nearest}; give another --out")


def loadable(folder):
    """The path as `zoo.load_model` takes it for one, also where it is called like a published model."""
    return str(folder) if os.sep in str(folder) else os.path.join(os.curdir, folder)


def read_labelled_csv(path, label):
    """A CSV as float32 rows, labels 0 to K-1, class names (sorted) and column names."""
    header, rows = read_csv(path)
    if label not in header:
        raise ValueError(f"{path} has no column {label!r}; its columns are {', '.join(header[:8])}; give --label")
    columns = [name for name in header if name != label]
    if not columns:
        raise ValueError(f"{path} has no column beside {label!r}; expected at least one number per row")
    x = finite_numbers(path, header, rows, columns, LARGEST)
    labels, class_names = labels_of(path, label, [(line, row[header.index(label)].strip()) for line, row in rows])
    return x, labels, class_names, columns


def labels_of(path, label, texts):
    """Labels 0 to K-1 and class names (sorted) of a column, given as `(line, text)`."""
    for line, text in texts:
        if is_missing(text):
            said = f" ({text!r} counts as none)" if text else ""
            mend = ", or write a class of that name otherwise" if text else ""
            raise ValueError(f"{path} line {line} has no label in column {label!r}{said}; fill or drop the row{mend}")
    values = [text for _, text in texts]
    class_names = sorted(set(values))
    if len(class_names) < 2:
        raise ValueError(f"{path} has one class only, {class_names[0]!r}; expected two or more in column {label!r}")
    counts = collections.Counter(values)
    if lonely := [name for name in class_names if counts[name] < 2]:
        raise ValueError(
            f"{path} has one row of class {some(lonely)} ({len(class_names)} values in column {label!r}); "
            "expected two or more of each, so that one can be held out: drop such rows, or join classes"
        )
    number = {name: place for place, name in enumerate(class_names)}
    return np.array([number[value] for value in values]), tuple(class_names)


def numbers_of(path, label, texts):
    """A column of numbers to predict, given as `(line, text)`, as float64."""
    values = np.array([finite_number(path, line, label, text) for line, text in texts])
    if len(values) < 5:
        raise ValueError(f"{path} has {len(values)} rows; expected 5 or more, to learn the number {label!r} from")
    if values.min() == values.max():
        raise ValueError(f"{path} has one value only, {values[0]:g}, in column {label!r}; expected different ones")
    return values


def rows_of_a_step(asked, rows):
    """The batch size for so many training rows: the one asked for, else 32, or all of fewer."""
    if asked is not None and asked > rows:
        raise ValueError(
            f"batch_size is 1 to {rows}, the number of training rows; received {asked}: give a smaller --batch-size, "
            "or leave it out"
        )
    return asked or min(BATCH, rows)


def hold_out(x, y, class_names, columns, fraction, seed, all_may_stay=False):
    """A `Dataset` whose test rows are the given fraction of each class, never all.

    At least one of each, or none of a class with few where `all_may_stay`.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(x), bool)
    for label in range(len(class_names)):
        rows = rng.permutation(np.flatnonzero(y == label))
        least = 0 if all_may_stay else 1
        held[rows[: min(max(least, round(fraction * len(rows))), len(rows) - 1)]] = True
    return Dataset("your data", x[~held], y[~held], x[held], y[held], class_names, tuple(columns), "")
