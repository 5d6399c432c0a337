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
from zoo.image_model import classifier_model
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
    if form not in ("rectangular", "conic"):
        raise ValueError(f"form is 'rectangular' or 'conic'; received {form!r}")
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
    features = layers.Identity(name="features")(x)
    return classifier_model(inputs, features, num_classes, classifier_activation, kernel_initializer, name)


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


SOURCE = "Klambauer et al., 2017 (https://arxiv.org/abs/1706.02515)"

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
    "snn_mlp2.uci-abalone": "888e7774a111973fb3c9127457467d6aedadda808a51f42042f567e2fc916149",
    "snn_mlp2.uci-adult": "dbb4da8af5ffafe82dd1d3e8cf04bd545cd4043c7d2ddff5f9adec71b0297965",
    "snn_mlp2.uci-bank": "67ed70a253f4625914a9eec874e311dd3bc3fe7f554634fa79c7f5c7ec0be6e9",
    "snn_mlp2.uci-cardiotocography-3clases": "b9813a909acd9d2ec37a398cd9e28f64b55acbe4666db222da56ea3a36b776dc",
    "snn_mlp2.uci-cardiotocography-10clases": "5b2d47c487843ae8bf1446bde6f9d56736e29fddd7e66e8fa57a9246914b3225",
    "snn_mlp2.uci-chess-krvkp": "82f766d187a2ed2c056065ff685304e4c1772af70a9a5caaf28235fc45a517d6",
    "snn_mlp2.uci-connect-4": "64a10e0b710be210d3bb074a1c9a57edc9b934fdeab95ca8a6ad31bff60b31a2",
    "snn_mlp2.uci-contrac": "8360e6bf4fb8a3976d8dddd4fcf8684d6f193e6ec076fa77ad55d32cff719cd8",
    "snn_mlp2.uci-ecoli": "26e86279265c90c99574ae26fabf4fbbc7053b31afc6b02c7c698493c5df78fc",
    "snn_mlp2.uci-glass": "35ef1b03dfc7fc7d3d42829f87b424e98bc54b405fcb437ed01a119b43244c5c",
    "snn_mlp2.uci-magic": "5f8d257b0e9bd3f7ee4f0131d68e435d62434c318981dbcdee0342bdc599d65a",
    "snn_mlp2.uci-molec-biol-splice": "8b8b978aa917195fa9dfad69d251799957eeb28b16512e4b2eb6e7c138d82e0a",
    "snn_mlp2.uci-mushroom": "c3a90d91c434776f201f68e6acdda243f7c5c02d0adb0fe35b5ffb408fc38019",
    "snn_mlp2.uci-optical": "c1451209fb840a15c17f0b0c6b44fe78f6f2ad5b1eb8d56de9a7fdd4539ab60e",
    "snn_mlp2.uci-ozone": "d0d76d92531d489e26916c4e55a8e28e1b22f833a7eaf5db039314c642269b02",
    "snn_mlp2.uci-page-blocks": "8a8ecbf233f78c8d0fb5e03331accc3c8c164c688fceb4243d74542d6fa20e9a",
    "snn_mlp2.uci-ringnorm": "414c5f5837af61b8d83dfebda285b6f8966481df1af9c17c3fb239508ea38e6a",
    "snn_mlp2.uci-semeion": "fbdef76288d819f76ece16f3cc424537ceac8cfa9f2325b9e27fccd0397a1f0e",
    "snn_mlp2.uci-spambase": "5d9285e7109f0a79c2fe67f17b549c4055da20f15fe55e3a1b85292bd93f0d98",
    "snn_mlp2.uci-statlog-german-credit": "b152e05558627e3d9244cfde03ef13b16180cac6606f12d755318ddb64d4e9cc",
    "snn_mlp2.uci-statlog-image": "ccccff2b2e8fcc2d924d94fbf48ab5e3f1856566b2a5052dd5e1fb2bceee7bea",
    "snn_mlp2.uci-statlog-vehicle": "5b30eddda5c220ed2cececa8e93c7cb1c7b7876e31c02fff904d2b873b5de9b4",
    "snn_mlp2.uci-steel-plates": "cd90bd8b57ab7eb64802529619bb42554b9ff909c267edf38ffbdee145b37b63",
    "snn_mlp2.uci-thyroid": "da225d8563fc2da67ecc838a96263b192f9ab7a013527ff8e98c8b4e2ae489a5",
    "snn_mlp2.uci-titanic": "9c8534a9ee939cb11055db0d20eec49c8d58e8c111beb9e7c933091be4b83906",
    "snn_mlp2.uci-twonorm": "59eba38787e39a0de29317c4e294ac973ae70f887122228331b19fc7fa81ccdf",
    "snn_mlp2.uci-wall-following": "1d368c44e79219aac0abcf4b0680e65a8ed67b2ce117731bd1edc02d41a20b1e",
    "snn_mlp2.uci-waveform": "416b8e9b6cae5e7e9509dc6ef26e92c5c27f27bf597cfee65531140e2be41a2a",
    "snn_mlp2.uci-waveform-noise": "24a6bc5d040e670f1cc693f62f9abea903399adb0c8b73e905e1b158ad6fe22c",
    "snn_mlp2.uci-wine-quality-white": "21e9a9a376cd50d16ab28ec5ba5340afade082184a19e8dd9967e605e7cf3934",
    "snn_mlp2.uci-yeast": "3294cc2da94607f8f2848d0cf56496479eb7d01e1477807b94711128edcf60b0",
    "snn_mlp2.wine": "dacab8eb436f00cdaa45a4f75031739722161f9f1aeaf4915dc9afa6e5bf3aff",
    "snn_mlp4.breast_cancer": "8aee58d1d3fcf0366568e7c43088c8ff213fd0d6969a2e56d713a604bb7c0cd3",
    "snn_mlp4.digits": "1ba464eb2432da2d2683a211210d58d498868de6091e616a83d45b3c1a808a63",
    "snn_mlp8.uci-balance-scale": "175ccded3e87b4b3a1df80ff1040a0155781588c6391ae0e2ec7c1009dfb3c0f",
    "snn_mlp8.uci-car": "b92482bf47a91c41992850e50964bba875ea01c00a1ea5f2165fc5caddd031c4",
    "snn_mlp8.uci-chess-krvk": "31b76f1a4f5f2f28096835e14b0024cbb9ebb8ef26c4cecb8d4655a7059a4caa",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "3ebe6d12998cacad52cc7bc329cdd822358bbac28911144d284c1f02534cf436",
    "snn_mlp8.uci-image-segmentation": "96fe2e4a05ab63c2fead5c1a20b85a4bd123b3e1897d5237b0d0c22209314a08",
    "snn_mlp8.uci-ionosphere": "5aee89c7e84262a597d3f07b149473523b1caf5f9293b75a928e8f33f5cbb734",
    "snn_mlp8.uci-iris": "964ad3b2ac6b412b48254fced85258940556dc8c3cac596df79afd6047e2cf5d",
    "snn_mlp8.uci-letter": "0c728506feb02167ac8954ef1981216fbe8ce20de3fa3ffd200e8adf00fe6a68",
    "snn_mlp8.uci-musk-2": "d9adc62d704e50e42b663808076c1a755e4997bc04f38ab77e9d987d50960acf",
    "snn_mlp8.uci-nursery": "2e0a6e3685fefd5140bba24ab3efcce1fb210a25f2913a82eb1ac4ebd2689a52",
    "snn_mlp8.uci-pendigits": "c1579dc32e4cb7deae15ef330c86041f88ae35a07f5b909ddaa03ad6df500a08",
    "snn_mlp8.uci-statlog-landsat": "e0cf746faef42bae28cd02c3ea67a97b8b79b3fee1284ce9a728a8bdc982aa2c",
    "snn_mlp8.uci-statlog-shuttle": "949a3046e03062f101100c4da6a65e9645c04daecbc483b965fd64d5693c5dff",
}
