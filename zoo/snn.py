"""Self-normalizing networks on tables: multilayer perceptrons with SELU.

Klambauer et al., 2017 (https://arxiv.org/abs/1706.02515): Dense layers with
SELU, LeCun-normal initialisation, zero biases and alpha dropout, on inputs of
mean 0 and variance 1. `snn_mlp8` has 8 hidden layers; the paper's grid is 2, 3,
4, 8, 16 and 32 layers of 256, 512 or 1024 units, alpha dropout 0 or 0.05, and
two forms (Table A4): "rectangular" keeps the width; "conic" shrinks it
geometrically towards the number of classes. The paper does not say whether
the last hidden layer or the output ends the progression; here it is the output,
so that no hidden layer is as narrow as the classes.
"""

import keras
from keras import layers

from zoo.graphs import functional_model
from zoo.registry import register_models

VARIANTS = {f"snn_mlp{depth}": {"depth": depth} for depth in (2, 3, 4, 8, 16, 32)}


@register_models(VARIANTS)
def snn_mlp(
    depth,
    width=256,
    form="rectangular",
    dropout=0.05,
    num_features=16,
    num_classes=2,
    classifier_activation="softmax",
    mean=0.0,
    variance=1.0,
    name=None,
):
    """Builds a self-normalizing multilayer perceptron.

    Args:
        depth: Hidden layers, 1 or more.
        width: Units of the first hidden layer.
        form: `"rectangular"` or `"conic"`.
        dropout: Rate of the alpha dropout after each hidden layer, 0 <= rate < 1.
        num_features: Columns of the input.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        mean: Per-column mean of the training rows, or one number; subtracted
            inside the model.
        variance: Per-column variance, or one number; inside the model.
        name: Name of the model.

    Input shape:
        `(batch, num_features)`.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: depth, width, form or dropout is out of range.
    """
    if depth < 1 or width < 1 or num_features < 1 or num_classes < 1:
        raise ValueError(
            "depth, width, num_features and num_classes are 1 or more; received "
            f"depth={depth!r}, width={width!r}, num_features={num_features!r}, num_classes={num_classes!r}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is at least 0 and below 1; received {dropout!r}")
    inputs = keras.Input((num_features,), name="table", dtype="float32")
    x = layers.Normalization(
        mean=_per_column(mean, num_features, "mean"),
        variance=_per_column(variance, num_features, "variance"),
        dtype="float32",
        name="preprocess",
    )(inputs)
    for number, units in enumerate(widths(depth, width, form, num_classes), start=1):
        x = layers.Dense(units, "selu", kernel_initializer="lecun_normal", name=f"hidden{number}")(x)
        # Also at rate 0, where it is the identity: the layers of a name do not depend on its rate.
        x = layers.AlphaDropout(dropout, name=f"hidden{number}_dropout")(x)
    x = layers.Identity(name="features")(x)
    x = layers.Dense(
        num_classes, classifier_activation, kernel_initializer="lecun_normal", dtype="float32", name="classifier"
    )(x)
    return functional_model(inputs, x, name)


def widths(depth, width, form, num_classes):
    """Units of each hidden layer.

    Example:

    >>> widths(4, 1024, "conic", 3)
    [1024, 238, 55, 13]
    """
    if form == "rectangular":
        return [width] * depth
    if form == "conic":
        return [round(width * (num_classes / width) ** (layer / depth)) for layer in range(depth)]
    raise ValueError(f"form is 'rectangular' or 'conic'; received {form!r}")


def _per_column(values, num_features, what):
    values = [float(v) for v in values] if hasattr(values, "__len__") else [float(values)] * num_features
    if len(values) != num_features:
        raise ValueError(f"{what} has one value per column, {num_features}; received {len(values)}")
    return values


# Accuracy in the paper: its UCI tasks are other files and splits than scikit-learn's bundled sets.
PAPER = {}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "snn_mlp2.wine": "0c30510d7dd41894e0d333fa30e3ffb72df776112aea409e21d5a1634363c9ed",
    "snn_mlp4.breast_cancer": "0a7fa264d6acc55e60e5dcda63b7e58e472bda484174bad404e332ad2d1f7730",
    "snn_mlp4.digits": "d3ca47939b158fcb273a858a5b3d96080d6e410bd73bd009890de9e95bbfbf6c",
}
