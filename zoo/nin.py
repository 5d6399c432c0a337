"""Network in Network with ReLU, PReLU, ELU or MPELU.

Lin et al., 2014 (https://arxiv.org/abs/1312.4400), in the form that Li et al.,
2018 (https://arxiv.org/abs/1606.00305, section 4.1, Table 1) compared on
CIFAR-10, after the authors' Caffe files: nine convolutions with biases and
without batch norm, an activation after each of them, also after the last,
which has a channel per class:

    conv 5x5 192, 1x1 160, 1x1 96 -> max pool 3, stride 2 -> dropout
    conv 5x5 192, 1x1 192, 1x1 192 -> average pool 3, stride 2 -> dropout
    conv 3x3 192, 1x1 192, 1x1 classes -> average over the map -> softmax

Parameters at 10 classes: 966,986 with ReLU or ELU, 968,404 with PReLU, 969,822
with MPELU.

Where the sources differ, the files: kernels are Gaussian of deviation 0.05
(0.01 in the paper); alpha starts at 0.25 and beta at 1 (the text of section
4.1 says both 0.25, the appendix 0.25 and 1, an older file 1 and 1).
The files train on crops of 28 x 28 pixels; here any size goes, 32 x 32 by default.
Caffe rounds the sizes of pooled maps up and averages over the pixels that there are;
on images of odd size the windows of the first pooling lie a pixel apart from Caffe's. The paper's global
contrast normalisation and ZCA whitening are not in the model, which standardises per channel.
"""

import keras
from keras import layers

from zoo.activations import Activation
from zoo.graphs import functional_model
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import image_input
from zoo.options import check_integer
from zoo.options import check_rate
from zoo.registry import register_models

VARIANTS = {f"{activation}_nin": {"activation": activation} for activation in ("relu", "prelu", "elu")}
VARIANTS["mpelu_nin"] = {"activation": "mpelu", "alpha": 0.25}

# (kernel size, channels) of each convolution; None: a channel per class.
STACKS = (
    ((5, 192), (1, 160), (1, 96)),
    ((5, 192), (1, 192), (1, 192)),
    ((3, 192), (1, 192), (1, None)),
)


@register_models(VARIANTS)
def nin(
    activation,
    alpha=None,
    dropout=0.5,
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds a Network in Network.

    Args:
        activation: `"relu"`, `"prelu"`, `"elu"`, `"mpelu"` or `"leaky_relu"`.
        alpha: Initial alpha, or slope; `None` is 1 for ELU and MPELU, 0.25 for
            PReLU and leaky ReLU.
        dropout: Rate of the dropout after each of the two poolings.
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
        ValueError: the activation is unknown, dropout is no rate, or the image
            is too small for the strides.
    """
    check_integer("num_classes", num_classes)
    check_rate("dropout", dropout)
    act = Activation(activation, alpha)
    inputs, x = image_input(input_shape, mean, std)
    for stack, convolutions in enumerate(STACKS, start=1):
        for number, (size, channels) in enumerate(convolutions, start=1):
            prefix = f"stack{stack}_conv{number}" if channels else "classifier"
            x = layers.Conv2D(
                channels or num_classes,
                size,
                padding="same",
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.05),
                name=prefix,
            )(x)
            x = act(x, prefix.replace("conv", "act") if channels else "classifier_act")
        if stack < 3:
            if stack == 1:
                x = layers.MaxPooling2D(3, strides=2, padding="same", name="stack1_pool")(x)
            else:
                x = average_pool(x, "stack2")
            x = layers.Dropout(dropout, name=f"stack{stack}_drop")(x)
    x = layers.GlobalAveragePooling2D(dtype="float32", name="classifier_pool")(x)
    x = layers.Activation(classifier_activation, dtype="float32", name="classifier_output")(x)
    return functional_model(inputs, x, name)


def average_pool(x, prefix):
    """Means of windows of 3, stride 2, sizes rounded up, over the pixels that there are.

    Not `padding="same"`: on PyTorch, Keras 3.15 repeats the edge there and counts it (keras-team/keras#23233).
    """
    sizes = [-(-(size - 3) // 2) + 1 for size in x.shape[1:3]]
    missing = [2 * new + 1 - size for new, size in zip(sizes, x.shape[1:3], strict=True)]
    x = layers.ZeroPadding2D(tuple((0, pad) for pad in missing), name=f"{prefix}_pad")(x)
    x = layers.AveragePooling2D(3, strides=2, name=f"{prefix}_pool")(x)
    # Zeros were counted: in the last row and column only.
    rows, columns = ([1.0] * (new - 1) + [3 / (3 - pad)] for new, pad in zip(sizes, missing, strict=True))
    scale = [[[row * column] for column in columns] for row in rows]
    return layers.Rescaling(scale, name=f"{prefix}_pool_edges")(x)


SOURCE = "Li et al., 2018 (https://arxiv.org/abs/1606.00305)"

# Top-1 accuracy in the paper, Table 1, without and with augmentation. Its cells for ReLU and PReLU were not found.
PAPER = {
    "elu_nin.cifar10": "0.9061 (no augmentation), 0.9223 (crops and flips)",
    "mpelu_nin.cifar10": "0.9094 (no augmentation), 0.9270 (crops and flips)",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {}
