"""Self-normalizing networks on tables, and the six networks that the paper compares them with.

Klambauer et al., 2017 (https://arxiv.org/abs/1706.02515). `snn_mlp8` is 8
Dense layers with SELU, LeCun-normal initialisation, zero biases and alpha
dropout, on inputs of mean 0 and variance 1. The rivals are of ReLU and He
normal ("Microsoft weight initialization") initialisation:

| name | each layer | paper's name, method's source |
|---|---|---|
| `relu_mlp` | Dense -> ReLU -> dropout | MSRAinit, He et al., 2015 |
| `batchnorm_mlp` | Dense -> ReLU -> batch norm | BatchNorm, Ioffe and Szegedy, 2015 |
| `layernorm_mlp` | Dense -> layer norm -> ReLU | LayerNorm, Ba et al., 2016 |
| `weightnorm_mlp` | weight-normalized Dense -> ReLU | WeightNorm, Salimans and Kingma, 2016 |
| `highway_mlp` | x + gate(x) * (relu(Dense(x)) - x) | Highway, Srivastava et al., 2015 |
| `residual_mlp` | relu(x + block(x)) | ResNet, He et al., 2016 |

The paper's grid (Tables A4 to A10) is overrides: `depth` 2, 3, 4, 8, 16 or 32
hidden layers (blocks of `residual_mlp`, up to 16), `width` 256, 512 or 1024,
alpha dropout 0 or 0.05, dropout 0 or 0.5 of `relu_mlp` and `highway_mlp`, and
two forms: "rectangular" keeps the width; "conic" shrinks it geometrically
towards the number of classes. The residual blocks have 2 or 3 layers and are
"rectangular" or "diavolo", whose middle narrows to 25 or 50 %.

The paper's normal weights of variance 1 / fan_in are Keras's truncated ones of the
same variance, which the paper calls as good. Biases start at zero, as in the authors'
code; the output layer is initialised like the others, as there.

Where the paper is silent: the output ends the conic progression, so that no
hidden layer is as narrow as the classes. Highway layers, whose widths it does not
list, take the same ones as the others. Batch norm comes after the ReLU, as
in the authors' code for Fig. 1; layer norm before it, as in its own paper. The
first highway layer is a plain one, which brings the table to the width, and the
gates' biases start at -1 (Srivastava et al. propose -1 to -3). A residual
block is Dense -> batch norm -> ReLU, without the last ReLU until after the
addition, as in He et al., of 2 layers by default; in a diavolo block every layer but the last is narrow;
the first block's shortcut is a Dense layer without activation, which brings the
table to the width.
"""

import math
import numbers

import keras
from keras import layers

from keras_mpelu import OneHotColumns
from keras_mpelu import WeightNormalization
from zoo.graphs import functional_model
from zoo.options import check_integer
from zoo.options import check_rate
from zoo.registry import register_models

VARIANTS = {f"snn_mlp{depth}": {"depth": depth} for depth in (2, 3, 4, 8, 16, 32)}

