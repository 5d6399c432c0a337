"""Names to architectures: the registry, and the index that answers without a backend."""

import copy
import fnmatch
import functools
import importlib
import inspect
import json
import pathlib

from zoo.messages import unknown_name
from zoo.options import check_integer

# One module per family. A new family is its file and its name here.
FAMILIES = ("resnet", "preact", "nopre", "elu_resnet", "elu_net", "nin", "plain", "snn")

INDEX = pathlib.Path(__file__).with_name("index.json")
BUNDLED = INDEX.with_name("weights")

_architectures = {}  # name -> (builder, keyword arguments, family)


def register_models(variants):
    """Registers a builder under the names of a table.

    Args:
        variants: `{name: keyword arguments of the builder}`. The builder also
            gets `name`.
    """

    def register(builder):
        family = builder.__module__.rpartition(".")[2]
        for name, arguments in variants.items():
            if name in _architectures:
                raise ValueError(
                    f"architecture {name!r} is registered twice, by {family} and {_architectures[name][2]}"
                )
            _architectures[name] = (builder, arguments, family)
        return builder

    return register


def architectures():
    """All registered architectures; imports every family and so the backend."""
    for family in FAMILIES:
        importlib.import_module(f"zoo.{family}")
    return _architectures


def published_weights():
    """`{model name: sha256 of its SHA256SUMS}` from the tables of all families."""
    return {name: pin for family in FAMILIES for name, pin in importlib.import_module(f"zoo.{family}").WEIGHTS.items()}


def create_model(arch, **overrides):
    """Builds an architecture with random weights.

    Args:
        arch: A name from `zoo.list_models()`, such as `"mpelu_resnet20"`.
        **overrides: Arguments of the family's builder: `num_classes`,
            `classifier_activation` (`"softmax"`, or `None` for logits) and
            whatever else it takes, such as `input_shape` or `width`.

    Returns:
        A functional `keras.Model`, not compiled.

    Raises:
        ValueError: the name is unknown, the builder has no such argument, or
            `num_classes` is no number of classes.

    Example:

    >>> model = zoo.create_model("mpelu_resnet20", num_classes=10)
    >>> model.output_shape
    (None, 10)
    """
    # The index is read first, so that a wrong name costs no import of a backend.
    if arch in read_index()["models"]:
        raise ValueError(
            f"{arch!r} is a pretrained model: zoo.load_model({arch!r}); zoo.create_model({arch.partition('.')[0]!r}) "
            "builds its architecture with random weights"
        )
    if arch not in read_index()["architectures"] and arch not in architectures():
        raise unknown_name(arch, read_index()["architectures"], "architecture")
    builder, arguments, _ = architectures()[arch]
    accepted = inspect.signature(builder).parameters
    if strange := sorted(set(overrides) - set(accepted)):
        raise ValueError(f"{arch} has no option {strange[0]!r}; its options are {', '.join(accepted)}")
    if "num_classes" in overrides:
        check_integer("num_classes", overrides["num_classes"])
        overrides["num_classes"] = int(overrides["num_classes"])  # NumPy's integers are none to Keras
    from zoo.graphs import channels_last  # imports Keras, which the lists of names do without

    with channels_last():
        return builder(**{"name": arch, **arguments, **overrides})


def default_input_shape(arch):
    """Height, width and channels that an architecture takes where nothing else is said; `None` for tables."""
    builder, arguments, _ = architectures()[arch]
    parameter = inspect.signature(builder).parameters.get("input_shape")
    return arguments.get("input_shape", parameter.default) if parameter else None


@functools.cache
def read_index():
    """The committed index, as written by `python -m zoo index`."""
    return json.loads(INDEX.read_text()) if INDEX.exists() else {"architectures": {}, "models": {}}


def list_models(pattern="*", pretrained=False):
    """Names of architectures, or of pretrained models, that match a pattern.

    Args:
        pattern: A shell-style pattern such as `"mpelu*"`.
        pretrained: `True` lists the pretrained models that load today,
            `False` (default) the architectures.

    Returns:
        A list of names in natural order. No backend is imported.

    Example:

    >>> zoo.list_models("mpelu_resnet*")[:2]
    ['mpelu_resnet20', 'mpelu_resnet32']
    """
    names = read_index()["models" if pretrained else "architectures"]
    return fnmatch.filter(names, pattern)


def model_info(name):
    """What is known of an architecture or a pretrained model.

    Args:
        name: A name from `zoo.list_models()`, with or without
            `pretrained=True`.

    Returns:
        A dictionary: `name`, `family`, `sources` (the papers), `parameters`,
        `macs`, `input_shape`, `num_classes` and, for a pretrained model, the
        figures of its card. No backend is imported.

    Raises:
        ValueError: the name is unknown; close names are listed.

    Example:

    >>> zoo.model_info("mpelu_nopre_resnet164")["parameters"]
    1719380
    """
    index = read_index()
    if name in index["models"]:
        found = {"name": name, **index["architectures"][name.partition(".")[0]], **index["models"][name]}
        del found["per_class"]  # of the architecture as it is by default
        return copy.deepcopy(found)  # whoever changes it changes nobody else's
    if name in index["architectures"]:
        return {"name": name, **copy.deepcopy(index["architectures"][name])}
    raise unknown_name(name, [*index["models"], *index["architectures"]], "model")


def train_command(name):
    """The command that makes a pretrained model.

    Args:
        name: `ARCHITECTURE.TAG`.

    Example:

    >>> train_command("snn_mlp2.uci-iris")
    'KERAS_BACKEND=jax python -m training benchmark uci-export --tasks iris'
    """
    _, of_uci, task = name.partition(".uci-")
    if of_uci:  # networks are stacked on JAX only
        return f"KERAS_BACKEND=jax python -m training benchmark uci-export --tasks {task}"
    return f"python -m training train {name}"
