"""The plain convolutional networks with ELU of Clevert et al.

Clevert, Unterthiner, Hochreiter, 2016 (https://arxiv.org/abs/1511.07289),
sections 4.2 to 4.4. A network is a list of stacks of convolutions, written in
the paper as layers x units x receptive field; no batch norm.

| names | paper | classifier | parameters |
|---|---|---|---|
| `elu_net11` | section 4.2, CIFAR-100 | 1x100x1 | 1,669,028 (100 classes); 1,641,938 (10) |
| `elu_net18` | section 4.3, CIFAR-10 and -100 | 1x100x1 | 39,330,404; 39,226,634 |
| `elu_net15` | section 4.4, ImageNet | two layers of 4096, 1000 | 164,867,528 (1000) |

Where the paper is ambiguous:

- Padding is not given; "same" here, as in all re-implementations found: the CIFAR
  networks then shrink 32 x 32 to 1 x 1 in five poolings.
- 2 x 2 pooling "after each stack" is impossible from the sixth stack of the CIFAR
  networks on, where the map has one pixel; it follows the first five.
- The "18" layers of the list are 19 with the classifier, the "11" are 11 with it.
- The classifier is a 1x1 convolution without ELU; here a Dense layer after
  the average over the map, which is the same function.
- Seven dropout rates are given for eight stacks of `elu_net18`: the last stack is the
  classifier, which has none. Dropout follows the pooling, as in the re-implementations.
- The first convolution of `elu_net15`, 6 x 6, is given no stride: 2 here. With
  stride 1 the network costs eight times VGG-19. It changes no parameter.
- Its spatial pyramid of 3 levels has 1 + 4 + 16 bins, and max pooling follows every stack.
- Initialisation is given for MNIST only, He et al.'s; here too, with the fan in, but for
  the classifier of the CIFAR networks, which starts as Torch's `nn.Linear`.

Preprocessing in the paper: global contrast normalisation and ZCA whitening
(CIFAR), per-pixel mean (ImageNet); inside these models it is mean and
deviation per channel.
"""

import numbers

from keras import layers

from keras_mpelu import SpatialPyramidPooling
from zoo.activations import Activation
from zoo.image_model import CIFAR100_MEAN
from zoo.image_model import CIFAR100_STD
from zoo.image_model import IMAGENET_MEAN
from zoo.image_model import IMAGENET_STD
from zoo.image_model import classifier_model
from zoo.image_model import image_input
from zoo.image_model import image_model
from zoo.options import check_integer
from zoo.options import check_rate
from zoo.registry import register_models

# depth -> stacks of (layers, units, receptive field), without the classifier.
STACKS = {
    11: (
        [(1, 192, 5)],
        [(1, 192, 1), (1, 240, 3)],
        [(1, 240, 1), (1, 260, 2)],
        [(1, 260, 1), (1, 280, 2)],
        [(1, 280, 1), (1, 300, 2)],
        [(1, 300, 1)],
    ),
    18: (
        [(1, 384, 3)],
        [(1, 384, 1), (1, 384, 2), (2, 640, 2)],
        [(1, 640, 1), (3, 768, 2)],
        [(1, 768, 1), (2, 896, 2)],
        [(1, 896, 3), (2, 1024, 2)],
        [(1, 1024, 1), (1, 1152, 2)],
        [(1, 1152, 1)],
    ),
    15: ([(1, 96, 6)], [(3, 512, 3)], [(5, 768, 3)], [(3, 1024, 3)]),
}
POOLINGS = 5  # of the CIFAR networks: 32 x 32 to 1 x 1

DROPOUT = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0)  # after stacks 1 to 7 of the CIFAR networks