RIVALS = {
    f"{method}_mlp": {"method": method}
    for method in ("relu", "batchnorm", "layernorm", "weightnorm", "highway", "residual")
}


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
    categories=None,
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
        categories: For every column the number of its integer codes, which
            become one-hot vectors inside the model, or 0 for a column of
            numbers. `mean` and `variance` are then those of the columns that
            come of it.
        name: Name of the model.

    Input shape:
        `(batch, num_features)`.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: depth, width, form or dropout is out of range.
    """
    inputs, x = table_input(depth, width, dropout, num_features, num_classes, mean, variance, categories)
    for number, units in enumerate(widths(depth, width, form, num_classes), start=1):
        x = layers.Dense(units, "selu", kernel_initializer="lecun_normal", name=f"hidden{number}")(x)
        # Also at rate 0, where it is the identity: the layers of a name do not depend on its rate.
        x = layers.AlphaDropout(dropout, name=f"hidden{number}_dropout")(x)
    return table_model(inputs, x, num_classes, classifier_activation, "lecun_normal", name)


@register_models(RIVALS)
def rival_mlp(
    method,
    depth=8,
    width=256,
    form="rectangular",
    dropout=0.0,
    block_layers=None,
    bottleneck=None,
    num_features=16,
    num_classes=2,
    classifier_activation="softmax",
    mean=0.0,
    variance=1.0,
    categories=None,
    name=None,
):
    """Builds one of the networks that the paper compares self-normalizing ones with.

    Args:
        method: `"relu"`, `"batchnorm"`, `"layernorm"`, `"weightnorm"`,
            `"highway"` or `"residual"`.
        depth: Hidden layers, or residual blocks, 1 or more.
        width: Units of the first hidden layer, or of each block.
        form: `"rectangular"`, or `"conic"`; of highway layers only
            `"rectangular"`; of residual blocks `"rectangular"` or `"diavolo"`.
        dropout: Rate of the dropout after each hidden layer or block.
        block_layers: Layers of a residual block, 2 (`None`) or 3 in the paper.
        bottleneck: Width of a diavolo block's middle, as a fraction of
            `width`; 0.25 or 0.5 (`None`) in the paper.
        num_features: Columns of the input.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        mean: Per-column mean of the training rows, or one number.
        variance: Per-column variance, or one number.
        categories: As of `snn_mlp`.
        name: Name of the model.

    Input shape:
        `(batch, num_features)`.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: the method is unknown, a number or the form is not one that
            it takes, or an option has no effect on it.
    """
    if method not in BLOCKS:
        raise ValueError(f"method is one of {', '.join(BLOCKS)}; received {method!r}")
    block, forms = BLOCKS[method]
    if form not in forms:
        raise ValueError(f"the form of {method!r} is {' or '.join(map(repr, forms))}; received {form!r}")
    if block_layers is not None and method != "residual":
        raise ValueError(f"block_layers is for residual blocks; received {block_layers!r} for {method!r}")
    if bottleneck is not None and form != "diavolo":
        raise ValueError(f"bottleneck is for form='diavolo'; received {bottleneck!r} with form={form!r}")
    block_layers = 2 if block_layers is None else block_layers
    bottleneck = 0.5 if bottleneck is None else bottleneck
    check_integer("block_layers", block_layers, least=2)
    if not isinstance(bottleneck, numbers.Real) or not 0 < bottleneck <= 1:
        raise ValueError(f"bottleneck is a fraction, above 0 and at most 1; received {bottleneck!r}")
    inputs, x = table_input(depth, width, dropout, num_features, num_classes, mean, variance, categories)
    for number, units in enumerate(widths(depth, width, form, num_classes), start=1):
        inner = [max(1, round(bottleneck * units)) if form == "diavolo" else units] * (block_layers - 1)
        x = block(x, units, f"hidden{number}", inner)
        x = layers.Dropout(dropout, name=f"hidden{number}_dropout")(x)
    return table_model(inputs, x, num_classes, classifier_activation, "he_normal", name)


def dense(x, units, name, activation=None, **options):
    return layers.Dense(units, activation, kernel_initializer="he_normal", name=name, **options)(x)


def relu_layer(x, units, name, _):
    return dense(x, units, name, "relu")


def batchnorm_layer(x, units, name, _):
    return layers.BatchNormalization(name=f"{name}_bn")(dense(x, units, name, "relu"))


def layernorm_layer(x, units, name, _):
    return layers.ReLU(name=f"{name}_act")(layers.LayerNormalization(name=f"{name}_ln")(dense(x, units, name)))


def weightnorm_layer(x, units, name, _):
    inner = layers.Dense(units, "relu", kernel_initializer="he_normal", name="dense")
    return WeightNormalization(inner, name=name)(x)


def highway_layer(x, units, name, _):
    if name == "hidden1":
        return dense(x, units, name, "relu")
    gate = dense(x, units, f"{name}_gate", "sigmoid", bias_initializer=keras.initializers.Constant(-1.0))
    change = layers.Subtract(name=f"{name}_change")([dense(x, units, name, "relu"), x])
    return layers.Add(name=f"{name}_add")([x, layers.Multiply(name=f"{name}_carry")([gate, change])])


def residual_block(x, units, name, inner):
    shortcut = dense(x, units, f"{name}_shortcut") if name == "hidden1" else x
    for number, size in enumerate(inner, start=1):
        x = layers.BatchNormalization(name=f"{name}_bn{number}")(
            dense(x, size, f"{name}_dense{number}", use_bias=False)
        )
        x = layers.ReLU(name=f"{name}_act{number}")(x)
    last = len(inner) + 1
    x = layers.BatchNormalization(name=f"{name}_bn{last}")(dense(x, units, f"{name}_dense{last}", use_bias=False))
    return layers.ReLU(name=f"{name}_act{last}")(layers.Add(name=f"{name}_add")([x, shortcut]))


BLOCKS = {
    "relu": (relu_layer, ("rectangular", "conic")),
    "batchnorm": (batchnorm_layer, ("rectangular", "conic")),
    "layernorm": (layernorm_layer, ("rectangular", "conic")),
    "weightnorm": (weightnorm_layer, ("rectangular", "conic")),
    "highway": (highway_layer, ("rectangular",)),
    "residual": (residual_block, ("rectangular", "diavolo")),
}


def table_input(depth, width, dropout, num_features, num_classes, mean, variance, categories):
    """A table's input, and the tensor after the standardisation inside the model; checks the numbers."""
    check_integer("depth", depth)
    check_integer("width", width)
    check_integer("num_features", num_features)
    check_integer("num_classes", num_classes)
    check_rate("dropout", dropout)
    inputs = x = keras.Input((num_features,), name="table", dtype="float32")
    if categories is not None:
        if len(categories) != num_features:
            raise ValueError(f"categories has one size per column, {num_features}; received {len(categories)}")
        x = OneHotColumns(categories, dtype="float32", name="categories")(x)
    preprocess = layers.Normalization(
        mean=_per_column(mean, x.shape[-1], "mean"),
        variance=_per_column(variance, x.shape[-1], "variance", least=0.0),
        dtype="float32",
        name="preprocess",
    )
    return inputs, preprocess(x)


