"""Every registered architecture: builds, counts, learns, saves and loads, and is the graph of its snapshot."""

import difflib
import itertools
import pathlib
import re

import keras
import numpy as np
import pytest

import zoo
from keras_mpelu.deep_graphs import deep_graphs
from zoo.index import multiply_accumulates
from zoo.index import per_class
from zoo.index import trainable_parameters

pytestmark = pytest.mark.usefixtures("quick_compilation")
SNAPSHOTS = pathlib.Path(__file__).with_name("snapshots")
REGENERATE = "python -m pytest tests/test_architectures.py --slow --update-snapshots"
SETTINGS = (
    "kernel_size strides pool_size levels padding rate noise_shape epsilon momentum center scale use_bias "
    "activation negative_slope shared_axes"
).split()


def depth(name):
    return int(re.search(r"\d+$", name)[0]) if name[-1].isdigit() else 0


# Depth 1001 or more, or over 20 million parameters: only under --slow, but for those of the next table.
LARGEST = {name for name in zoo.list_models() if depth(name) >= 1001 or zoo.model_info(name)["parameters"] > 20e6}

# One of each family that has such networks: built, counted and compared with its snapshot without --slow too.
LARGE_OF_EACH_FAMILY = {
    "mpelu_nonbottleneck_resnet1202",
    "mpelu_preact_resnet1001",
    "mpelu_nopre_resnet1001",
    "elu_net18",
    "mpelu_plain15",
}


def cheapest_of_each_family():
    """By multiply-accumulates; of those that cost the same, one with MPELU, which learns most."""
    best = {}
    for name in zoo.list_models():
        info = zoo.model_info(name)
        key = (info["macs"], "mpelu" not in name, name)
        best[info["family"]] = min(best.get(info["family"], (key, name)), (key, name))
    return {name for _, name in best.values()}


ONE_OF_EACH_FAMILY = cheapest_of_each_family()
NOT_LARGEST = set(zoo.list_models()) - LARGEST


def shallowest_of_each_kind():
    """Of networks that differ by depth alone the one with the fewest layers: the others have more of the same units."""
    kinds = {}
    for name in sorted(NOT_LARGEST, key=depth):
        kinds.setdefault(name.removesuffix(str(depth(name))), name)
    return set(kinds.values())


SHALLOWEST_OF_EACH_KIND = shallowest_of_each_kind()


# The graphs are Keras's on every backend: all of them on the one that builds them fastest, one of each kind elsewhere.
COMPARED = (
    NOT_LARGEST | LARGE_OF_EACH_FAMILY
    if keras.backend.backend() == "tensorflow"
    else SHALLOWEST_OF_EACH_KIND | {"mpelu_nopre_resnet1001"}
)


def slow_unless(names, all_names):
    return [pytest.param(name, marks=[] if name in names else pytest.mark.slow) for name in all_names]


@pytest.mark.parametrize("name", slow_unless(COMPARED, zoo.list_models()))
def test_it_is_the_graph_of_its_snapshot(name, request):
    model = zoo.create_model(name)
    info = zoo.model_info(name)
    counted = trainable_parameters(model), multiply_accumulates(model), per_class(model)
    assert counted == (info["parameters"], info["macs"], info["per_class"]), "run `python -m zoo index`"
    assert list(model.input_shape[1:]) == info["input_shape"]
    assert model.output_shape == (None, info["num_classes"])
    text = snapshot(model)
    path = SNAPSHOTS / f"{name}.txt"
    if request.config.getoption("--update-snapshots"):
        path.write_text(text)
    kept = path.read_text() if path.exists() else ""
    difference = "\n".join(difflib.unified_diff(kept.splitlines(), text.splitlines(), str(path), "now", lineterm=""))
    assert text == kept, f"{name} changed, so saved weights may not fit; if that is meant: {REGENERATE}\n{difference}"


def test_there_is_no_snapshot_of_nothing():
    assert {path.stem for path in SNAPSHOTS.glob("*.txt")} == set(zoo.list_models())


def snapshot(model):
    """Layers in order with settings, inputs and shapes, and every weight; equal units of a stage are folded into one.

    The input of a layer is the layer before it, or those that `<-` counts back.
    """
    index = {id(layer.output): number for number, layer in enumerate(model.layers)}
    lines = []
    for number, layer in enumerate(model.layers):
        words = [type(layer).__name__, layer.name]
        for setting in SETTINGS:
            value = getattr(layer, setting, None)
            if value is not None:
                words.append(f"{setting}={getattr(value, '__name__', value)}")
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        back = [index[id(tensor)] - number for tensor in inputs]
        if number and back != [-1]:
            words.append(f"<- {back}")
        words.append(f"-> {layer.output.shape[1:]}")
        words += [f"| {weight.path} {tuple(weight.shape)}" for weight in layer.weights]
        lines.append(" ".join(words))
    units = (
        list(block) for _, block in itertools.groupby(lines, lambda line: re.findall(r"stage\d+_unit\d+_", line)[:1])
    )
    folded = []  # (first, last, lines with * for the number of the unit)
    for block in units:
        found = re.search(r"stage\d+_unit(\d+)_", block[0])
        number = int(found[1]) if found else 0
        block = [re.sub(r"(stage\d+_unit)\d+_", r"\1*_", line) for line in block]
        if found and folded and folded[-1][2] == block and folded[-1][1] == number - 1:
            folded[-1] = (folded[-1][0], number, block)
        else:
            folded.append((number, number, block))
    text = [f"{trainable_parameters(model)} trainable of {model.count_params()}, {len(model.layers)} layers"]
    for first, last, block in folded:
        text += [f"unit {first} to {last}:"] if first else []
        text += block
    return "\n".join(text) + "\n"


