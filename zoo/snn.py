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


# Accuracy in the paper, Table A11, of its SNN of any depth (scikit-learn's bundled sets are other files and splits).
PAPER = {
    "snn_mlp2.uci-abalone": "0.6657",
    "snn_mlp2.uci-adult": "0.8476",
    "snn_mlp2.uci-bank": "0.8903",
    "snn_mlp2.uci-cardiotocography-3clases": "0.9153",
    "snn_mlp2.uci-cardiotocography-10clases": "0.8399",
    "snn_mlp2.uci-chess-krvkp": "0.9912",
    "snn_mlp2.uci-connect-4": "0.8807",
    "snn_mlp2.uci-contrac": "0.5190",
    "snn_mlp2.uci-ecoli": "0.8929",
    "snn_mlp2.uci-glass": "0.7358",
    "snn_mlp2.uci-magic": "0.8692",
    "snn_mlp2.uci-molec-biol-splice": "0.9009",
    "snn_mlp2.uci-mushroom": "1.0000",
    "snn_mlp2.uci-optical": "0.9711",
    "snn_mlp2.uci-ozone": "0.9700",
    "snn_mlp2.uci-page-blocks": "0.9583",
    "snn_mlp2.uci-ringnorm": "0.9751",
    "snn_mlp2.uci-semeion": "0.9196",
    "snn_mlp2.uci-spambase": "0.9409",
    "snn_mlp2.uci-statlog-german-credit": "0.7560",
    "snn_mlp2.uci-statlog-image": "0.9549",
    "snn_mlp2.uci-statlog-vehicle": "0.8009",
    "snn_mlp2.uci-steel-plates": "0.7835",
    "snn_mlp2.uci-thyroid": "0.9816",
    "snn_mlp2.uci-titanic": "0.7836",
    "snn_mlp2.uci-twonorm": "0.9805",
    "snn_mlp2.uci-wall-following": "0.9098",
    "snn_mlp2.uci-waveform": "0.8480",
    "snn_mlp2.uci-waveform-noise": "0.8608",
    "snn_mlp2.uci-wine-quality-white": "0.6373",
    "snn_mlp2.uci-yeast": "0.6307",
    "snn_mlp8.uci-balance-scale": "0.9231",
    "snn_mlp8.uci-car": "0.9838",
    "snn_mlp8.uci-chess-krvk": "0.8805",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "0.9957",
    "snn_mlp8.uci-image-segmentation": "0.9114",
    "snn_mlp8.uci-ionosphere": "0.8864",
    "snn_mlp8.uci-iris": "0.9730",
    "snn_mlp8.uci-letter": "0.9726",
    "snn_mlp8.uci-musk-2": "0.9891",
    "snn_mlp8.uci-nursery": "0.9978",
    "snn_mlp8.uci-pendigits": "0.9706",
    "snn_mlp8.uci-statlog-landsat": "0.9100",
    "snn_mlp8.uci-statlog-shuttle": "0.9990",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "snn_mlp2.uci-abalone": "bec5084d16a2f7f57f9ab8700e0a1d5befb44522e7f3f58564c4663a647eaf54",
    "snn_mlp2.uci-adult": "35feb073b654e1260aba5b1246b56e2c237aa65a4227a72922e6a1f2be6e0d2b",
    "snn_mlp2.uci-bank": "a36c478b01076945b58e7ce3abeb031a0191e11a99d19ff25da035c9b299445a",
    "snn_mlp2.uci-cardiotocography-3clases": "712b214b12f71675e40ea055ab129b3d676d1749d1cd9032bdd5719c3f28f161",
    "snn_mlp2.uci-cardiotocography-10clases": "c1ee5502e0155515154cc3f86c3a598d9a94d0feef4d293be66be93f0ccbb26b",
    "snn_mlp2.uci-chess-krvkp": "2001f0f902663bbcafd10d51a5e85c519593b9c56c61806556e7e8ddba4f0b46",
    "snn_mlp2.uci-connect-4": "a562f7a241fb8a0d6b9aeaaf96ad21a5c493446eec13eca8a7cd52114f362460",
    "snn_mlp2.uci-contrac": "5e2268cf61d5aeb018275add70f6f683ae7ef60ea8eeb8c067199b94e629fdc5",
    "snn_mlp2.uci-ecoli": "a263b37dcb29028b3b9a106b2e05143cc40ef29cebdc2d0022de7dc88b942d25",
    "snn_mlp2.uci-glass": "cae3cd556939754a3452034f90527fe4db85e72b4283d79585529ba3536b282b",
    "snn_mlp2.uci-magic": "0cdd7bc06195f32012bb40f0802f5078020c72e9308df09491453a6a3a6a1a7e",
    "snn_mlp2.uci-molec-biol-splice": "dcace7b155f64990afa4f4d448e45fc03c785a00aface9510299d10adca0e932",
    "snn_mlp2.uci-mushroom": "c6a8fd769411a126412efbcb3e4c5fe0ff4187750bacef3bb22197e35d274647",
    "snn_mlp2.uci-optical": "b3b16f2c4bc6a52fac44051502d28372cd7497ae7641f4ac1bb8dd91275913ee",
    "snn_mlp2.uci-ozone": "f78c35f291ca6da40c3ea2b7062d9d8f88d42b6a283e912c4318c511b8cd099e",
    "snn_mlp2.uci-page-blocks": "72d61b5cf2e5750f792c806d65c0ee249bb3051aeb30af7c403730401f9b27b4",
    "snn_mlp2.uci-ringnorm": "9769eac2251656ee78dfba73c5626dfd9a66b2348a168f78756dff7f3501423c",
    "snn_mlp2.uci-semeion": "e844266d805bec62cfd287331bf814cd74e1eec30f7df532e6cc5b4db6327d93",
    "snn_mlp2.uci-spambase": "514c07d4dbcbaf17a06ff94879ba153a645d15be80e638f67ecf46f3f16e6dd1",
    "snn_mlp2.uci-statlog-german-credit": "91e516dff7eb3b0ea06624acdf81bcb48669df165209f09dc9c3e1f1529d6f52",
    "snn_mlp2.uci-statlog-image": "575be6cc23ccb2bd7fa3b335d973bd2007c544186744aa52f9cbd45499054211",
    "snn_mlp2.uci-statlog-vehicle": "ef2f4410ea93fc025617fb6b61914c92ca71d75223f91d0b2624f7b0a240e01a",
    "snn_mlp2.uci-steel-plates": "f651f27008bc85409ee90cfb1f8de652010407787426a4f2de58e7d46adccc77",
    "snn_mlp2.uci-thyroid": "59ab3711139e92f6519818bf0ccf273cab48bc1785ab53df09ec4630bb1b238e",
    "snn_mlp2.uci-titanic": "41cd550347637c2d3a65d595972be7ae76fef2289e733fa8b56c48c037bc96ea",
    "snn_mlp2.uci-twonorm": "1389acca316f36699eec350bb331b54ecc0cfa8a7bf13002aebe7bb2aa6d9981",
    "snn_mlp2.uci-wall-following": "530fb9fcd2eb65e8a6df981161e0bf75bad5b8dcc7b7c35ac3aedc4b852d2784",
    "snn_mlp2.uci-waveform": "50e93164c3282b3fe9d82c94763de1817b6cde109729976b5c7110daaa400e09",
    "snn_mlp2.uci-waveform-noise": "f03dbf8b651cb12c39cc5d4790eae4639c333bd701ad2857d9d63dda72febbc5",
    "snn_mlp2.uci-wine-quality-white": "c07b2b5b2cd40dde5bbbf96859eb3272fa5db1fefbecb9d08ea5dd711c24aeae",
    "snn_mlp2.uci-yeast": "39aa40b7e24f988cd96abcb5b1e69d85169d7b94a81b724b1df4afe6e8d6359a",
    "snn_mlp2.wine": "6ef11c26b9d1604c3181a6d6fd50a7715d46bde71f6f3ef3c292497a80dcfe21",
    "snn_mlp4.breast_cancer": "f8b54651e2c3375142f93cc52c21a44d425c5ce12f2d7057e845cf91906c53dd",
    "snn_mlp4.digits": "540dfa0547354f140439a7b95e5447e57e44ac47f988ab758d56248cd93a8ea6",
    "snn_mlp8.uci-balance-scale": "0c8de3af8da93a6e19320334319fa15adb9df8d7ede45c818419f5afeb057b92",
    "snn_mlp8.uci-car": "7505bc9868cea5b0680df7cfacce5d1339f8568de9aa03cfc8c40bf98da61cbe",
    "snn_mlp8.uci-chess-krvk": "f678c7fa6d48c2ea58648da59caa5991842b2183b71235846fd4ab45306acb65",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "2deed6653c782d760254fe2acb7fc90bb24042f423e5d10926b3a5a3d0fcfd6b",
    "snn_mlp8.uci-image-segmentation": "2b9992ece2247a8e21cc81c616a54fdfa0cdfebc022986a2d6dd373439be62f7",
    "snn_mlp8.uci-ionosphere": "c3ca1721fe3a5fdee628928c6d24f801bcec4355f5e10b876862168200fdd3e9",
    "snn_mlp8.uci-iris": "ee2ac27d3691fdb8e55fbbf78c4855d2cb8ffe5676b29404f88bfb601765ad6b",
    "snn_mlp8.uci-letter": "df6ef1151e0fec2707a09607ea0c3d6b86dcf04a10bd2f0f39a335b1c7cecc48",
    "snn_mlp8.uci-musk-2": "2230cdc1dcf830b4355c9a94fdce91791f7ba7b969d3bac1a964958f5193e4ce",
    "snn_mlp8.uci-nursery": "1da357c79b845d18bc0afaf18f3888f855289546cdfbadd9198c0479c398b0a0",
    "snn_mlp8.uci-pendigits": "73e6cdd9b0a4e48f449d65fcddb43fc476999b474a4a34f8c86df386c110f097",
    "snn_mlp8.uci-statlog-landsat": "956c2604e740e8b1a01ff89cf4efbfc7df53a5a22fe883c2f2bea40270a3c340",
    "snn_mlp8.uci-statlog-shuttle": "e53c825cd43aa04eb9a43d99795f58d2b74e3b22d08697527c4838361adf77dd",
}
