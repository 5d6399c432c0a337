"""Plain networks of 15, 30 and 52 layers, without shortcuts.

Li et al., 2018 (https://arxiv.org/abs/1606.00305), sections 4.2 to 4.5, after
the authors' Caffe files for ImageNet:

    conv 7x7, 64, stride 2 -> max pool 3, stride 3
    4 convs 2x2, 128, padding 0, 1, 0, 1 -> max pool 2, stride 2
    7 convs 2x2, 256, padding 0, 1, 0, 1, 0, 1, 1; further ones with padding 1
    spatial pyramid of 4 levels -> 4096 -> 4096 -> classes

with biases everywhere and an activation after every layer but the last. Depth
15 is 12 convolutions and 3 dense layers; 30 and 52 add 15 and 37 convolutions. Activation,
initialisation and batch norm ("BNoScale": before the activation, without gamma
and beta) are chosen independently, as in the paper's comparisons.

Parameters at 1000 classes with ReLU or ELU: 111,956,456 at depth 15,
115,892,456 at 30, 121,665,256 at 52.

`*_small_plain*` are siblings of CIFAR's size for the depth experiments, ours: a
3x3 stem with stride 1 and pooling 2, 32, 64 and 128 channels, 512 units in the dense layers, a
pyramid of 3 levels, and padding that alternates to the end, so that the last maps
are 7 or 8 pixels wide and depth adds no memory.

Where the sources differ, the files: maps alternate between 36 and 37, then 18 and 19
pixels, where the text says 36 and 18, and grow by a pixel a layer from the 12th
convolution on. As in the files, batch norm is on at depth 15 and off at 30 and
52, which have dropout 0.5 in the dense layers instead. The first pooling pads
a pixel on each side (Caffe: two on the right); the pyramid's bins are He et al.'s (Caffe's
are equal windows, padded). Kernels of the convolutions are MPELUNormal with the fan
in by default (the files of PReLU with He's take the fan out: `fan_mode="fan_out"`), those of the dense layers
Gaussian, 0.01 at depth 15, else 0.005, 0.005 and 0.01, as in most files (the paper says 0.01 throughout; at depth
15 those with Gaussian convolutions have 0.005, 0.005 and 0.01, and ReLU's at depth 30 0.01, 0.01 and 0.001); in the
small siblings as the convolutions', but 0.01 for the last. MPELU starts at alpha 1; the paper's
0.25 and 0 are the override `alpha`. Batch norm's statistics move
by a tenth a step (the files leave Caffe's default). The paper subtracts the mean; here images are also divided by their
deviation (`std=(1, 1, 1)` takes that away).
"""

import keras
from keras import layers

from keras_mpelu import SpatialPyramidPooling
from zoo.activations import Activation
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import IMAGENET_MEAN
from zoo.image_model import IMAGENET_STD
from zoo.image_model import classifier_model
from zoo.image_model import image_input
from zoo.options import check_integer
from zoo.options import check_rate
from zoo.registry import register_models

IMAGENET = {"small": False}
SMALL = {
    "small": True,
    "num_classes": 100,
    "input_shape": (32, 32, 3),
    "mean": CIFAR100_MEAN,
    "std": CIFAR100_STD,
}

VARIANTS = {
    f"{activation}_{prefix}plain{depth}": {"depth": depth, "activation": activation, **options}
    for activation in ("relu", "prelu", "elu", "mpelu")
    for prefix, options in (("", IMAGENET), ("small_", SMALL))
    for depth in (15, 30, 52)
}

INITIALIZERS = ("taylor", "he", "gaussian")
FAN_MODES = ("fan_in", "fan_out", "fan_avg")


