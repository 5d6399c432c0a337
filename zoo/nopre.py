"""MPELU residual networks without pre-activation ("nopre"), bottleneck units.

Li et al., 2018 (https://arxiv.org/abs/1606.00305), Fig. 5d, layer by layer
after the authors' Torch code. Depth 9n+2, stages of n units with 64, 128 and
256 output channels:

    stem   conv 3x3, 16 -> BN -> MPELU
    unit   conv 1x1 (stride here) -> BN -> MPELU -> conv 3x3 -> BN -> MPELU
           -> conv 1x1 -> add; nothing after the addition
    head   BN -> MPELU -> average pool -> classifier

The first unit of each stage has a bare 1x1 convolution as shortcut, without
batch norm. Every convolution, also the first, is initialised by MPELUNormal in
mode "fan_out": the paper's equation 22 says fan in, its residual-network code
fan out; this follows the code that gave the numbers.

Trainable parameters at 10 classes: 1,696,250 at depth 164 and 10,279,034 at
1001 (1.696 M and 10.28 M in the paper, Table 12); at 100: 1,719,380 and
10,302,164. `mpelu025_*` starts from alpha = 0.25, the paper's other choice.
"""

import keras
from keras import layers

from keras_mpelu import MPELU
from keras_mpelu import MPELUNormal
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input
from zoo.image_model import image_model
from zoo.registry import register_models

VARIANTS = {
    f"{prefix}_nopre_resnet{depth}": {"depth": depth, "alpha": alpha}
    for prefix, alpha in (("mpelu", 1.0), ("mpelu025", 0.25))
    for depth in (164, 1001)
}


@register_models(VARIANTS)
def nopre_resnet(
    depth,
    alpha=1.0,
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
    if depth < 11 or (depth - 2) % 9:
        raise ValueError(f"a bottleneck CIFAR ResNet has depth 9n+2 (29, 56, 164, 1001, ...); received {depth!r}")
    inputs, x = image_input(input_shape, mean, std)

    def conv(x, channels, size, stride, name):
        layer = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="same",  # strides are on 1x1 kernels only, where padding is none
            use_bias=False,
            kernel_initializer=MPELUNormal(alpha=alpha, mode="fan_out"),
            name=name,
        )
        return layer(x)

    def bn_mpelu(x, prefix, number=""):
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{prefix}_bn{number}")(x)
        return MPELU(alpha_initializer=keras.initializers.Constant(alpha), name=f"{prefix}_act{number}")(x)

    x = bn_mpelu(conv(x, 16, 3, 1, "stem_conv"), "stem")
    for stage, channels in enumerate((16, 32, 64), start=1):
        for unit in range(1, (depth - 2) // 9 + 1):
            prefix = f"stage{stage}_unit{unit}"
            stride = 2 if stage > 1 and unit == 1 else 1
            shortcut = conv(x, 4 * channels, 1, stride, f"{prefix}_shortcut_conv") if unit == 1 else x
            x = bn_mpelu(conv(x, channels, 1, stride, f"{prefix}_conv1"), prefix, 1)
            x = bn_mpelu(conv(x, channels, 3, 1, f"{prefix}_conv2"), prefix, 2)
            x = conv(x, 4 * channels, 1, 1, f"{prefix}_conv3")
            x = layers.Add(name=f"{prefix}_add")([x, shortcut])
    x = bn_mpelu(x, "head")
    return image_model(inputs, x, num_classes, classifier_activation, name)


# Top-1 accuracy in the paper, Table 12: mean of 5 runs, standard deviation, best.
PAPER = {
    "mpelu_nopre_resnet164.cifar100-dagger": "0.7822 +- 0.0033 (best 0.7865)",
    "mpelu_nopre_resnet1001.cifar100-dagger": "0.8092 +- 0.0016 (best 0.8104)",
    "mpelu025_nopre_resnet164.cifar100-dagger": "0.7812 +- 0.0019 (best 0.7831)",
    "mpelu025_nopre_resnet1001.cifar100-dagger": "0.8102 +- 0.0019 (best 0.8119)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {}
