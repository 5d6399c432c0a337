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
    "snn_mlp2.uci-abalone": "552c24aff6e46fc0d25e208a49400ff140cb8fef934f291b3425e65f3bbcdae7",
    "snn_mlp2.uci-adult": "d2a7d8fd73241edf1f9c8bef2f227d3dd58de5b89cc093163aab56cfc5d78d93",
    "snn_mlp2.uci-bank": "ad1682534ab4ba9f7238cb5b1c624ed42a7219e1ab33e11507fa4b4021196a6f",
    "snn_mlp2.uci-cardiotocography-3clases": "dbc9d80ac4431c41bb050fa6852e228cc0096d3296926df29d8894c6fb711883",
    "snn_mlp2.uci-cardiotocography-10clases": "ae39c8a429561c646eb3b648a762f0f514b6e2ee15edb3e55db125f9b1fdeb52",
    "snn_mlp2.uci-chess-krvkp": "3d9e55f53fe31f4d8f4f5c74027f75cc173cbefe148df60588d0af7099bf6a15",
    "snn_mlp2.uci-connect-4": "d59f8d133674480011470f09389d6936fa3b2a37963697d9d515ef6c76158a74",
    "snn_mlp2.uci-contrac": "b131492f0e2485cfc7a96334d19d032d79c5dc0c75f8fd3f9d13367bdbc25a08",
    "snn_mlp2.uci-ecoli": "b1cb80ab12f95a025069b6324af331cf7f7294eff7d1fd2b35cf7a2eb7708a21",
    "snn_mlp2.uci-glass": "c4e7bd7eb3a097485c73b719ae368111451c220dabf658db110a574db0ad9677",
    "snn_mlp2.uci-magic": "75b4296fffd15a39dc78d85bc1a02b5e234a530deddab618557714027eed50ae",
    "snn_mlp2.uci-molec-biol-splice": "c79782826529bfa87cfeb4e0105bcfdaf13ed980416753330e63ce4e48fcf2df",
    "snn_mlp2.uci-mushroom": "d36e2aac1b61387247c6e1743f7d8a7a5dc5d7984db8146f7721c3acb3a1b1a8",
    "snn_mlp2.uci-optical": "2d05bf64b50ce0a9c2b201c4689a10bbfef3abd18a39e5eeee94e59a8dfb03f5",
    "snn_mlp2.uci-ozone": "efeb10f83103fa7a5d2147c72a1c8f033a6f57bc164f6baeb0dd4789a3b7296a",
    "snn_mlp2.uci-page-blocks": "3ba8915b23a68b8acf360afa3b75421a40259f633a693b36a395d1165e034cac",
    "snn_mlp2.uci-ringnorm": "d18f22331013621aa9cc93af3d50bbdfab67c5fc2f820eaaac1f5db454f94b90",
    "snn_mlp2.uci-semeion": "c7bb1f8f7a3e877df6ec64e554357136f0dc4a18dc102723d21570a034b47523",
    "snn_mlp2.uci-spambase": "d74f27c8d72f0091e04607bb56c4c4cc201a19bd9838e4814ecc77e7e1661152",
    "snn_mlp2.uci-statlog-german-credit": "59697534f6249aae19017671a184eca275a4511d2c143db27d9de5e4c528da12",
    "snn_mlp2.uci-statlog-image": "4de93c4a7ab58c70fed307624d2b488ba9bc15ac9962b71008729f10b6f35ea3",
    "snn_mlp2.uci-statlog-vehicle": "51bf8646d8b2399e423d7a68abbb0cdcccd8594ebf1e27623964ecd444e075b9",
    "snn_mlp2.uci-steel-plates": "3aae7a62302ca87b759df3f310f04afb80d416b25ffd71a3df6e42bd49a4aee1",
    "snn_mlp2.uci-thyroid": "69f3ac5bdf89ec81ff400941c1818fe22992270933c33bad3c8320d70f4f2da3",
    "snn_mlp2.uci-titanic": "8a2daaa9738c8fd66f89c50e44593ef6d8d0ed814b6f6f5cab51885766594b7c",
    "snn_mlp2.uci-twonorm": "45673b2cacde92a7ced5c71f5eb0342d0ed17007b301d902c80e6b36cb154da7",
    "snn_mlp2.uci-wall-following": "b561ab0a1f7052efe81e7c23ce536c88bb768baf3599935a28830e1db47a5ce5",
    "snn_mlp2.uci-waveform": "6c1c0c0794081e7e19408a28042dc037358f7cd4e0248de2f136b362f4c31502",
    "snn_mlp2.uci-waveform-noise": "b2807a08fe853cb7415638eee200f9ec45bd132825bf03cd521debeb0b3e062a",
    "snn_mlp2.uci-wine-quality-white": "e5cf064cb3ba7c5a6842c2d3c93c8c3843321d9449c063d62cc1a572d23de6c8",
    "snn_mlp2.uci-yeast": "326a165bbd136eccc5dccbc76990ca61ffc38b095d8df9ffab1a7903769884e3",
    "snn_mlp2.wine": "6931ede1a4a3ae5ae6070403a4a7b84628339039ff733f82434e09ba2f8f451f",
    "snn_mlp4.breast_cancer": "26a75ea084c519988577cf8ae4a1292fe4ae9f4c5c0f0ba43bdd9a0a18af0a07",
    "snn_mlp4.digits": "5f8a3a4b7d32056194bb4c0e54291e59f3c9a33532ccc6617209fafc08edebf4",
    "snn_mlp8.uci-balance-scale": "7d568b215fb90c422a12ffb857bac7792e6a3d89485bd46b65452d2dbfe23567",
    "snn_mlp8.uci-car": "f02844bda4422e96971fef315308a8e599982aae4f8e389896b874169c647d2c",
    "snn_mlp8.uci-chess-krvk": "01d61dc94e7f75dd96ea388ab32371d417d0865128b4f99073e7c70fd59e28f8",
    "snn_mlp8.uci-conn-bench-vowel-deterding": "de5451970e96fb629ef0fc6a2238ddace79c7c710d91a698fefd80a6b529c121",
    "snn_mlp8.uci-image-segmentation": "b92ca65c80291220d2f5c221f917e4e7406974a05b6a6332c7ad5305cdd41846",
    "snn_mlp8.uci-ionosphere": "c907e80e7cdec65d47d2f6fccf6fa7e975269a68494f81285ecdfe4e626d7a6d",
    "snn_mlp8.uci-iris": "8116690f427e78447589f3be203d606d368c1d7a1da909a7d808fe7cd2825772",
    "snn_mlp8.uci-letter": "19970a880e466f31f229b8a55b4e3cc807d630789beb269e0029292a4fea4e96",
    "snn_mlp8.uci-musk-2": "753ba5a99bc0699b2ac9bdcf9dbaafb29df4af79ce568ae5dd6e92d6806c17a0",
    "snn_mlp8.uci-nursery": "6042794f3f56db75a5790fcfd3f040746161a08173e287d6402c81cfc7dbaa9e",
    "snn_mlp8.uci-pendigits": "bca5d32ff17499929de5f375bc9f6c729a1c9dfd06368a437c1ff245e75f54aa",
    "snn_mlp8.uci-statlog-landsat": "4fd80f449c55333acd40440b45fbb99139d02df173c7c459e142aff3f970fc56",
    "snn_mlp8.uci-statlog-shuttle": "2decbd9bdbe98186fcc550dfc7ebcf84cabe9d8e14001bff225bef2b3b1c8a08",
}
