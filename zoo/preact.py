"""Pre-activation bottleneck residual networks, with ReLU or MPELU.

He et al., 2016b (https://arxiv.org/abs/1603.05027), as in the authors' Torch
code (KaimingHe/resnet-1k-layers), and the MPELU forms of Li et al., 2018
(https://arxiv.org/abs/1606.00305). Depth 9n+2, stages of n units with 64, 128
and 256 output channels, stem of one bare 3x3 convolution, head of BN ->
activation -> average pool -> classifier:

| names | paper | branch | parameters, 164 and 1001 |
|---|---|---|---|
| `relu_preact_resnet*` | Fig. 4c | BN, ReLU, 1x1, BN, ReLU, 3x3, BN, ReLU, 1x1 | 1,703,258; 10,327,706 |
| `mpelu_preact_resnet*` | Fig. 4d | the same with MPELU | 1,727,482; 10,476,922 |
| `mpelu_onlypreact_bn_resnet*` | Fig. 5a | MPELU, 1x1, BN, MPELU, 3x3, BN, MPELU, 1x1, BN | 1,727,962; 10,477,402 |
| `mpelu_onlypreact_resnet*` | Fig. 5b | 5a without its last BN | 1,711,834; 10,377,946 |

Parameters are trainable ones at 10 classes. In the first unit of each stage the first
activation (with its BN, where there is one) feeds the branch and the shortcut,
a bare 1x1 convolution; elsewhere the shortcut is the identity. The paper's text
does not describe stem and head of 5a and 5b: here they are those of 4c and 4d. The
stride is on the first 1x1 convolution. Kernels are initialised by MPELUNormal
in mode "fan_out", as in both authors' code; for ReLU that is He's. MPELU starts at
alpha 1; the paper's other choice is the override `alpha=0.25`.
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
    "relu_preact": {"activation": "relu"},
    "mpelu_preact": {"activation": "mpelu"},
    "mpelu_onlypreact_bn": {"activation": "mpelu", "first_norm": False, "branch_end_norm": True},
    "mpelu_onlypreact": {"activation": "mpelu", "first_norm": False},
}

VARIANTS = {
    f"{kind}_resnet{depth}": {"depth": depth, **options} for kind, options in KINDS.items() for depth in (164, 1001)
}


@register_models(VARIANTS)
def preact_resnet(
    depth,
    activation,
    alpha=None,
    first_norm=True,
    branch_end_norm=False,
    stochastic_depth=0.0,
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds a pre-activation bottleneck ResNet.

    Args:
        depth: Weighted layers, 9n+2.
        activation: `"relu"`, `"elu"`, `"mpelu"`, `"prelu"` or `"leaky_relu"`.
        alpha: Initial alpha, or slope; `None` is 1 for ELU and MPELU, 0.25 for
            PReLU and leaky ReLU.
        first_norm: Batch norm before the first activation of a unit.
        branch_end_norm: Batch norm after the last convolution of a branch.
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
        ValueError: the depth is not 9n+2, the activation is unknown, or the
            image is too small for the strides.
    """
    units = residual_units(depth, convolutions=3)
    act = Activation(activation, alpha)
    inputs, x = image_input(input_shape, mean, std)

    def conv(x, channels, size, stride, name):
        layer = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same",  # strides are on 1x1 kernels only, where padding is none
            use_bias=False,
            kernel_initializer=act.kernel_initializer("fan_out"),
            name=name,
        )
        return layer(x)

    def bn(x, name):
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    x = conv(x, 16, 3, 1, "stem_conv")
    for unit in units:
        prefix, channels, stride = unit.prefix, unit.channels, unit.stride
        carried = x
        x = bn(x, f"{prefix}_bn1") if first_norm else x
        x = act(x, f"{prefix}_act1")
        if unit.first:
            carried = conv(x, 4 * channels, 1, stride, f"{prefix}_shortcut_conv")
        x = conv(x, channels, 1, stride, f"{prefix}_conv1")
        x = act(bn(x, f"{prefix}_bn2"), f"{prefix}_act2")
        x = conv(x, channels, 3, 1, f"{prefix}_conv2")
        x = act(bn(x, f"{prefix}_bn3"), f"{prefix}_act3")
        x = conv(x, 4 * channels, 1, 1, f"{prefix}_conv3")
        x = bn(x, f"{prefix}_bn4") if branch_end_norm else x
        x = drop_branch(x, stochastic_depth, unit)
        x = layers.Add(name=f"{prefix}_add")([x, carried])
    x = act(bn(x, "head_bn"), "head_act")
    return image_model(inputs, x, num_classes, classifier_activation, name)


SOURCE = "He et al., 2016b (https://arxiv.org/abs/1603.05027)"

# Top-1 accuracy: relu at 164 as cited by Li et al., Table 11; at 1001 He et al., 2016b, with a batch of 64 as in its
# authors' README, mean +- standard deviation; on CIFAR-100 as cited by Li et al.; mpelu: Li et al., Table 11, mean; the
# alpha of these rows was not found (that of its best row, Fig. 5d, is 0.25), while the networks here start at 1.
PAPER = {
    "relu_preact_resnet164.cifar10": "0.9454",
    "relu_preact_resnet1001.cifar10": "0.9531 +- 0.0020 (best 0.9538)",
    "relu_preact_resnet1001.cifar100": "0.7729",
    "mpelu_preact_resnet164.cifar10": "0.9468 (alpha 1 or 0.25, not said)",
    "mpelu_onlypreact_resnet164.cifar10": "0.9451 (alpha 1 or 0.25, not said)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {}
