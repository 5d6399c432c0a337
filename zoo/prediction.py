"""Predictions for files: images of any size, and the rows of a CSV."""

import pathlib

import keras
import numpy as np

from zoo import tables
from zoo.csv_files import read_table
from zoo.details import read_details
from zoo.evaluation import check_finite
from zoo.evaluation import log_probabilities
from zoo.folders import find_folder
from zoo.heads import activation_of
from zoo.heads import check_classifier
from zoo.heads import gives_probabilities
from zoo.heads import last_operation
from zoo.heads import sum_to_one
from zoo.inference import run
from zoo.messages import some
from zoo.options import check_integer
from zoo.pretrained import load_with_details


def predict_files(name, files):
    """The five likeliest classes for each image or CSV row, or the number that a model of numbers predicts.

    A model that was made of one's own table takes that table as it is.

    All files are read before anything is predicted, so a bad one loses nothing.

    Args:
        name: A name or folder for `zoo.load_model`.
        files: Paths of images or of CSV files with a header.

    Returns:
        A list of `{"input": ..., "top5": [(class name, probability), ...]}`, or
        of `{"input": ..., "value": number}`.

    Raises:
        ValueError: a file is not what the model takes.
        OSError: a file cannot be read.
        FloatingPointError: an output is not finite.
    """
    files = list(files)
    for path in map(pathlib.Path, files):  # before the model, which takes seconds to load
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the files in it, such as {path / '*'}")
        if not path.exists():
            raise FileNotFoundError(f"no file {str(path)!r}")
    model, details = load_with_details(name)
    check_predictable(model, details)
    kind = kind_of_outputs(model, details)
    inputs, labels = [], []
    for file in files:
        if len(model.input_shape) == 4:
            rows, names = read_image(file, model.input_shape[1:])[None], [str(file)]
        else:
            rows = read_rows(file, model, details)
            names = [f"{file} row {number}" for number in range(1, len(rows) + 1)]
        inputs.append(rows)
        labels += names
    if not inputs:  # no files, such as those of a pattern that fits none
        return []
    if len({rows.shape[1:] for rows in inputs}) == 1:
        inputs = [np.concatenate(inputs)]
    outputs = np.concatenate([run(model, rows) for rows in inputs])  # images of their own sizes one by one
    check_finite(outputs)
    if kind == "number":
        return [{"input": label, "value": float(value)} for label, value in zip(labels, outputs[:, 0], strict=True)]
    if kind == "second":
        probabilities = of_two_classes(outputs)
    else:
        probabilities = np.exp(log_probabilities(outputs, gives_probabilities(model, outputs)))
    best = _likeliest(probabilities, class_names(details, model.output_shape[1]), 5)
    return [{"input": label, "top5": top} for label, top in zip(labels, best, strict=True)]


def _likeliest(probabilities, classes, top):
    """The likeliest classes of each row, as `[(name, probability), ...]`."""
    best = np.argsort(-probabilities, axis=1)[:, :top]
    return [
        [(classes[k], round(float(row[k]), 6)) for k in order] for row, order in zip(probabilities, best, strict=True)
    ]


def decode_predictions(predictions, name, top=5):
    """Names the likeliest classes of what `model.predict` gave, as in `keras.applications`.

    Args:
        predictions: Probabilities, an array of shape `(rows, classes)`.
        name: The model's name, folder or address, as for `zoo.load_model`.
        top: How many classes of each row.

    Returns:
        A list of `[(class name, probability), ...]`, likeliest first, one for
        each row.

    Raises:
        ValueError: these are no probabilities of the model's classes.

    Example:

    >>> model = zoo.load_model("snn_mlp2.wine")
    >>> predictions = model.predict(zoo.load_dataset("wine").x_test[:1], verbose=0)
    >>> zoo.decode_predictions(predictions, "snn_mlp2.wine", top=1)[0][0][0]
    'class_1'
    """
    check_integer("top", top)
    predictions = keras.ops.convert_to_numpy(predictions)
    if predictions.ndim != 2:
        raise ValueError(f"expected predictions of shape (rows, classes); received shape {predictions.shape}")
    if not sum_to_one(predictions):
        sums = predictions.astype("float64").sum(axis=1)
        raise ValueError(
            f"expected probabilities, which sum to 1 in each row; received rows of sums {sums.min():.4g} to "
            f"{sums.max():.4g}, numbers from {predictions.min():.4g}; of logits take keras.ops.softmax first"
        )
    folder, _ = find_folder(name)
    details = read_details(folder)
    names = class_names(details, predictions.shape[1])
    if len(names) != predictions.shape[1]:
        raise ValueError(f"{name} has {len(names)} classes; received predictions of {predictions.shape[1]}")
    return _likeliest(predictions, names, top)