def table_model(inputs, x, num_classes, classifier_activation, kernel_initializer, name):
    """Closes a network: the features and the classifier."""
    x = layers.Identity(name="features")(x)
    x = layers.Dense(
        num_classes, classifier_activation, kernel_initializer=kernel_initializer, dtype="float32", name="classifier"
    )(x)
    return functional_model(inputs, x, name)


def widths(depth, width, form, num_classes):
    """Units of each hidden layer.

    Example:

    >>> widths(4, 1024, "conic", 3)
    [1024, 238, 55, 13]
    """
    if form in ("rectangular", "diavolo"):
        return [width] * depth
    if form == "conic":
        return [round(width * (num_classes / width) ** (layer / depth)) for layer in range(depth)]
    raise ValueError(f"form is 'rectangular' or 'conic'; received {form!r}")


def _per_column(values, num_features, what, least=-math.inf):
    values = [float(v) for v in values] if hasattr(values, "__len__") else [float(values)] * num_features
    if len(values) != num_features:
        raise ValueError(f"{what} has one value per column, {num_features}; received {len(values)}")
    # A variance of 0 is that of a constant column, which Keras divides by its epsilon: 0 / epsilon is 0.
    if wrong := [value for value in values if not least <= value < math.inf]:
        raise ValueError(f"{what} is finite{' and not negative' if least == 0 else ''}; received {wrong[0]!r}")
    return values


# Accuracy in the paper: its UCI tasks are other files and splits than scikit-learn's bundled sets.
PAPER = {}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "snn_mlp2.wine": "6ef11c26b9d1604c3181a6d6fd50a7715d46bde71f6f3ef3c292497a80dcfe21",
    "snn_mlp4.breast_cancer": "f8b54651e2c3375142f93cc52c21a44d425c5ce12f2d7057e845cf91906c53dd",
    "snn_mlp4.digits": "540dfa0547354f140439a7b95e5447e57e44ac47f988ab758d56248cd93a8ea6",
}
