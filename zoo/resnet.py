"""CIFAR residual networks of basic blocks, with ReLU, ELU or MPELU.

He et al., 2016 (https://arxiv.org/abs/1512.03385), section 4.2, in the form of
fb.resnet.torch on which Li et al., 2018 (https://arxiv.org/abs/1606.00305)
built: depth 6n+2, stages of n units with 16, 32 and 64 channels, option-A
shortcuts (subsample, then zero channels: no parameters), batch norm after
every convolution, activation after the addition.

`mpelu_*` is "MPELU ResNet (A)" of the paper's Table 9: every ReLU becomes an
MPELU with alpha = beta = 1, nothing else changes. `elu_*` is its ELU row, which
keeps batch norm (Shah et al.'s ELU-ResNet is another network).
Parameters at 10 classes: relu 269,722 at depth 20 (0.27 M in He et al.,
Table 6) to 1,727,962 at 110; mpelu 271,098 to 1,736,058.
"""

from keras import layers

from keras_mpelu import MPELU
from keras_mpelu import MPELUNormal
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input
from zoo.image_model import image_model
from zoo.registry import register_models

# activation -> (layer, alpha of MPELUNormal): alpha 0 is He's initialisation.
ACTIVATIONS = {
    "relu": (layers.ReLU, 0.0),
    "elu": (layers.ELU, 1.0),
    "mpelu": (MPELU, 1.0),
}

VARIANTS = {
    f"{activation}_resnet{depth}": {"depth": depth, "activation": activation}
    for activation in ACTIVATIONS
    for depth in (20, 32, 44, 56, 110)
}


@register_models(VARIANTS)
def resnet(
    depth,
    activation,
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds a CIFAR ResNet of basic blocks.

    Args:
        depth: Weighted layers, 6n+2.
        activation: `"relu"`, `"elu"` or `"mpelu"`.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        input_shape: Height, width and channels; at least 4 x 4.
        mean: Per-channel mean of the images, subtracted inside the model.
        std: Per-channel standard deviation, divided by inside the model.
        name: Name of the model.

    Input shape:
        `(batch, *input_shape)`, values 0 to 255, uint8 or float.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: the depth is not 6n+2, the activation is unknown, or the
            image is too small for the strides.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"a basic-block CIFAR ResNet has depth 6n+2 (20, 32, 44, 56, 110, ...); received {depth!r}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}; received {activation!r}")
    activation_layer, alpha = ACTIVATIONS[activation]
    inputs, x = image_input(input_shape, mean, std)

    def conv_bn(x, channels, stride, name, number=""):
        if stride > 1:  # Torch pads both sides; "same" would pad one side only.
            x = layers.ZeroPadding2D(1, name=f"{name}_pad{number}")(x)
        x = layers.Conv2D(
            channels,
            3,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=MPELUNormal(alpha=alpha, mode="fan_out"),
            name=f"{name}_conv{number}",
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn{number}")(x)

    x = conv_bn(x, 16, 1, "stem")
    x = activation_layer(name="stem_act")(x)
    for stage, channels in enumerate((16, 32, 64), start=1):
        for unit in range(1, (depth - 2) // 6 + 1):
            prefix = f"stage{stage}_unit{unit}"
            stride = 2 if stage > 1 and unit == 1 else 1
            shortcut = x if stride == 1 else subsample_and_pad(x, channels, prefix)
            x = conv_bn(x, channels, stride, prefix, 1)
            x = activation_layer(name=f"{prefix}_act1")(x)
            x = conv_bn(x, channels, 1, prefix, 2)
            x = layers.Add(name=f"{prefix}_add")([x, shortcut])
            x = activation_layer(name=f"{prefix}_act2")(x)
    return image_model(inputs, x, num_classes, classifier_activation, name)


def subsample_and_pad(x, channels, prefix):
    """Option-A shortcut: every second pixel, new channels zero; no parameters."""
    extra = channels - x.shape[-1]
    x = layers.AveragePooling2D(1, strides=2, name=f"{prefix}_shortcut_pool")(x)
    # ZeroPadding2D pads axes 2 and 3 of a "channels_first" tensor: in ours, axis 3 is the channels.
    pad = layers.ZeroPadding2D(((0, 0), (0, extra)), data_format="channels_first", name=f"{prefix}_shortcut_pad")
    return pad(x)


# Top-1 accuracy in the papers. For CIFAR-100 neither has a figure of these networks; their CIFAR-10 figures are
# He et al., 2016, Table 6 (best of 5 at depth 110 in brackets, else one run).
PAPER = {
    "relu_resnet20.cifar10": "0.9125",
    "relu_resnet32.cifar10": "0.9249",
    "relu_resnet44.cifar10": "0.9283",
    "relu_resnet56.cifar10": "0.9303",
    "relu_resnet110.cifar10": "0.9339 +- 0.0016 (best 0.9357)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "mpelu_resnet20.cifar100": "81edbc2ba3a2541f672b6c8ec49608bebf157294721eaa33968668827f057d91",
}