def encode_rows(rows, name):
    """Rows of one's own table as the numbers that its model takes in `model.predict`.

    The model that `python -m training finetune ... --target COLUMN` makes of a
    table takes codes in place of texts; its folder says which.

    Args:
        rows: A list of `{column: value}`, each with the same columns, as
            pandas has them in `frame.to_dict("records")`. `None`, NaN and
            `pandas.NA` are missing cells; the target may be there. Texts are
            those of the file that the model was trained on.
        name: The model's folder or address, as for `zoo.load_model`.

    Returns:
        A float32 array of shape `(rows, numbers)`.

    Raises:
        ValueError: the model is not of a table of one's own, the rows are no
            dictionaries, a column is missing or one too many, or a value of a
            column of numbers is none.

    Example:

    >>> from zoo.tables import Column, Table
    >>> columns = Column("colour", "category", vocabulary=("blue", "red")), Column("size", "number", fill=2.5)
    >>> details = {"table": Table(columns, target="price").to_json()}
    >>> folder = zoo.save_model(zoo.create_model("snn_mlp2", num_features=2, width=4), "shop", details)
    >>> zoo.encode_rows([{"colour": "red", "size": 7}, {"colour": None, "size": None}], "./shop").tolist()
    [[2.0, 7.0], [0.0, 2.5]]
    """
    details = read_details(find_folder(name)[0])
    if "table" not in details:
        raise ValueError(f"{name} was not made of a table of one's own; give model.predict the numbers themselves")
    table, rows = tables.Table.from_json(details["table"]), list(rows)
    if not rows:
        return np.zeros((0, len(table.feature_names())), "float32")
    header = list(rows[0])
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(
                f"rows is a list of dictionaries, {{column: value}}; received a {type(row).__name__} in it; of a "
                'pandas frame give frame.to_dict("records")'
            )
        if set(row) != set(header):
            raise ValueError(f"row {number} has the columns {some(list(row))}, the first one {some(header)}")
    known = {column.name: column.vocabulary for column in table.columns if column.kind == "category"}

    def text_of(name, value):
        text = "" if value is None else str(value)
        if isinstance(value, float) and value.is_integer() and text not in known.get(name, [text]):
            return str(int(value))  # pandas has a column of whole numbers with missing ones as floats
        return text

    cells = [(number, [text_of(name, row[name]) for name in header]) for number, row in enumerate(rows, start=1)]
    return tables.encode(table, "this table", header, cells)


def kind_of_outputs(model, details):
    """`"classes"`, `"second"` (the probability of the second of two classes alone) or `"number"`.

    Raises:
        ValueError: there are several outputs, which are not of classes.
    """
    if model.output_shape[1] != 1:
        check_classifier(model)
        return "classes"
    sigmoid = activation_of(last_operation(model)) == "sigmoid"
    two_classes = details.get("task") != "regression" and len(details.get("class_names", ())) == 2
    return "second" if sigmoid and two_classes else "number"


def of_two_classes(outputs):
    """Probabilities of both classes from those of the second."""
    return np.concatenate([1 - outputs, outputs], axis=1)


def class_names(details, count):
    return details.get("class_names") or [str(number) for number in range(count)]


def check_predictable(model, details):
    """Raises ValueError where files cannot be the inputs of a model, or its outputs no classes."""
    inputs, outputs = model.input_shape, model.output_shape
    use = "; call it yourself: zoo.load_model(...).predict(...)"
    if not isinstance(inputs, tuple) or not isinstance(outputs, tuple):
        raise ValueError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each{use}"
        )
    if len(outputs) != 2:
        raise ValueError(f"{model.name} gives outputs of shape {outputs[1:]}, expected one number a class{use}")
    image = len(inputs) == 4 and inputs[3] in (1, 3)
    row = len(inputs) == 2 and (inputs[1] or details.get("feature_names") or details.get("table"))
    if not (image or row) or model.inputs[0].dtype == "string":
        raise ValueError(
            f"{model.name} takes inputs of shape {inputs[1:]} and dtype {model.inputs[0].dtype}, expected images "
            f"(height, width, 1 or 3) or rows of a fixed number of columns{use}"
        )


def read_rows(path, model, details):
    """The rows of a CSV as the model takes them: encoded as its own table was, else numbers."""
    if "table" in details:
        return tables.read_rows(tables.Table.from_json(details["table"]), path)
    return read_table(path, feature_names(model, details))


def feature_names(model, details):
    return details.get("feature_names") or [f"column {number}" for number in range(model.input_shape[1])]


def read_image(path, shape):
    """An image file as a uint8 array of the wanted shape (height, width, 1 or 3), scaled if need be.

    A height or width of `None` is the image's own.
    """
    from PIL import Image
    from PIL import ImageOps
    from PIL import UnidentifiedImageError

    path = pathlib.Path(path)
    height, width, channels = shape
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; expected an image (PNG, JPEG, WebP, ...)")
    try:
        with Image.open(path) as image:
            image = eight_bits(ImageOps.exif_transpose(image), "L" if channels == 1 else "RGB", image.format)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that Pillow can read; expected PNG, JPEG, WebP, ...") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} is a damaged or unusable image: {error}; save it anew") from error
    size = width or image.width, height or image.height
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[..., None] if channels == 1 else pixels


def eight_bits(image, mode, file_format):
    """An image in a mode; 16-bit grey is scaled to 8 bits, where Pillow alone would cut it off at 255."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("it has floating-point pixels, whose range is unknown")
    if not image.mode.startswith("I"):
        return image.convert(mode)
    grey = np.asarray(image)
    lowest, highest = grey.min(), grey.max()
    if lowest < 0 or highest > 65535:
        raise ValueError(f"it has 32-bit pixels from {lowest} to {highest}, expected 0 to 255 or 0 to 65535")
    # Mode I;16 is of 16 bits. Mode I is of 32, but Pillow reads 16-bit PGM in it too, and older versions 16-bit PNG:
    # these are scaled whatever they hold, or an almost black one would come out bright. In other files, such as TIFF,
    # only the pixels tell, and 8 bits stored as 32 are likelier than a picture of 16 that is all but black.
    if image.mode != "I" or file_format in ("PNG", "PPM") or highest > 255:
        grey = grey // 257
    return Image.fromarray(grey.astype("uint8")).convert(mode)
