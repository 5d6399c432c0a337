"""MPELU residual networks without pre-activation ("nopre"), bottleneck units.

Li et al., 2018 (https://arxiv.org/abs/1606.00305), Fig. 5c, 5d and 5e and the
variants of Table 11, layer by layer after the authors' Torch code of Fig. 5d.
Depth 9n+2, stages of n units with 64, 128 and 256 output channels:

    stem   conv 3x3, 16 -> BN -> MPELU
    unit   conv 1x1 (stride here) -> BN -> MPELU -> conv 3x3 -> BN -> MPELU
           -> conv 1x1 -> add; nothing after the addition
    head   BN -> MPELU -> average pool -> classifier

The first unit of each stage has a bare 1x1 convolution as shortcut, without
batch norm, whatever the `-shortcutType` of the authors' command lines says: their
code does not read it, and only so are there 1.696 M parameters. Every convolution,
also the first, is initialised by MPELUNormal in mode "fan_out": the paper's
equation 22 says fan in, its residual-network code fan out; this follows the code
that gave the numbers.

| names, trainable parameters at 10 classes, depths 164 and 1001 | | |
|---|---|---|
| `mpelu_nopre_resnet*`: Fig. 5d, "nopre" | 1,696,250 | 10,279,034 |
| `mpelu025_nopre_resnet*`: the same from alpha = 0.25, the paper's other choice | 1,696,250 | 10,279,034 |
| `mpelu_nopre_endbn_resnet*`: Fig. 5c, batch norm after the last convolution of a branch too | 1,712,378 | 10,378,490 |
| `mpelu_nopre_nobranchbn_resnet*`: Fig. 5e, no batch norm in the branches | 1,688,186 | 10,229,306 |
| `mpelu_nopre_nobn1_resnet*`: 5d without the stem's batch norm, BN1 | 1,696,218 | 10,279,002 |
| `mpelu_nopre_nobn1_nobnend_resnet*`: 5d without BN1 and the head's, BNend | 1,695,706 | 10,278,490 |

The paper (Table 12) has 1.696 M and 10.28 M. At 100 classes 23,130 more each.
`mpelu_nopre_resnet29`, Fig. 5d at a depth that two CPU cores can train, is ours: 311,930 at 10 classes.

In training, by the paper: 5d is best; 5c needs a warm-up; 5e and the last
diverge at a learning rate of 0.1. 5e at depth 1001 starts with signals of 1e5
to 1e11 (no batch norm holds them), where exp(beta * x) is 0 in float32 for
nearly every negative x, so some of its betas have no gradient.
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

KINDS = {
    "mpelu_nopre": {},
    "mpelu025_nopre": {"alpha": 0.25},
    "mpelu_nopre_endbn": {"branch_end_norm": True},
    "mpelu_nopre_nobranchbn": {"branch_norms": False},
    "mpelu_nopre_nobn1": {"stem_norm": False},
    "mpelu_nopre_nobn1_nobnend": {"stem_norm": False, "head_norm": False},
}

VARIANTS = {
    f"{kind}_resnet{depth}": {"depth": depth, **options} for kind, options in KINDS.items() for depth in (164, 1001)
}
VARIANTS["mpelu_nopre_resnet29"] = {"depth": 29}


@register_models(VARIANTS)
def nopre_resnet(
    depth,
    alpha=1.0,
    stem_norm=True,
    branch_norms=True,
    branch_end_norm=False,
    head_norm=True,
    stochastic_depth=0.0,
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds an MPELU no-preactivation bottleneck ResNet.

    Args:
        depth: Weighted layers, 9n+2.
        alpha: Initial alpha of every MPELU; beta starts at 1.
        stem_norm: Batch norm in the stem (the paper's BN1).
        branch_norms: Batch norm before the two MPELUs of a branch.
        branch_end_norm: Batch norm after the last convolution of a branch.
        head_norm: Batch norm in the head (BNend).
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
        ValueError: the depth is not 9n+2, or the image is too small for the
            strides.
    """
    units = residual_units(depth, convolutions=3)
    mpelu = Activation("mpelu", alpha)
    inputs, x = image_input(input_shape, mean, std)

    def conv(x, channels, size, stride, name):
        layer = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same",  # strides are on 1x1 kernels only, where padding is none
            use_bias=False,
            kernel_initializer=mpelu.kernel_initializer("fan_out"),
            name=name,
        )
        return layer(x)

    def bn(x, name):
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def bn_mpelu(x, norm, prefix, number=""):
        x = bn(x, f"{prefix}_bn{number}") if norm else x
        return mpelu(x, f"{prefix}_act{number}")

    x = bn_mpelu(conv(x, 16, 3, 1, "stem_conv"), stem_norm, "stem")
    for unit in units:
        prefix, channels, stride = unit.prefix, unit.channels, unit.stride
        shortcut = conv(x, 4 * channels, 1, stride, f"{prefix}_shortcut_conv") if unit.first else x
        x = bn_mpelu(conv(x, channels, 1, stride, f"{prefix}_conv1"), branch_norms, prefix, 1)
        x = bn_mpelu(conv(x, channels, 3, 1, f"{prefix}_conv2"), branch_norms, prefix, 2)
        x = conv(x, 4 * channels, 1, 1, f"{prefix}_conv3")
        x = bn(x, f"{prefix}_bn3") if branch_end_norm else x
        x = drop_branch(x, stochastic_depth, unit)
        x = layers.Add(name=f"{prefix}_add")([x, shortcut])
    x = bn_mpelu(x, head_norm, "head")
    return image_model(inputs, x, num_classes, classifier_activation, name)


SOURCE = "Li et al., 2018 (https://arxiv.org/abs/1606.00305)"

# Top-1 accuracy in the paper. Tagged "-dagger": Table 12, its recipe marked with a dagger, mean +- standard deviation
# (best) of 5 runs. The others: Table 11 and the text, mean (best) with the default recipe. Table 11's row of Fig. 5d is
# of alpha = 0.25; the alpha of its other rows was not found, while the networks of their names start at 1.
PAPER = {
    "mpelu_nopre_resnet164.cifar10-dagger": "0.9533 +- 0.0006 (best 0.9542)",
    "mpelu_nopre_resnet164.cifar100-dagger": "0.7822 +- 0.0033 (best 0.7865)",
    "mpelu_nopre_resnet1001.cifar10-dagger": "0.9622 +- 0.0009 (best 0.9637)",
    "mpelu_nopre_resnet1001.cifar100-dagger": "0.8092 +- 0.0016 (best 0.8104)",
    "mpelu025_nopre_resnet164.cifar10": "0.9496 (best 0.9513)",
    "mpelu025_nopre_resnet164.cifar10-dagger": "0.9547 +- 0.0012 (best 0.9557)",
    "mpelu025_nopre_resnet164.cifar100": "0.7671",
    "mpelu025_nopre_resnet164.cifar100-dagger": "0.7812 +- 0.0019 (best 0.7831)",
    "mpelu025_nopre_resnet1001.cifar10-dagger": "0.9629 +- 0.0011 (best 0.9643)",
    "mpelu025_nopre_resnet1001.cifar100-dagger": "0.8102 +- 0.0019 (best 0.8119)",
    "mpelu_nopre_nobn1_resnet164.cifar10": "0.9471 (alpha 1 or 0.25, not said)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "mpelu_nopre_resnet29.cifar100": "3457a18338f0abaeeaa0bc0dc514488356a8d77da546b9ab054af89f4164fd61",
}
