"""Labelled files of one's own, a folder of class folders of images or a CSV, and a model's figures on them."""

import collections
import pathlib
import sys

import numpy as np

from zoo import tables
from zoo.csv_files import finite_number
from zoo.csv_files import read_columns
from zoo.csv_files import read_csv
from zoo.datasets import Dataset
from zoo.evaluation import evaluate
from zoo.evaluation import log_probabilities
from zoo.evaluation import metrics
from zoo.evaluation import number_metrics
from zoo.inference import predict
from zoo.messages import check_names
from zoo.messages import some
from zoo.prediction import check_predictable
from zoo.prediction import class_names
from zoo.prediction import feature_names
from zoo.prediction import kind_of_outputs
from zoo.prediction import of_two_classes
from zoo.prediction import read_image
from zoo.pretrained import load_with_details

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def evaluate_files(name, data, label=None, progress=False):
    """The figures of a model on labelled images, or on the rows of a table, of one's own.

    Rows that it was trained on say little of others. All files are read and
    checked before anything is computed; images are scaled to the model's size (a
    model of any size is refused: `model.evaluate` takes arrays).

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
    kind, classes = kind_of_outputs(model, details), class_names(details, model.output_shape[1])
    images = len(model.input_shape) == 4
    if images != path.is_dir():
        takes = "images: give a folder of class folders" if images else "the rows of a table: give a CSV file"
        raise ValueError(f"{str(name)!r} takes {takes}; received {path}")
    if images:
        if kind == "number" or label:
            what = "--label is for a CSV" if label else f"{str(name)!r} predicts a number, a class folder has none"
            raise ValueError(f"{what}; the images of {path} have the names of their folders as labels")
        x, y, _ = read_image_folders(path, model.input_shape[1:], classes)
    else:
        x, y = _read_labelled_rows(path, label, kind, model, details, classes)
    if kind == "classes":
        return evaluate(model, Dataset(str(path), x[:0], y[:0], x, y, tuple(classes), (), ""), progress=progress)
    outputs = predict(model, x, progress=progress)
    if kind == "number":
        return number_metrics(outputs[:, 0], y)
    return metrics(log_probabilities(of_two_classes(outputs), are_probabilities=True), y)


def _read_labelled_rows(path, label, kind, model, details, classes):
    """Inputs of a CSV for the model, and the numbers of their classes or the numbers that they have."""
    header, rows = read_csv(path)
    table = tables.Table.from_json(details["table"]) if "table" in details else None
    label = label or (table.target if table else "label")
    if label not in header:
        raise ValueError(
            f"{path} has no column {label!r} to compare with; its columns are {some(header)}; give --label"
        )
    inputs = table.feature_names() if table else feature_names(model, details)  # an ignored column is none of them
    if label in inputs:
        raise ValueError(f"column {label!r} of {path} is one of the model's inputs; give that of the truth by --label")
    place = header.index(label)
    others = [*header[:place], *header[place + 1 :]]
    without = [(line, [*row[:place], *row[place + 1 :]]) for line, row in rows]
    x = tables.encode(table, path, others, without) if table else read_columns(path, others, without, inputs)
    if kind == "number":
        return x, np.array([finite_number(path, line, label, row[place]) for line, row in rows])
    number = {name: place for place, name in enumerate(classes)}
    texts = [row[place].strip() for _, row in rows]
    for (line, _), text in zip(rows, texts, strict=True):
        if text not in number:
            what = f"the label {text!r}" if text else "no label"
            raise ValueError(
                f"{path} line {line}, column {label!r} has {what}; expected one of the model's {len(classes)} classes: "
                f"{some(classes)}"
            )
    return x, np.array([number[text] for text in texts])


def read_image_folders(folder, shape, known=None):
    """All images under class folders, as uint8 (N, *shape), labels and class names.

    Args:
        folder: The folder of the class folders.
        shape: Height, width and channels to scale to.
        known: Names of classes, of which the folders are to be some, in the order
            of their labels. `None` takes the folders, sorted, for the classes: two
            or more, each with two images or more, so that one can be held out.

    Raises:
        ValueError: there are fewer, or others, or an image cannot be read.
    """
    if None in shape or shape[-1] not in (1, 3):
        raise ValueError(f"the model takes inputs of shape {shape}; expected images of one size, grey or RGB")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    least, words = (2, "two or more") if known is None else (1, "one or more")
    if len(found) < least:
        raise ValueError(f"{folder} has {len(found)} class folders; expected {words}, each with the images of a class")
    classes = tuple(path.name for path in found) if known is None else tuple(known)
    check_names([path.name for path in found], classes, f"class folder of {folder}:")
    files, labels, left_out = [], [], collections.Counter()
    for path in found:
        there = [file for file in path.iterdir() if not file.name.startswith(".")]
        images = sorted(file for file in there if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        left_out += collections.Counter(
            "folders" if file.is_dir() else file.suffix or "no suffix" for file in set(there) - set(images)
        )
        if len(images) < least:
            why = ", so that one can be held out" if least > 1 else ""
            raise ValueError(f"{path} has {len(images)} images; expected {words}{why}")
        files += images
        labels += [classes.index(path.name)] * len(images)
    if left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
        print(
            f"{folder}: {left_out.total()} entries of class folders are left out as no images ({kinds})",
            file=sys.stderr,
        )
    pixels = np.empty((len(files), *shape), "uint8")
    for place, file in enumerate(files):
        pixels[place] = read_image(file, shape)
    return pixels, np.array(labels), classes
