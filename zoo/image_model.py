"""The two ends that the image networks here share: their input and their classifier."""

import numbers

import keras
import numpy as np
from keras import layers

from zoo.graphs import functional_model

# Of the training images, 0-255, per channel (red, green, blue).
CIFAR100_MEAN = (129.304, 124.070, 112.434)
CIFAR100_STD = (68.170, 65.392, 70.418)
IMAGENET_MEAN = (123.675, 116.280, 103.530)
IMAGENET_STD = (58.395, 57.120, 57.375)


def image_input(input_shape, mean, std, smallest=4):
    """A 0-255 image input, and the tensor after the standardisation inside the model."""
    sizes = input_shape if isinstance(input_shape, tuple | list) else ()
    per_channel = [np.shape(values) == (sizes[-1],) for values in (mean, std)] if sizes else []
    if len(sizes) != 3 or not all(isinstance(size, numbers.Integral) for size in sizes) or not all(per_channel):
        raise ValueError(
            "input_shape is (height, width, channels), fixed integers, with a mean and a std per channel; "
            f"received {input_shape!r}, mean={mean!r} and std={std!r}"
        )
    if not all(0 < deviation < float("inf") for deviation in std):
        raise ValueError(f"std is above 0, for images are divided by it; received {std!r}")
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"images are {smallest} x {smallest} pixels or more for the strides of this network; "
            f"received input_shape={input_shape!r}"
        )
    inputs = keras.Input(input_shape, name="image", dtype="float32")
    # In float32 even under a mixed policy: bfloat16 cannot hold 255 - mean exactly.
    preprocess = layers.Normalization(mean=list(mean), variance=[s**2 for s in std], dtype="float32", name="preprocess")
    return inputs, preprocess(inputs)


def image_model(inputs, x, num_classes, classifier_activation, name):
    """Closes a network: global average pooling (the features) and the classifier."""
    features = layers.GlobalAveragePooling2D(name="features")(x)
    # Torch's nn.Linear: uniform in +-1/sqrt(fan_in), as in the authors' code.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return classifier_model(inputs, features, num_classes, classifier_activation, initializer, name)


def classifier_model(inputs, features, num_classes, classifier_activation, kernel_initializer, name):
    """Closes a network whose features are a vector already."""
    classifier = layers.Dense(
        num_classes,
        activation=classifier_activation,
        kernel_initializer=kernel_initializer,
        dtype="float32",  # logits stay exact under a mixed policy
        name="classifier",
    )
    return functional_model(inputs, classifier(features), name)
