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
    "snn_mlp2.uci-abalone": "c59ddb00a6b1fbfc4d1f3540f323b5d714e24dc52de11301515dee9082b50561",
    "snn_mlp2.uci-adult": "7323d9a20dc01d9d38b96082a4ff1190dded0476e5acd8280527f37a98e7e606",
    "snn_mlp2.uci-bank": "128c232899fd7e4c4d8be7796782fdd292ac8a91aa7436c9c0013baa47905249",
    "snn_mlp2.uci-cardiotocography-3clases": "cbbdeb8bb9dbac7fb34817e898825df22a38fc701d26dd7c7c0e841e6aa017e8",
    "snn_mlp2.uci-cardiotocography-10clases": "b5a77377f29b047c9d875b0b8bea46829efe0bd94ed9bf9b053ee6dccb349857",
    "snn_mlp2.uci-chess-krvkp": "2b2edf8b8cab5c14fc2e72ec89ad0a4eacf304ca1c214b246238adf425086bc2",
    "snn_mlp2.uci-connect-4": "c6a68fe72e80e3c0ee4ce459eccb7dc7e2fecf14637e1e6d5cca8a47afd4011d",
    "snn_mlp2.uci-contrac": "c91dbe2001294b1ad7802edf76b2fbd40a50d43f78d0947599b6e842c9ca1b85",
    "snn_mlp2.uci-ecoli": "36cdc9926394fdcf60f81643b303bc82eeed6aa1f592f8b134080b314fd90985",
    "snn_mlp2.uci-glass": "11f38eee78961da50de3458eec3751367feb2b1b06ec2724d51992fb9d296d10",
    "snn_mlp2.uci-magic": "d4464f8d3ee04314228908cfd6d8da7d0f318dbbfb5eb71e7ba6eb6fa96b940d",
    "snn_mlp2.uci-molec-biol-splice": "c34f4ded6df67142414dd3b52ea55ee6ff66efccb906defa4c1b3d35dc0ffef7",
    "snn_mlp2.uci-mushroom": "ee352367949f7a3a6f54cff3d17095882dbc9a17b1fad95bd7698bcd307874ff",
    "snn_mlp2.uci-optical": "25b812ab4277e6915be3c92593452428e7ec6380c7b4fb9d43da313d81e2da30",
    "snn_mlp2.uci-ozone": "488d1c8569ae931d8d4caad98cf7cd9a0327e2bf8eade3cbba07168c0be86f1e",
    "snn_mlp2.uci-page-blocks": "9a97954d6989e2e438469d9127490b3a058925b6ef28a5e908caabfed0136b76",
    "snn_mlp2.uci-ringnorm": "c929afb42604b0458d9e8360cabe5c6e30f5ea9a098087afeaf82d867116a531",
    "snn_mlp2.uci-semeion": "ee3761d430c454ebc956f7e79d9bb961b9655d4e5f45cd6d63b125ae8307e6df",
    "snn_mlp2.uci-spambase": "809548665656ad85a639ac6d266354435c5fb5016cb0b805d850991d2b2fa438",
    "snn_mlp2.uci-statlog-german-credit": "876a7837a78b999bb63d8ea76599076231c193fc874931060a25e3981f228f64",
    "snn_mlp2.uci-statlog-image": "7ebeac131e2edfe946f1d174950bfc3543486c69f3141fda17cbfaf016fcae05",
    "snn_mlp2.uci-statlog-vehicle": "a84819f4e35c173ff1df6135420011e92af385edfb6c9c585569c99eb069af7e",
    "snn_mlp2.uci-steel-plates": "66909287048a9f81871fe4358467e75b46f2988b8dca9643996d19f6bc54996d",
    "snn_mlp2.uci-thyroid": "5e514f828e3a2780601a1a94ef3e374e4f3e8f6a379f289256d98595a28a254d",
    "snn_mlp2.uci-titanic": "f89a24a79870913e4ceb98d42a5fcd37ffd18f53628fe8d12b92ce14dc706acf",
    "snn_mlp2.uci-twonorm": "e8dba7d51537d8974119479b56fdd5d24051fcd9a54b3da0f0e65900c49eae6e",
    "snn_mlp2.uci-wall-following": "67ea8869987b39432e5ac048fd954f3e3715799f6dea532dd5ea79767a9a4e2a",
    "snn_mlp2.uci-waveform": "ce4c506a2670dc212a700abaf6e00310039d1194aeca26d049fcf490699cae2f",
    "snn_mlp2.uci-waveform-noise": "236f52e5127ac0ee6e09540ab78193ba3b460b601c430d2f231344f73c95765d",
    "snn_mlp2.uci-wine-quality-white": "3287353663cbeedbb28f998552014cf88b65f3e65fda7ba9bb2518bb71876e52",
    "snn_mlp2.uci-yeast": "878d8479055690d32977ba1dd3a8e6814720a598b29e40ca95a0d17c9fdc801c",
    "snn_mlp2.wine": "6ef11c26b9d1604c3181a6d6fd50a7715d46bde71f6f3ef3c292497a80dcfe21",
    "snn_mlp4.breast_cancer": "f8b54651e2c3375142f93cc52c21a44d425c5ce12f2d7057e845cf91906c53dd",
    "snn_mlp4.digits": "540dfa0547354f140439a7b95e5447e57e44ac47f988ab758d56248cd93a8ea6",
    "snn_mlp8.uci-balance-scale": "db4a94ad9dc6b91336b4ce4aa35c2ed9e72d51240addc8c7040f61eb95de6950",
    "snn_mlp8.uci-car": "113538f8493906d2939b64ca77639330453167a361f5bb6407e13114f7e21ad0",
    "snn_mlp8.uci-chess-krvk": "5957391ccea7687565aeda79d7efbccc3b4b342649df3c8d128ea193bdf6407f",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "6d3a8eaed64663926b5ad1201989ef5f872afae7ca8425cb3004d016178798b8",
    "snn_mlp8.uci-image-segmentation": "43a812496bc26821973e7712c7fe2c51f04c95371f1f3ce3d5b0ec85571de556",
    "snn_mlp8.uci-ionosphere": "7d35ced6f21093ae60d61fae3fade132c1f261b76e3c63f8f41135d030c05a7c",
    "snn_mlp8.uci-iris": "ccc9821142946cdcc3dce7f9f1723c5fe58e9307b4cd27e18da7df71bbe413e5",
    "snn_mlp8.uci-letter": "4263b0a904dc5d191453885cd46ab124cba9b292bea901f68c1b85be63569251",
    "snn_mlp8.uci-musk-2": "facac7b7e62abbc8a05d3bb328f4b011fa30cbb6ac4b2ac763acb226d37bb8c5",
    "snn_mlp8.uci-nursery": "f57e6be75a2e4b03bc8fa9332480a1dcd4db48e976e767ad36a4db7b4e14c7b2",
    "snn_mlp8.uci-pendigits": "52e9515309c5648092367b71a62e866fe8dc46d797f2e10f8c04a93844308dd0",
    "snn_mlp8.uci-statlog-landsat": "143bf2aa57ead4ca9aff654b83a3e5fa8e3ec9176fa5b9f2c31bb726c347e348",
    "snn_mlp8.uci-statlog-shuttle": "bf33ed4fb97e322630bc5575286de6cd4cbe76a251f5927dbfe1c071618a5372",
}
