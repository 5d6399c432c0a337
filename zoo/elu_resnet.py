"""ELU residual networks of Shah et al., with one batch norm a unit.

Shah et al., 2016 (https://arxiv.org/abs/1604.04112): CIFAR ResNets of basic
blocks, depth 6n+2, in which ELU replaces ReLU and its batch norm. The name
says whose they are: `elu_resnet*` (`zoo/resnet.py`) is another network, which
keeps every batch norm.

    stem   conv 3x3, 16 -> ELU
    unit   conv 3x3 (stride here) -> ELU -> conv 3x3 -> BN -> add; nothing
           after the addition
    head   average pool -> classifier

The abstract says that ELU replaces ReLU and batch norm; the unit that was
found to train keeps one batch norm, at the end of the branch. `shah_elu_resnet*` has
nothing between the last addition and the pooling; `shah_elu_final_resnet*` has
an ELU there, which the authors of PELU (https://arxiv.org/abs/1605.09332)
added in their comparison. The rest follows fb.resnet.torch, on which the
re-implementations built: option-A shortcuts, no bias before batch norm nor
elsewhere, He initialisation with the fan out. That initialisation is a choice: the
paper's could not be read, and the re-implementations keep fb.resnet.torch's. The Taylor initialisation
for ELU, which halves the variance, is Li et al.'s and later: `zoo/resnet.py` has it.

Parameters at 10 classes, with or without the final ELU: 269,018 at depth 20,
463,002 at 32, 656,986 at 44, 850,970 at 56, 1,723,898 at 110.
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

VARIANTS = {
    f"{kind}_resnet{depth}": {"depth": depth, "final_elu": final_elu}
    for kind, final_elu in (("shah_elu", False), ("shah_elu_final", True))
    for depth in (20, 32, 44, 56, 110)
}


@register_models(VARIANTS)
def elu_resnet(
    depth,
    final_elu=False,
    stochastic_depth=0.0,
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds an ELU-ResNet of Shah et al.

    Args:
        depth: Weighted layers, 6n+2.
        final_elu: Whether an ELU stands between the last addition and the
            pooling.
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
        ValueError: the depth is not 6n+2, or the image is too small for the
            strides.
    """
    units = residual_units(depth, convolutions=2)
    elu = Activation("elu")
    he = Activation("relu")  # whose initialisation it is
    inputs, x = image_input(input_shape, mean, std)

    def conv(x, channels, stride, prefix, number=""):
        if stride > 1:  # Torch pads both sides; "same" would pad one side only.
            x = layers.ZeroPadding2D(1, name=f"{prefix}_pad{number}")(x)
        layer = layers.Conv2D(
            channels,
            3,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=he.kernel_initializer("fan_out"),
            name=f"{prefix}_conv{number}",
        )
        return layer(x)

    x = elu(conv(x, 16, 1, "stem"), "stem_act")
    for unit in units:
        prefix, channels, stride = unit.prefix, unit.channels, unit.stride
        shortcut = subsample_and_pad(x, channels, prefix) if stride > 1 else x
        x = elu(conv(x, channels, stride, prefix, 1), f"{prefix}_act")
        x = conv(x, channels, 1, prefix, 2)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{prefix}_bn")(x)
        x = drop_branch(x, stochastic_depth, unit)
        x = layers.Add(name=f"{prefix}_add")([x, shortcut])
    x = elu(x, "head_act") if final_elu else x
    return image_model(inputs, x, num_classes, classifier_activation, name)


SOURCE = "Shah et al., 2016 (https://arxiv.org/abs/1604.04112)"

# Top-1 accuracy. shah_elu: the paper's, as quoted by others (its tables could not be read). shah_elu_final: the
# replication in the code of PELU's authors, mean (best) of 5 runs.
PAPER = {
    "shah_elu_resnet110.cifar10": "0.9438",
    "shah_elu_resnet110.cifar100": "0.7345",
    "shah_elu_final_resnet110.cifar10": "0.9345 (best 0.9401; replication by PELU's authors)",
    "shah_elu_final_resnet110.cifar100": "0.7341 (best 0.7492; replication by PELU's authors)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {}
