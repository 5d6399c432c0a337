"""Accuracy, loss and calibration of a model on the test rows of a data set."""

import os

import keras
import numpy as np

from zoo.datasets import CIFAR100_SUPERCLASSES
from zoo.datasets import Dataset
from zoo.datasets import load_dataset
from zoo.heads import check_classifier
from zoo.heads import gives_probabilities
from zoo.heads import with_logits
from zoo.inference import predict
from zoo.options import check_integer
from zoo.pretrained import load_with_details

CALIBRATION_BINS = 15  # Guo et al., 2017


def evaluate(model, dataset, batch_size=256, progress=False):
    """Runs a model on the test rows of a data set.

    Args:
        model: A `keras.Model` that ends in softmax or in logits, or what
            `zoo.load_model` takes: a name, a folder, an address on the Hub.
        dataset: A `Dataset`, a name for `zoo.load_dataset`, or a pair of arrays
            of your own: inputs as the model takes them, and labels from 0, of
            shape `(n,)` or `(n, 1)`.
        batch_size: Rows at a time.
        progress: Whether to show a progress bar.

    Returns:
        A dictionary: `loss` (mean cross-entropy, nats), `top1` and `top5`
        (fractions; `top5` is 1 by definition up to five classes), `ece`
        (expected calibration error in 15 bins of equal width), `rows`.

    Raises:
        ValueError: the data do not fit the model, or are split otherwise than
            those that it was trained on.

    Example:

    >>> figures = zoo.evaluate("snn_mlp4.digits", "digits")
    >>> figures["rows"]
    360

    Reference:

    - [Guo et al., 2017](https://arxiv.org/abs/1706.04599) for `ece`
    """
    check_integer("batch_size", batch_size)
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        x, y = (keras.ops.convert_to_numpy(part) for part in dataset)
        y = y[:, 0] if y.shape[1:] == (1,) else y  # as keras.datasets.cifar100 has them
        dataset = Dataset("your data", x[:0], y[:0], x, y, (), (), "")
    if not isinstance(dataset, str) and not hasattr(dataset, "x_test"):
        raise ValueError(
            f"dataset is a zoo.Dataset, its name, or a pair of arrays (x, y); received {type(dataset).__name__}"
        )
    details = {}
    if isinstance(model, str | os.PathLike):
        model, details = load_with_details(model)
    dataset = load_dataset(dataset) if isinstance(dataset, str) else dataset
    check_same_data(details, dataset)
    check_fit(model, dataset)
    # By the logits: float32 softmax outputs run out of digits for the unlikely classes, where top-5 is decided.
    model = with_logits(model)
    outputs = predict(model, dataset.x_test, batch_size, progress)
    return metrics(log_probabilities(outputs, gives_probabilities(model, outputs)), dataset.y_test)


def check_same_data(details, dataset):
    """Raises ValueError where the rows are not those of the model's own split: some may have been trained on."""
    known = details.get("data", {})
    if known.get("name") == dataset.name and known.get("sha256") not in (None, dataset.sha256):
        raise ValueError(
            f"{dataset.name} is not split as it was for {details['name']}: sha256 {dataset.sha256}, expected "
            f"{known['sha256']}; its test rows may hold training rows. recipe.json names the versions of the split"
        )


def check_fit(model, dataset):
    """Raises ValueError where a data set cannot be a model's: shape, dtype, values or labels."""
    check_classifier(model)
    if dataset.x_test.dtype.kind not in "fiu" or dataset.y_test.dtype.kind not in "iu":
        raise ValueError(
            f"{dataset.name} has inputs of dtype {dataset.x_test.dtype} and labels of {dataset.y_test.dtype}; expected "
            "numbers and integers"
        )
    if dataset.y_test.ndim != 1 or not len(dataset.x_test) == len(dataset.y_test) > 0:
        raise ValueError(
            f"{dataset.name} has test inputs of shape {dataset.x_test.shape} and labels of {dataset.y_test.shape}; "
            "expected one label for each of one or more rows (of one-hot vectors take the argmax)"
        )
    expected, received = model.input_shape[1:], dataset.x_test.shape[1:]
    if len(expected) != len(received) or any(e not in (None, r) for e, r in zip(expected, received, strict=True)):
        raise ValueError(f"{model.name} takes inputs of shape {expected}; {dataset.name} has {received}")
    if not np.isfinite(dataset.x_test).all():
        raise ValueError(f"{dataset.name} has inputs that are not finite numbers; fill or drop these rows")
    lowest, highest = int(dataset.y_test.min()), int(dataset.y_test.max())
    if lowest < 0:
        raise ValueError(f"{dataset.name} has label {lowest}; labels count from 0; shift them, or drop what has none")
    if highest >= model.output_shape[-1]:
        raise ValueError(
            f"{model.name} knows the classes 0 to {model.output_shape[-1] - 1}; {dataset.name} has label {highest}; "
            f"load the model with num_classes={highest + 1} and train it"
        )


def log_probabilities(outputs, are_probabilities):
    """Log probabilities in float64, from softmax outputs or logits."""
    outputs = outputs.astype("float64")
    if are_probabilities:
        return np.log(np.clip(outputs, np.finfo("float32").tiny, None))
    outputs -= outputs.max(axis=1, keepdims=True)
    return outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))


def check_finite(outputs):
    if not np.isfinite(outputs).all():
        raise FloatingPointError("the model's outputs are not finite: training diverged; lower the learning rate")


def metrics(log_probability, labels):
    """The figures of `evaluate`, from log probabilities (rows, classes).

    Raises:
        FloatingPointError: a log probability is not finite.
    """
    check_finite(log_probability)
    rows = np.arange(len(labels))
    true = log_probability[rows, labels][:, None]
    # Ties count against the model, so that constant outputs score no top-5.
    rank = (log_probability >= true).sum(axis=1)
    confidence = np.exp(log_probability.max(axis=1))
    correct = log_probability.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return {
        "loss": float(-true.mean()),
        "top1": float(correct.mean()),
        "top5": float((rank <= 5).mean()),
        "ece": float(np.abs(gap).sum() / len(labels)),
        "rows": len(labels),
    }


def number_metrics(outputs, truth):
    """Figures of predicted numbers: root mean squared and mean absolute error, and R2 where the true ones differ.

    Raises:
        FloatingPointError: a prediction is not finite.
    """
    check_finite(outputs)
    error = outputs - truth
    figures = {
        "rows": len(truth),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
    }
    if np.ptp(truth) > 0:  # else there is no variance of which a share could be explained
        figures["r2"] = float(1 - np.sum(error**2) / np.sum((truth - truth.mean()) ** 2))
    return figures


def top1_by_superclass(predicted, labels, class_names):
    """Share of right answers among the rows of each CIFAR-100 superclass, by its name.

    Right is the fine class, so that the mean over the rows is top-1.
    """
    of_class = {fine: coarse for coarse, group in CIFAR100_SUPERCLASSES.items() for fine in group}
    superclass = np.array([of_class[name] for name in class_names])[labels]
    return {name: float((predicted == labels)[superclass == name].mean()) for name in CIFAR100_SUPERCLASSES}