@register_models({f"elu_net{depth}": {"depth": depth} for depth in (11, 18)})
def elu_net(
    depth,
    dropout=DROPOUT,
    dropout_in_stacks=False,
    activation="elu",
    num_classes=100,
    classifier_activation="softmax",
    input_shape=(32, 32, 3),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
    name=None,
):
    """Builds an ELU network for CIFAR.

    Args:
        depth: 11 or 18.
        dropout: Rate of each stack, in order; stacks without a rate have 0.
            A recipe sets the paper's schedule with it: the default first, at
            the end 1.5 times as much.
        dropout_in_stacks: Whether every layer of a stack is followed by
            dropout, as in the paper's fine-tuning of the 18-layer network, and
            not the last one only. A layer of rate 0 is left out.
        activation: `"elu"`, or one of the paper's rivals `"relu"`,
            `"leaky_relu"`; also `"prelu"` and `"mpelu"`.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        input_shape: Height, width and channels; at least 32 x 32.
        mean: Per-channel mean of the images, subtracted inside the model.
        std: Per-channel standard deviation, divided by inside the model.
        name: Name of the model.

    Input shape:
        `(batch, *input_shape)`, values 0 to 255, uint8 or float.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: the depth is neither 11 nor 18, dropout is no list of rates
            or has more than there are stacks, or the image is too small for
            the poolings.
    """
    if depth not in (11, 18) or not isinstance(depth, numbers.Integral):
        raise ValueError(f"an ELU network for CIFAR has depth 11 or 18; received {depth!r}")
    stacks = STACKS[depth]
    if not isinstance(dropout, tuple | list) or any(dropout[len(stacks) :]):
        raise ValueError(f"dropout is a list with a rate for each of {len(stacks)} stacks; received {dropout!r}")
    for rate in dropout:
        check_rate("each rate of dropout", rate)
    rates = list(dropout)
    rates += [0.0] * len(stacks)
    inputs, x = image_input(input_shape, mean, std, smallest=2**POOLINGS)
    for number, (stack, rate) in enumerate(zip(stacks, rates, strict=False), start=1):
        prefix = f"stack{number}"
        pool = number <= POOLINGS
        x = convolutions(x, stack, prefix, activation, pool, rate if dropout_in_stacks else 0.0)
        if rate:
            x = layers.Dropout(rate, name=f"{prefix}_drop")(x)
    return image_model(inputs, x, num_classes, classifier_activation, name)


@register_models({"elu_net15": {}})
def elu_net_imagenet(
    dropout=0.5,
    activation="elu",
    stem_stride=2,
    num_classes=1000,
    classifier_activation="softmax",
    input_shape=(224, 224, 3),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    name=None,
):
    """Builds the 15-layer ELU network for ImageNet.

    Args:
        dropout: Rate after each of the two layers of 4096.
        activation: `"elu"`, or the paper's rival `"relu"`; also
            `"leaky_relu"`, `"prelu"` and `"mpelu"`.
        stem_stride: Stride of the first convolution.
        num_classes: Size of the classifier.
        classifier_activation: `"softmax"`, or `None` for logits.
        input_shape: Height, width and channels; at least 128 x 128, so that
            every bin of the pyramid has a pixel of its own.
        mean: Per-channel mean of the images, subtracted inside the model.
        std: Per-channel standard deviation, divided by inside the model.
        name: Name of the model.

    Input shape:
        `(batch, *input_shape)`, values 0 to 255, uint8 or float.

    Output shape:
        `(batch, num_classes)`.

    Raises:
        ValueError: dropout is no rate, the stride no positive integer, or the
            image too small for the strides.
    """
    check_rate("dropout", dropout)
    check_integer("stem_stride", stem_stride)
    inputs, x = image_input(input_shape, mean, std, smallest=64 * stem_stride)
    for number, stack in enumerate(STACKS[15], start=1):
        x = convolutions(x, stack, f"stack{number}", activation, True, 0.0, stem_stride if number == 1 else 1)
    x = SpatialPyramidPooling(3, name="pyramid")(x)
    act = Activation(activation)
    for number in (1, 2):
        x = layers.Dense(4096, kernel_initializer=he_initializer(), name=f"fc{number}")(x)
        x = act(x, f"fc{number}_act")
        x = layers.Dropout(dropout, name=f"fc{number}_drop")(x)
    return classifier_model(inputs, x, num_classes, classifier_activation, he_initializer(), name)


def convolutions(x, stack, prefix, activation, pool, dropout, stride=1):
    """One stack: its convolutions, each with its activation, and the pooling; dropout between the convolutions."""
    act = Activation(activation)
    sizes = [(units, size) for repeats, units, size in stack for _ in range(repeats)]
    for number, (units, size) in enumerate(sizes, start=1):
        layer = layers.Conv2D(
            units,
            size,
            strides=stride,
            padding="same",
            kernel_initializer=he_initializer(),
            name=f"{prefix}_conv{number}",
        )
        x = act(layer(x), f"{prefix}_act{number}")
        if dropout and number < len(sizes):
            x = layers.Dropout(dropout, name=f"{prefix}_drop{number}")(x)
    return layers.MaxPooling2D(2, name=f"{prefix}_pool")(x) if pool else x


def he_initializer():
    return Activation("relu").kernel_initializer("fan_in")


SOURCE = "Clevert et al., 2016 (https://arxiv.org/abs/1511.07289)"

# Top-1 accuracy in the paper: Fig. 4 and its text, mean +- standard deviation of 10 runs; Table 1. On ImageNet it has
# a top-5 error below 10 % only.
PAPER = {
    "elu_net11.cifar100": "0.7125 +- 0.0024",
    "elu_net18.cifar10": "0.9345",
    "elu_net18.cifar100": "0.7572",
}

# Pretrained models: name -> sha256 of the folder's SHA256SUMS.
WEIGHTS = {
    "elu_net11.cifar100": "2b6faf048380fbde4e37ec2c3e72496d63c8f9f5b69063cf6430db887f41a4d3",
}
