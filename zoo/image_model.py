"""The two ends that every image network here shares: its input and its classifier."""

import keras
from keras import layers

from zoo.graphs import functional_model

# Of the 50,000 training images, 0-255, per channel (red, green, blue).
CIFAR100_MEAN = (129.304, 124.070, 112.434)
CIFAR100_STD = (68.170, 65.392, 70.418)


def image_input(input_shape, mean, std):
    """A 0-255 image input, and the tensor after the standardisation inside the model."""
    if len(input_shape) != 3 or None in input_shape or not len(mean) == len(std) == input_shape[2]:
        raise ValueError(
            f"input_shape is (height, width, channels), with a mean and a std per channel; received {input_shape!r}, "
            f"{len(mean)} means and {len(std)} stds"
        )
    if min(input_shape[:2]) < 4:
        raise ValueError(f"images are 4 x 4 pixels or more, for two strides of 2; received input_shape={input_shape!r}")
    inputs = keras.Input(input_shape, name="image", dtype="float32")
    # In float32 even under a mixed policy: bfloat16 cannot hold 255 - mean exactly.
    preprocess = layers.Normalization(mean=list(mean), variance=[s**2 for s in std], dtype="float32", name="preprocess")
    return inputs, preprocess(inputs)


def image_model(inputs, x, num_classes, classifier_activation, name):
    """Closes a network: global average pooling (the features) and the classifier."""
    features = layers.GlobalAveragePooling2D(name="features")(x)
    classifier = layers.Dense(
        num_classes,
        activation=classifier_activation,
        # Torch's nn.Linear: uniform in +-1/sqrt(fan_in), as in the authors' code.
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        dtype="float32",  # logits stay exact under a mixed policy
        name="classifier",
    )
    return functional_model(inputs, classifier(features), name)
