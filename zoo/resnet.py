"""CIFAR residual networks of basic blocks, with any of the activations.

He et al., 2016 (https://arxiv.org/abs/1512.03385), section 4.2, in the form of
fb.resnet.torch on which Li et al., 2018 (https://arxiv.org/abs/1606.00305)
built: depth 6n+2, stages of n units with 16, 32 and 64 channels, option-A
shortcuts (subsample, then zero channels: no parameters), batch norm after
every convolution, activation after the addition.

| names | paper |
|---|---|
| `relu_resnet*` | He et al., Table 6; Li et al., Fig. 4a |
| `elu_resnet*` | Li et al., Table 9: ELU for ReLU, batch norm kept (Shah et al.'s ELU-ResNet is `zoo/elu_resnet.py`) |
| `mpelu_resnet*` | "MPELU ResNet (A)" of Table 9: MPELU for ReLU, alpha = beta = 1 |
| `mpelu_b_resnet*` | "(B)": those after an addition start at alpha 98, beta 0.01, near the identity |
| `mpelu_nonbottleneck_resnet*` | Fig. 4b, Table 10: no activation after the additions |

Where the paper is silent: the stem's MPELU of (B) starts as in (A), for it
follows no addition. Fig. 4b has option-A shortcuts and nothing between the
last addition and the pooling; it starts from alpha 1, and the paper's other
choice is the override `alpha=0.25`. Option B puts a 1x1 convolution with batch norm
where the size changes, as in fb.resnet.torch.

Kernels have the Taylor initialisation of their activation, in the mode "fan_out" of
the authors' residual networks: variance 2 / n for ReLU, which is He's, and 1 / n for
ELU and MPELU at alpha 1. That is a choice: Table 9 changes nothing but the activation,
so that its ELU, (A) and (B) have He's 2 / n, while Fig. 4b has Taylor's. Here
one rule, the paper's own, holds for the whole family; and as batch norm follows
every convolution, the scale of a kernel does not change what the network
computes, only how fast the kernel turns in training. The published weights are of networks that
started so.

Parameters at 10 classes: relu 269,722 at depth 20 (0.27 M in He et al.,
Table 6) to 1,727,962 at 110 and 19,421,274 at 1202 (19.4 M); mpelu, (A) and
(B), 271,098 to 1,736,058 and 19,510,906; Fig. 4b 270,426 to 1,732,026 and
19,466,106. Option B adds 2,560 for the convolutions and 192 for their norms.
"""

from keras import layers

from zoo.activations import Activation
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input
from zoo.image_model import image_model
from zoo.registry import register_models
from zoo.residual import drop_branch
from zoo.residual import residual_units
from zoo.residual import subsample_and_pad

KINDS = {
    "relu": {"activation": "relu"},
    "elu": {"activation": "elu"},
    "mpelu": {"activation": "mpelu"},
    "mpelu_b": {"activation": "mpelu", "after_addition": "near_identity"},
    "mpelu_nonbottleneck": {"activation": "mpelu", "after_addition": "none"},
}

VARIANTS = {
    f"{kind}_resnet{depth}": {"depth": depth, **options}
    for kind, options in KINDS.items()
    for depth in (20, 32, 44, 56, 110, 1202)
}


