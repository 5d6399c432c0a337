"""Labelled files of one's own, a folder of class folders of images or a CSV, and a model's figures on them."""

import collections
import pathlib
import sys

import numpy as np

from zoo import tables
from zoo.datasets import Dataset
from zoo.evaluation import evaluate
from zoo.evaluation import number_metrics
from zoo.prediction import check_predictable
from zoo.prediction import feature_names
from zoo.prediction import load_with_details
from zoo.prediction import numbers
from zoo.prediction import read_columns
from zoo.prediction import read_csv
from zoo.prediction import read_image
from zoo.prediction import some
from zoo.pretrained import predict

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def evaluate_files(name, data, label=None, progress=False):
    """The figures of a model on labelled images, or on the rows of a table, of one's own.

    Rows that it was trained on say little of others. All files are read and
    checked before anything is computed.

    Args:
        name: A name or folder for `zoo.load_model`.
        data: A folder that has a folder of images for each class, called as the
            model calls it, or a CSV with the model's columns and the label. A
            model that was made of one's own table takes that table as it is.
        label: Column of the label in the CSV. Defaults to the one that the
            model was made to predict, where that is known, else `"label"`.
        progress: Whether to show a progress bar.

    Returns:
        Those of `zoo.evaluate`. Of a model of numbers `rmse` and `mae`, in the
        unit of the label, `r2` where the labels differ, and `rows`.

    Raises:
        ValueError: the data do not fit the model, or have a label that it does
            not know.
        OSError: they cannot be read.
    """
    path = pathlib.Path(data)
    if not path.exists():
        raise FileNotFoundError(f"no folder or CSV file {str(path)!r}")
    model, details = load_with_details(name)
    check_predictable(model, details)
    classes = details.get("class_names") or [str(number) for number in range(model.output_shape[1])]
    images = len(model.input_shape) == 4
    if images != path.is_dir():
        takes = "images: give a folder of class folders" if images else "the rows of a table: give a CSV file"
        raise ValueError(f"{str(name)!r} takes {takes}; received {path}")
    if images:
        x, labels, found = read_image_folders(path, model.input_shape[1:], least=1)
        y = _numbers_of_classes([(path / found[label], found[label]) for label in labels], classes)
    else:
        header, rows = read_csv(path)
        table = tables.Table.from_json(details["table"]) if "table" in details else None
        label = label or (table.target if table else "label")
        if label not in header:
            raise ValueError(
                f"{path} has no column {label!r} to compare with; its columns are {some(header)}; give --label"
            )
        place = header.index(label)
        texts = [(f"{path} line {line}, column {label!r}", row[place].strip()) for line, row in rows]
        inputs = (
            [*header[:place], *header[place + 1 :]],
            [(line, [*row[:place], *row[place + 1 :]]) for line, row in rows],
        )
        x = tables.encode(table, path, *inputs) if table else read_columns(path, *inputs, feature_names(model, details))
        if details.get("task") == "regression":
            truth = np.array([numbers(path, line, row, header, [label])[0] for line, row in rows])
            return number_metrics(predict(model, x, progress=progress)[:, 0], truth)
        y = _numbers_of_classes(texts, classes)
    return evaluate(model, Dataset(str(path), x[:0], y[:0], x, y, tuple(classes), (), ""), progress=progress)


def _numbers_of_classes(labels, classes):
    """Labels, given as `(where, text)`, as the numbers of their classes."""
    number = {name: place for place, name in enumerate(classes)}
    for where, text in labels:
        if text not in number:
            what = "no label" if tables.is_missing(text) else f"the label {text!r}"
            raise ValueError(f"{where} has {what}, expected one of the model's {len(classes)} classes: {some(classes)}")
    return np.array([number[text] for _, text in labels])


def read_image_folders(folder, shape, least=2):
    """All images under class folders, as uint8 (N, *shape), labels and class names (sorted).

    Args:
        folder: The folder of the class folders.
        shape: Height, width and channels to scale to.
        least: Classes, and images of each, that there are to be.

    Raises:
        ValueError: there are fewer, or an image cannot be read.
    """
    if None in shape or shape[-1] not in (1, 3):
        raise ValueError(f"the model takes inputs of shape {shape}; expected images of one size, grey or RGB")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < least:
        raise ValueError(
            f"{folder} has {len(classes)} class folders; expected {least} or more, each with the images of a class"
        )
    images, labels, left_out = [], [], collections.Counter()
    for number, path in enumerate(classes):
        found = [file for file in path.iterdir() if not file.name.startswith(".")]
        files = sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        left_out += collections.Counter(
            "folders" if file.is_dir() else file.suffix or "no suffix" for file in set(found) - set(files)
        )
        if len(files) < least:
            why = ", so that one can be held out" if least > 1 else ""
            raise ValueError(f"{path} has {len(files)} images; expected {least} or more{why}")
        images += [read_image(file, shape) for file in files]
        labels += [number] * len(files)
    if left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        print(
            f"{folder}: {left_out.total()} entries of class folders are left out as no images ({kinds})",
            file=sys.stderr,
        )
    return np.stack(images), np.array(labels), tuple(path.name for path in classes)
