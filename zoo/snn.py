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
    if form not in ("rectangular", "conic"):
        raise ValueError(f"form is 'rectangular' or 'conic'; received {form!r}")
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


# Of batch norm's statistics: with Keras's own 0.99 they are still partly the initial ones after the some hundred steps
# that small tables have.
MOMENTUM = 0.9


def relu_layer(x, units, name, _):
    return dense(x, units, name, "relu")


def batchnorm_layer(x, units, name, _):
    return layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(dense(x, units, name, "relu"))


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
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn{number}")(
            dense(x, size, f"{name}_dense{number}", use_bias=False)
        )
        x = layers.ReLU(name=f"{name}_act{number}")(x)
    last = len(inner) + 1
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn{last}")(
        dense(x, units, f"{name}_dense{last}", use_bias=False)
    )
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
    """Units of each hidden layer; in a form other than `"conic"` all have the width.

    Example:

    >>> widths(4, 1024, "conic", 3)
    [1024, 238, 55, 13]
    """
    if form == "conic":
        return [round(width * (num_classes / width) ** (layer / depth)) for layer in range(depth)]
    return [width] * depth


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
    "snn_mlp2.uci-abalone": "5d82b1bb57b9fb01bcedb8f60415190bb6984be01e636675bf0a89552a49fd30",
    "snn_mlp2.uci-adult": "a97516849f3c14038fb362cbee2bd2cafd69fd7fa968ac0fa4035f64c0c23ac8",
    "snn_mlp2.uci-bank": "e6e703232b2a44eae84ffc4ed0cbe72439ea685f6390265bfb9b2d4397447c86",
    "snn_mlp2.uci-cardiotocography-3clases": "93e0b86f7910debe24bed80cd1a14955371eed8f5b6e857c55aee6baad22c239",
    "snn_mlp2.uci-cardiotocography-10clases": "c694319cd0b3415226f60386bf1b1de53f6f1bdea9fe7eb7af9bfe71b3a6da2e",
    "snn_mlp2.uci-chess-krvkp": "c936098ff33f2d730fd1dba6b4f9507f0e576c89d837a0804784111473133c36",
    "snn_mlp2.uci-connect-4": "d521be9a63f345e7f0d0e165275ed642298acf7f7e2b1d7dfb5582c769ff9188",
    "snn_mlp2.uci-contrac": "57953ba763fe1eacc0c6462f7f0d3da4f6230c5c0fb9447904c11e6d4d8f6918",
    "snn_mlp2.uci-ecoli": "1adbcee2e84c1f35c7f3dde8a059cf0b7b0fbb7ba7d9ab57c27253db78fa05d8",
    "snn_mlp2.uci-glass": "740f7a0ee3a0c9f601758b21ce69d3e2534743e3c7b1102dd576003a0d4c212b",
    "snn_mlp2.uci-magic": "47fe0b1c1ed2a6f32ac439f7148ca742a901a435a6bba2ff4c8e579ee775d87e",
    "snn_mlp2.uci-molec-biol-splice": "1543b36ee247299605b81f598826a28ad81be71e33fb0738870a5044962407f7",
    "snn_mlp2.uci-mushroom": "f5cc32780eb9c51fb1ec8f91355b37d7105c53effd88232933fe7d9c09ecc68b",
    "snn_mlp2.uci-optical": "2c3d2f1f8313d152b4a29b7a65a241c56923c1aff37a80fe6f4df87c6be2c587",
    "snn_mlp2.uci-ozone": "007ce7accffb405d6ff49bc1b746a4f8f1839efd91d1e36de8b4ffcdc74f44e9",
    "snn_mlp2.uci-page-blocks": "609fa07e99f43251cf68837d729c23aff9f4d09e261dd45a645928a89e5b6c40",
    "snn_mlp2.uci-ringnorm": "db4bb84ca9612300b1cce089c83382a2d5e1797ca19db5032799d4454f18ba26",
    "snn_mlp2.uci-semeion": "166048181b9cd62571b59f1ca250473166fa461c1b5afdcdddab448f5f4a979f",
    "snn_mlp2.uci-spambase": "fb8588cda8a8472b47e1bc4560cac7036519fc6cc5ab13c863046b52c1202c50",
    "snn_mlp2.uci-statlog-german-credit": "57e8033c5181e368222400ac9800e75b74273ac0e04d04f65b33e9f6995c4f11",
    "snn_mlp2.uci-statlog-image": "5df492375da744aa6f35e4aba3889beeba3055a35b1d7bad1e1c6afc6e42355e",
    "snn_mlp2.uci-statlog-vehicle": "c1f93c4ab24bf2c4911d8b9f56a368b32ef8c573d74a91257068ee1fb00df543",
    "snn_mlp2.uci-steel-plates": "a31c4f9bc25a1c0224758856cbacc6a7b2fa7a7381184cd4af1426269126ea7a",
    "snn_mlp2.uci-thyroid": "166355f4887591c3af11a91b99f11468fe9027ae872450c31cd54885ab2d76d7",
    "snn_mlp2.uci-titanic": "46ea06ea8e6942be59c2410dfd0b853e6f15c1a2587063639cd0378e79935edb",
    "snn_mlp2.uci-twonorm": "248ccf6839ff24aa48cb15a7091e21e6caa8295b270f8d40daf009de9bc552c5",
    "snn_mlp2.uci-wall-following": "7f613590460899d57f0193c37b08b673531207652a573711535b241745e76dcc",
    "snn_mlp2.uci-waveform": "5e2bdb2258dbc34ffb688902a8c4df6b47376f5d0083ef589dfdd78daa0e3c55",
    "snn_mlp2.uci-waveform-noise": "21379d921454b86254ab9d38518a5d54dc0293d39e5bf2f4225f425064f4453d",
    "snn_mlp2.uci-wine-quality-white": "fb18f50c2b021b7c295613774891056dd17724fd04dd772096b75699a585e0b1",
    "snn_mlp2.uci-yeast": "249f6f1ec229fdbba827ec6da7c0a137b4a07da0365e787cd3085a3e4f4a14ec",
    "snn_mlp2.wine": "dacab8eb436f00cdaa45a4f75031739722161f9f1aeaf4915dc9afa6e5bf3aff",
    "snn_mlp4.breast_cancer": "8aee58d1d3fcf0366568e7c43088c8ff213fd0d6969a2e56d713a604bb7c0cd3",
    "snn_mlp4.digits": "1ba464eb2432da2d2683a211210d58d498868de6091e616a83d45b3c1a808a63",
    "snn_mlp8.uci-balance-scale": "01f66ec0e1e8a848fda46d70fee5ebb4d5ec04fee41f5ec21fc8b44f40dcbd44",
    "snn_mlp8.uci-car": "0750e3dbb5f56a96eb6c3ca63abfa3edbb59f3cca33952b848ac7e2930c47164",
    "snn_mlp8.uci-chess-krvk": "51d469d108e87dd8d90d6349a3166c6dcce924320cd8403314e2cd59fa721048",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "452652426d78fa36de34c78faf02336a94689fcf9c2cd8dc327fa51a8b19e89a",
    "snn_mlp8.uci-image-segmentation": "40873e2c7171fc44b80929652518d13b256324288716191dd958b5f77d9a1518",
    "snn_mlp8.uci-ionosphere": "a5cee0699b294e0a0c633e8d14141811d76ebb3f96102d109b09d46c402bde39",
    "snn_mlp8.uci-iris": "bd878d9ada3b923b8b12f04ca9ccce7a605cb6c897513fcba1983c634a445f9d",
    "snn_mlp8.uci-letter": "2d0d190697092ffa66b1404b38a70ebc6a62162fe0a1c24b168e8cc48d3617e8",
    "snn_mlp8.uci-musk-2": "e754f67f92a9f846bbef49d049b200f9e9ab0f493bca6b610da3399e7ce45545",
    "snn_mlp8.uci-nursery": "2866725efe2027a76efeb4f29459946a34833cb37a604cc8391fa8d9301a57b5",
    "snn_mlp8.uci-pendigits": "c235db938c94740e7f43eb821ff5582f67061cef25786361af95291eddd122b3",
    "snn_mlp8.uci-statlog-landsat": "af4d6145749e0aceef4457c59c8ae202625187fe7df0b845630d982264dd2e7b",
    "snn_mlp8.uci-statlog-shuttle": "198373e3b9bfa31e220c3113f5b2ee26183502c4f2469ac954d71fe331bc3605",
}
