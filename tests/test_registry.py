"""Every architecture builds as the papers say, and the index says the same."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import zoo
from zoo.registry import FAMILIES
from zoo.registry import INDEX
from zoo.registry import architectures

DEEP = ("1001",)  # built only where depth is what is tested


def parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# From shared facts of the papers (He et al., 2016; Li et al., 2018, Table 12 and the authors' code).
@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("relu_resnet20", 10, 269_722),
        ("relu_resnet32", 10, 464_154),
        ("relu_resnet44", 10, 658_586),
        ("elu_resnet56", 10, 853_018),
        ("mpelu_resnet20", 10, 271_098),
        ("mpelu_resnet56", 10, 857_082),
        ("mpelu_resnet110", 10, 1_736_058),
        ("mpelu_nopre_resnet164", 10, 1_696_250),
        ("mpelu_nopre_resnet164", 100, 1_719_380),
        ("mpelu025_nopre_resnet164", 100, 1_719_380),
    ],
)
def test_parameters_are_the_papers(name, num_classes, expected):
    assert parameters(zoo.create_model(name, num_classes=num_classes)) == expected


def test_depth_1001_at_both_class_counts():
    model = zoo.create_model("mpelu_nopre_resnet1001", num_classes=10)
    assert parameters(model) == 10_279_034
    assert sum(layer.name.endswith(tuple(f"act{n}" for n in ("", 1, 2))) for layer in model.layers) == 668
    assert zoo.model_info("mpelu_nopre_resnet1001")["parameters"] == 10_302_164


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu_resnet20", 40_551_040),
        ("mpelu_resnet110", 252_887_680),
        ("mpelu_nopre_resnet164", 244_500_992),
        ("mpelu_nopre_resnet1001", 1_487_849_984),
    ],
)
def test_multiply_accumulates_at_ten_classes(name, expected):
    features = {"mpelu_nopre_resnet164": 256, "mpelu_nopre_resnet1001": 256}.get(name, 64)
    assert zoo.model_info(name)["macs"] - 90 * features == expected


@pytest.mark.parametrize("name", [name for name in zoo.list_models() if not name.endswith(DEEP)])
def test_index_is_up_to_date(name):
    model = zoo.create_model(name)
    info = zoo.model_info(name)
    assert info["parameters"] == parameters(model), "run `python -m zoo index`"
    assert info["input_shape"] == list(model.input_shape[1:])
    assert all(layer.name.rstrip("0123456789_") not in ("conv2d", "dense", "add") for layer in model.layers)


def test_index_has_every_architecture_and_weight():
    index = json.loads(INDEX.read_text())
    assert set(index["architectures"]) == set(architectures())
    published = {}
    for family in FAMILIES:
        published |= __import__(f"zoo.{family}", fromlist=["WEIGHTS"]).WEIGHTS
    assert {name: row["sums"] for name, row in index["models"].items()} == published


def test_list_models_matches_patterns_in_natural_order():
    assert zoo.list_models("relu_resnet*") == [f"relu_resnet{depth}" for depth in (20, 32, 44, 56, 110)]
    assert zoo.list_models("nothing*") == []
    assert "mpelu_resnet20.cifar100" in zoo.list_models("*.cifar100", pretrained=True)


def test_images_may_be_uint8_or_float_and_the_output_is_a_distribution():
    model = zoo.create_model("mpelu_resnet20", num_classes=7)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3))
    from_bytes = np.asarray(model.predict(images.astype("uint8"), verbose=0))
    from_floats = np.asarray(model.predict(images.astype("float32"), verbose=0))
    np.testing.assert_allclose(from_bytes, from_floats, atol=1e-6)
    np.testing.assert_allclose(from_bytes.sum(axis=1), 1, atol=1e-5)


def test_other_image_sizes_and_logits():
    model = zoo.create_model("mpelu_nopre_resnet164", depth=11, input_shape=(40, 48, 3), classifier_activation=None)
    assert model.get_layer("stage3_unit1_add").output.shape == (None, 10, 12, 256)
    assert model.layers[-1].activation is keras.activations.linear


def test_conic_mlp_has_the_geometric_widths():
    model = zoo.create_model("snn_mlp4", width=1024, form="conic", num_features=9, num_classes=3)
    assert [model.get_layer(f"hidden{n}").units for n in (1, 2, 3, 4)] == [1024, 238, 55, 13]


def test_mlp_standardises_inside_the_model():
    rows = np.random.default_rng(0).normal(50, 7, (4000, 3)).astype("float32")
    model = zoo.create_model("snn_mlp2", num_features=3, mean=rows.mean(0), variance=rows.var(0))
    inside = np.asarray(keras.Model(model.input, model.get_layer("preprocess").output).predict(rows, verbose=0))
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(inside.std(0), 1, atol=1e-3)


def test_signal_keeps_its_moments_through_a_deep_mlp():
    keras.utils.set_random_seed(0)
    model = zoo.create_model("snn_mlp32", width=512, num_features=512, dropout=0.0)
    last_hidden = keras.Model(model.input, model.get_layer("features").output)
    values = np.asarray(last_hidden.predict(np.random.default_rng(0).normal(size=(1000, 512)), verbose=0))
    assert abs(values.mean()) < 0.1
    assert 0.8 < values.var() < 1.25  # He initialisation gives 162 here (Klambauer et al.; measured)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: zoo.create_model("mpelu_resnet21"), "mpelu_resnet20"),
        (lambda: zoo.model_info("mpelu_resnet20.cifar10"), "mpelu_resnet20.cifar100"),
        (lambda: zoo.create_model("mpelu_resnet20", depth=21), "6n\\+2"),
        (lambda: zoo.create_model("mpelu_nopre_resnet164", depth=100), "9n\\+2"),
        (lambda: zoo.create_model("mpelu_resnet20", activation="gelu"), "relu, elu, mpelu"),
        (lambda: zoo.create_model("mpelu_resnet20", widht=3), "no option 'widht'"),
        (lambda: zoo.create_model("mpelu_resnet20", input_shape=(2, 32, 3)), "4 x 4"),
        (lambda: zoo.create_model("snn_mlp4", form="diamond"), "rectangular"),
        (lambda: zoo.create_model("snn_mlp4", dropout=1.0), "below 1"),
        (lambda: zoo.create_model("snn_mlp4", num_features=3, mean=[1.0, 2.0]), "one value per column"),
    ],
)
def test_wrong_options_say_what_was_expected(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_import_and_listing_load_no_backend():
    code = (
        "import sys, time; started = time.perf_counter(); import zoo, zoo.__main__; zoo.list_models(); "
        "zoo.model_info('mpelu_resnet20'); import training; training.get_recipe('mpelu_resnet20.cifar100'); "
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