@register_models(VARIANTS)
def plain_net(
    depth,
    activation,
    small=False,
    alpha=None,
    initializer="taylor",
    fan_mode=None,
    batch_norm=None,
    dropout=None,
    num_classes=1000,
    classifier_activation="softmax",
    input_shape=(224, 224, 3),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    name=None,
):
    """Builds a plain network.

    Args:
        depth: Weighted layers, 15 or more.
        activation: `"relu"`, `"prelu"`, `"elu"`, `"mpelu"` or `"leaky_relu"`.
        small: Whether to build the sibling of CIFAR's size.
        alpha: Initial alpha, or slope; `None` is 1 for ELU and MPELU, 0.25 for
            PReLU and leaky ReLU.
        initializer: Of the convolutions: `"taylor"`, `MPELUNormal` for the
            activation (for ReLU that is He's); `"he"`, He's whatever the
            activation; or `"gaussian"`, of deviation 0.01.
        fan_mode: `"fan_in"`, `"fan_out"` or `"fan_avg"`, for the first two;
            `None` is `"fan_in"`.
        batch_norm: Whether every layer but the last has batch norm. `None` is
            `True` up to depth 15.
        dropout: Rate after each of the two wide dense layers. `None` is 0
            with batch norm and 0.5 without; 0 adds no layer.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        input_shape: Height, width and channels; at least 79 x 79, or 17 x 17
            if `small`, so that every bin of the pyramid has a pixel of its own.
        mean: Per-channel mean of the images, subtracted inside the model.
        std: Per-channel standard deviation, divided by inside the model.
        name: Name of the model.

    Input shape:
        `(batch, *input_shape)`, values 0 to 255, uint8 or float.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: the depth is below 15, an option is unknown or contradicts
            another, or the image is too small for the strides.
    """
    check_integer("depth of a plain network (15, 30, 52 in the paper)", depth, least=15)
    if initializer not in INITIALIZERS:
        raise ValueError(f"initializer is one of {', '.join(INITIALIZERS)}; received {initializer!r}")
    if fan_mode is not None and (initializer == "gaussian" or fan_mode not in FAN_MODES):
        raise ValueError(
            f"fan_mode is one of {', '.join(FAN_MODES)}, for initializer='taylor' or 'he'; "
            f"received {fan_mode!r} with initializer={initializer!r}"
        )
    batch_norm = depth <= 15 if batch_norm is None else batch_norm
    dropout = (0.0 if batch_norm else 0.5) if dropout is None else dropout
    check_rate("dropout", dropout)
    act = Activation(activation, alpha)
    inputs, x = image_input(input_shape, mean, std, smallest=17 if small else 79)

    def kernel_initializer():
        if initializer == "gaussian":
            return keras.initializers.RandomNormal(stddev=0.01)
        return (act if initializer == "taylor" else Activation("relu")).kernel_initializer(fan_mode or "fan_in")

    def bn_act(x, prefix):
        if batch_norm:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, center=False, scale=False, name=f"{prefix}_bn")(x)
        return act(x, f"{prefix}_act")

    def conv(x, number, channels, size, stride=1, padding=0):
        if padding:
            x = layers.ZeroPadding2D(padding, name=f"conv{number}_pad")(x)
        layer = layers.Conv2D(
            channels, size, strides=stride, kernel_initializer=kernel_initializer(), name=f"conv{number}"
        )
        return bn_act(layer(x), f"conv{number}")

    widths = (32, 64, 128) if small else (64, 128, 256)
    if small:
        x = conv(x, 1, widths[0], 3, padding=1)
    else:
        x = conv(x, 1, widths[0], 7, stride=2)
    pool = 2 if small else 3
    x = layers.MaxPooling2D(pool, padding="same", name="conv1_pool")(x)
    for number in range(2, depth - 2):
        # Padding 0 and 1 by turns; the large networks have 1 from the twelfth convolution on.
        padding = 1 if number >= 12 and not small else number % 2
        x = conv(x, number, widths[1] if number < 6 else widths[2], 2, padding=padding)
        if number == 5:
            x = layers.MaxPooling2D(2, padding="same", name="conv5_pool")(x)
    x = SpatialPyramidPooling(3 if small else 4, name="pyramid")(x)
    for number in (1, 2):
        if small:
            dense = layers.Dense(512, kernel_initializer=kernel_initializer(), name=f"fc{number}")
        else:
            gaussian = keras.initializers.RandomNormal(stddev=0.01 if depth == 15 else 0.005)
            dense = layers.Dense(4096, kernel_initializer=gaussian, name=f"fc{number}")
        x = bn_act(dense(x), f"fc{number}")
        x = layers.Dropout(dropout, name=f"fc{number}_drop")(x) if dropout else x
    gaussian = keras.initializers.RandomNormal(stddev=0.01)
    return classifier_model(inputs, x, num_classes, classifier_activation, gaussian, name)


SOURCE = "Li et al., 2018 (https://arxiv.org/abs/1606.00305)"

# Top-1 accuracy in the paper, single centre crop: Table 2 (depth 15, with batch norm), Table 5 (depth 30, without).
# MPELU's at depth 15 are those that the text on Table 5 compares with, read as alpha = beta = 1 without decay.
PAPER = {
    "prelu_plain15.imagenet": "0.6052 (Gaussian)",
    "mpelu_plain15.imagenet": "0.6047 (Gaussian), 0.6158 (Taylor)",
    "elu_plain30.imagenet": "0.6292",
    "mpelu_plain30.imagenet": "0.6351",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {}