@register_models(VARIANTS)
def resnet(
    depth,
    activation,
    alpha=None,
    after_addition="activation",
    shortcut="A",
    stochastic_depth=0.0,
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
        activation: `"relu"`, `"elu"`, `"mpelu"`, `"prelu"` or `"leaky_relu"`.
        alpha: Initial alpha, or slope; `None` is 1 for ELU and MPELU, 0.25 for
            PReLU and leaky ReLU.
        after_addition: `"activation"`; `"near_identity"`, an MPELU that
            starts at alpha 98, beta 0.01; or `"none"`.
        shortcut: Where the size changes: `"A"`, subsampling and zero channels,
            or `"B"`, a 1x1 convolution with batch norm.
        stochastic_depth: Rate at which the last unit's branch is dropped in
            training; the others' grow linearly up to it. 0 adds no layer.
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
        ValueError: the depth is not 6n+2, an option is unknown or contradicts
            another, or the image is too small for the strides.
    """
    units = residual_units(depth, convolutions=2)
    act = Activation(activation, alpha)
    act_after = {"activation": act, "near_identity": Activation("mpelu", alpha=98, beta=0.01), "none": None}
    if after_addition not in act_after:
        raise ValueError(f"after_addition is one of {', '.join(act_after)}; received {after_addition!r}")
    if after_addition == "near_identity" and activation != "mpelu":
        raise ValueError(f"after_addition='near_identity' is for activation='mpelu'; received {activation!r}")
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut is 'A' or 'B'; received {shortcut!r}")
    act_after = act_after[after_addition]
    inputs, x = image_input(input_shape, mean, std)

    def conv_bn(x, channels, size, stride, conv_name, bn_name, pad_name=None):
        if stride > 1 and size > 1:  # Torch pads both sides; "same" would pad one side only.
            x = layers.ZeroPadding2D(1, name=pad_name)(x)
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=act.kernel_initializer("fan_out"),
            name=conv_name,
        )(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=bn_name)(x)

    x = conv_bn(x, 16, 3, 1, "stem_conv", "stem_bn")
    x = act(x, "stem_act")
    for unit in units:
        prefix, channels, stride = unit.prefix, unit.channels, unit.stride
        carried = x
        if stride > 1 and shortcut == "A":
            carried = subsample_and_pad(x, channels, prefix)
        elif stride > 1:
            carried = conv_bn(x, channels, 1, stride, f"{prefix}_shortcut_conv", f"{prefix}_shortcut_bn")
        x = conv_bn(x, channels, 3, stride, f"{prefix}_conv1", f"{prefix}_bn1", f"{prefix}_pad1")
        x = act(x, f"{prefix}_act1")
        x = conv_bn(x, channels, 3, 1, f"{prefix}_conv2", f"{prefix}_bn2")
        x = drop_branch(x, stochastic_depth, unit)
        x = layers.Add(name=f"{prefix}_add")([x, carried])
        if act_after:
            x = act_after(x, f"{prefix}_act2")
    return image_model(inputs, x, num_classes, classifier_activation, name)


SOURCE = "He et al., 2016 (https://arxiv.org/abs/1512.03385)"

# Top-1 accuracy in the papers, on CIFAR-10; for CIFAR-100 neither has a figure of these networks that was found.
# He et al., 2016, Table 6: one run, but mean +- standard deviation (best) of 5 at depth 110. Li et al., Table 10: mean.
PAPER = {
    "relu_resnet20.cifar10": "0.9125",
    "relu_resnet32.cifar10": "0.9249",
    "relu_resnet44.cifar10": "0.9283",
    "relu_resnet56.cifar10": "0.9303",
    "relu_resnet110.cifar10": "0.9339 +- 0.0016 (best 0.9357)",
    "relu_resnet1202.cifar10": "0.9207",
    "mpelu_nonbottleneck_resnet110.cifar10": "0.9453",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "elu_resnet20.cifar100": "9b12e6899a8b7c358ddc6632eeaf9e17180988c8a7901099fc31a45caec06dbc",
    "mpelu_resnet20.cifar100": "f8fa3102881b2e9bbb286e8479972fe4b14fbaad6ca238ea466bffb236c9b8a8",
    "mpelu_resnet20.cifar100-distilled": "ef9357b20db652177c6b2875b23a6e3648aacebb8a6a2cc2f137869ee5424d2e",
    "mpelu_resnet20.cifar100-modern": "6a4610802deb9d76e2370bbc0a69177ac98570666f822bf595b50dcbb28261aa",
    "mpelu_resnet20.cifar100-nodecay": "4548ad8d5df579238cccb112f6bf1005fa20d2b5252736c31c81846ae43763fd",
    "mpelu_resnet32.cifar100": "d42536cc0606b630352a5037038b947421ed443f41d29c0bbede50e7be33d145",
    "mpelu_resnet32.cifar100-modern": "0f86e9a73ff5e2061f077f0905ef8f8175287efabaeaa4d298dffbc09265c2f5",
    "relu_resnet20.cifar100": "1188fcf208622d4c2b337a7e05bc83cebedae86c16e6339f3fb2fac765f9ab2f",
}
