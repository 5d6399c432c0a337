"""What the CIFAR residual networks share: their stages of units, the option-A shortcut and stochastic depth."""

import dataclasses
import numbers

from keras import layers

from zoo.options import check_rate


@dataclasses.dataclass(frozen=True)
class Unit:
    """Place of a residual unit: `prefix` of its layers' names, base width, stride, whether it opens a stage."""

    prefix: str
    channels: int
    stride: int
    first: bool
    position: float  # 1 / units for the first unit of the network, 1 for the last


def residual_units(depth, convolutions):
    """The units of a CIFAR ResNet: three stages of n, 16, 32 and 64 channels wide, strides 1, 2 and 2.

    Args:
        depth: Weighted layers: `3 * convolutions * n + 2`.
        convolutions: Convolutions in a unit: 2 in a basic one, 3 in a
            bottleneck.

    Returns:
        A list of `Unit`.

    Raises:
        ValueError: no n fits the depth.

    Example:

    >>> [unit.prefix for unit in residual_units(14, 2)][:3]
    ['stage1_unit1', 'stage1_unit2', 'stage2_unit1']
    """
    step = 3 * convolutions
    count, rest = divmod(depth - 2, step) if isinstance(depth, numbers.Integral) else (0, 0)
    if count < 1 or rest:
        kind, examples = {2: ("basic-block", "20, 32, 44, 56, 110, 1202"), 3: ("bottleneck", "29, 56, 164, 1001")}[
            convolutions
        ]
        raise ValueError(f"a {kind} CIFAR ResNet has depth {step}n+2 ({examples}, ...); received {depth!r}")
    return [
        Unit(
            prefix=f"stage{stage + 1}_unit{unit + 1}",
            channels=16 * 2**stage,
            stride=2 if stage and not unit else 1,
            first=not unit,
            position=(stage * count + unit + 1) / (3 * count),
        )
        for stage in range(3)
        for unit in range(count)
    ]


def subsample_and_pad(x, channels, prefix):
    """Option-A shortcut: every second pixel, new channels zero; no parameters."""
    extra = channels - x.shape[-1]
    x = layers.AveragePooling2D(1, strides=2, name=f"{prefix}_shortcut_pool")(x)
    # ZeroPadding2D pads axes 2 and 3 of a "channels_first" tensor: in ours, axis 3 is the channels.
    pad = layers.ZeroPadding2D(((0, 0), (0, extra)), data_format="channels_first", name=f"{prefix}_shortcut_pad")
    return pad(x)


def drop_branch(x, last_rate, unit):
    """Stochastic depth: drops the branch of a unit at random in training (Huang et al., 2016).

    The rate grows linearly with depth, `rate = last_rate * l / L` at unit l of
    L (https://arxiv.org/abs/1603.09382, equation 4, with `last_rate = 1 - p_L`).
    It is no layer of `keras_mpelu`, but Keras's own `Dropout` with one draw for each image: the branch is
    scaled by `1 / (1 - rate)` in training, where the paper scales by
    `1 - rate` in testing, and the paper draws once for each batch.

    Args:
        x: The branch, just before the addition.
        last_rate: Rate at the last unit, 0.5 in the paper. 0 adds no layer.
        unit: The `Unit`.

    Raises:
        ValueError: the rate is not in [0, 1).

    Example:

    >>> unit = residual_units(20, 2)[0]
    >>> drop_branch(keras.Input((8, 8, 16)), 0.0, unit).shape
    (None, 8, 8, 16)
    """
    check_rate("stochastic_depth", last_rate)
    if not last_rate:
        return x
    drop = layers.Dropout(last_rate * unit.position, noise_shape=(None, 1, 1, 1), name=f"{unit.prefix}_drop")
    return drop(x)