def test_every_family_with_large_networks_has_one_by_default():
    families = {zoo.model_info(name)["family"] for name in LARGEST}
    assert {zoo.model_info(name)["family"] for name in LARGE_OF_EACH_FAMILY} == families
    assert LARGE_OF_EACH_FAMILY <= LARGEST


@pytest.mark.parametrize("name", slow_unless(SHALLOWEST_OF_EACH_KIND, zoo.list_models()))
def test_it_learns(name, request):
    """Runs it forwards and backwards, eagerly: to compile a thousand layers takes many times longer."""
    model = quickly_built(name, request)
    x = inputs(model, rows=4)
    take_statistics(model)
    outputs = forward(model, x)
    assert outputs.shape == (4, 5) and np.all(np.isfinite(outputs))
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(forward(model, x[:1]), outputs[:1], atol=1e-4)
    check_gradients(model, x, np.arange(4))


@pytest.mark.parametrize("name", slow_unless(ONE_OF_EACH_FAMILY, zoo.list_models()))
def test_it_is_saved_and_loaded(name, request, tmp_path, capsys):
    model = quickly_built(name, request)
    x = inputs(model, rows=2)
    outputs = forward(model, x)
    with deep_graphs():
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_weights(again, model)
    np.testing.assert_allclose(forward(again, x), outputs, atol=1e-5)

    folder = zoo.save_model(model, tmp_path / "folder")
    again = zoo.load_model(folder, compile=False)
    assert_same_weights(again, model)
    np.testing.assert_allclose(forward(again, x), outputs, atol=1e-5)
    assert zoo.load_model(folder, num_classes=3, compile=False).output_shape == (None, 3)
    assert "new head for 3 classes" in capsys.readouterr().err
    features = forward(zoo.load_model(folder, features=True), x)
    assert features.ndim == 2 and len(features) == 2 and np.all(np.isfinite(features))


def quickly_built(name, request):
    """The network for five classes; without --slow those of 164 layers have two of their 18 units in each stage."""
    shorter = depth(name) == 164 and not request.config.getoption("--slow")
    return zoo.create_model(name, num_classes=5, **({"depth": 20} if shorter else {}))


def inputs(model, rows):
    shape = (rows, *model.input_shape[1:])
    rng = np.random.default_rng(0)
    return (rng.normal(0, 1, shape) if len(shape) == 2 else rng.integers(0, 256, shape)).astype("float32")


def forward(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def take_statistics(model):
    """Gives batch norm the statistics of a batch: with the initial ones, 0 and 1, nopre overflows at depth 1001.

    Of four images it sees every position, of a table only the rows: the variance of four was 2e-4 for some unit of 256,
    and dividing by its root made of rounding a difference of 2e-4 in the outputs.
    """
    x = inputs(model, rows=4 if len(model.input_shape) == 4 else 64)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def assert_same_weights(again, model):
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def check_gradients(model, x, y):
    """Cross-entropy in training mode is finite, and so is its gradient, which reaches every trainable weight."""
    gradients = {"tensorflow": tensorflow_gradients, "jax": jax_gradients, "torch": torch_gradients}
    loss, gradients = gradients[keras.backend.backend()](model, x, y)
    assert np.isfinite(loss)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, f"no gradient for {weight.path}"
        gradient = keras.ops.convert_to_numpy(gradient)
        assert np.all(np.isfinite(gradient)), f"the gradient of {weight.path} is not finite"
        # Without batch norm in the branches the signal grows with depth: at 1001 it is 1e5 to 1e11 at the start, where
        # exp(beta * x) is 0 in float32 for every negative x of some layers, and so is beta's gradient.
        underflows = model.name == "mpelu_nopre_nobranchbn_resnet1001" and weight.path.endswith("/beta")
        assert np.any(gradient) or underflows, f"no gradient for {weight.path}"


def cross_entropy(y, outputs):
    return keras.ops.mean(keras.losses.sparse_categorical_crossentropy(y, outputs))


def tensorflow_gradients(model, x, y):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = cross_entropy(y, model(x, training=True))
    return float(loss), tape.gradient(loss, [weight.value for weight in model.trainable_weights])


def jax_gradients(model, x, y):
    import jax

    def loss(trainable, others):
        outputs, _ = model.stateless_call(trainable, others, x, training=True)
        return cross_entropy(y, outputs)

    trainable, others = (
        [weight.value for weight in group] for group in (model.trainable_variables, model.non_trainable_variables)
    )
    value, gradients = jax.value_and_grad(loss)(trainable, others)
    return float(value), gradients


def torch_gradients(model, x, y):
    loss = cross_entropy(y, model(x, training=True))
    loss.backward()
    return float(loss.detach()), [weight.value.grad for weight in model.trainable_weights]
