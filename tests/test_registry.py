"""Every architecture builds as the papers say, and the index says the same."""

import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import zoo
from zoo import index
from zoo.__main__ import main as zoo_command
from zoo.index import multiply_accumulates
from zoo.index import trainable_parameters
from zoo.registry import BUNDLED
from zoo.registry import FAMILIES
from zoo.registry import INDEX
from zoo.registry import architectures

ROOT = pathlib.Path(__file__).parent.parent

# Trainable parameters at 10 classes, from the papers, their authors' code and the arithmetic of their layer tables.
# The index is compared with the built networks in test_architectures.py.
PARAMETERS = {
    "relu_resnet20": 269_722,
    "relu_resnet32": 464_154,
    "relu_resnet44": 658_586,
    "relu_resnet56": 853_018,
    "relu_resnet110": 1_727_962,
    "relu_resnet1202": 19_421_274,
    # ELU has no parameters: as with ReLU.
    "elu_resnet20": 269_722,
    "elu_resnet32": 464_154,
    "elu_resnet44": 658_586,
    "elu_resnet56": 853_018,
    "elu_resnet110": 1_727_962,
    "elu_resnet1202": 19_421_274,
    "mpelu_resnet20": 271_098,
    "mpelu_resnet32": 466_426,
    "mpelu_resnet44": 661_754,
    "mpelu_resnet56": 857_082,
    "mpelu_resnet110": 1_736_058,
    "mpelu_resnet1202": 19_510_906,
    "mpelu_b_resnet20": 271_098,
    "mpelu_b_resnet32": 466_426,
    "mpelu_b_resnet44": 661_754,
    "mpelu_b_resnet56": 857_082,
    "mpelu_b_resnet110": 1_736_058,
    "mpelu_b_resnet1202": 19_510_906,
    "mpelu_nonbottleneck_resnet20": 270_426,
    "mpelu_nonbottleneck_resnet32": 465_306,
    "mpelu_nonbottleneck_resnet44": 660_186,
    "mpelu_nonbottleneck_resnet56": 855_066,
    "mpelu_nonbottleneck_resnet110": 1_732_026,
    "mpelu_nonbottleneck_resnet1202": 19_466_106,
    "relu_preact_resnet164": 1_703_258,
    "relu_preact_resnet1001": 10_327_706,
    "mpelu_preact_resnet164": 1_727_482,
    "mpelu_preact_resnet1001": 10_476_922,
    "mpelu_onlypreact_bn_resnet164": 1_727_962,
    "mpelu_onlypreact_resnet164": 1_711_834,
    # The first batch norm of 4d has as many channels as comes in, the last of 5a as many as go out: 16, 64 and 128
    # against 64, 128 and 256 in three units, the same in all others. 5b has no last one, in 111 units a stage.
    "mpelu_onlypreact_bn_resnet1001": 10_476_922 + 2 * (48 + 64 + 128),
    "mpelu_onlypreact_resnet1001": 10_476_922 + 2 * (48 + 64 + 128) - 111 * 2 * (64 + 128 + 256),
    "mpelu_nopre_resnet164": 1_696_250,
    # 15 units less of 17 c^2 + 8 c for c in 16, 32, 64: kernels; scales, shifts, alphas and betas of two norms
    "mpelu_nopre_resnet29": 1_696_250 - 15 * (17 * 5_376 + 8 * 112),
    "mpelu_nopre_resnet1001": 10_279_034,
    "mpelu025_nopre_resnet164": 1_696_250,
    "mpelu_nopre_endbn_resnet164": 1_712_378,
    "mpelu_nopre_nobranchbn_resnet164": 1_688_186,
    "mpelu_nopre_nobn1_resnet164": 1_696_218,
    "mpelu_nopre_nobn1_nobnend_resnet164": 1_695_706,
    # Batch norms more or fewer than in Fig. 5d, gamma and beta of each, in 111 units a stage.
    "mpelu025_nopre_resnet1001": 10_279_034,
    "mpelu_nopre_endbn_resnet1001": 10_279_034 + 111 * 2 * (64 + 128 + 256),
    "mpelu_nopre_nobranchbn_resnet1001": 10_279_034 - 111 * 2 * 2 * (16 + 32 + 64),
    "mpelu_nopre_nobn1_resnet1001": 10_279_034 - 2 * 16,
    "mpelu_nopre_nobn1_nobnend_resnet1001": 10_279_034 - 2 * 16 - 2 * 256,
    "shah_elu_resnet20": 269_018,
    "shah_elu_resnet32": 463_002,
    "shah_elu_resnet44": 656_986,
    "shah_elu_resnet56": 850_970,
    "shah_elu_resnet110": 1_723_898,
    "shah_elu_final_resnet20": 269_018,
    "shah_elu_final_resnet32": 463_002,
    "shah_elu_final_resnet44": 656_986,
    "shah_elu_final_resnet56": 850_970,
    "shah_elu_final_resnet110": 1_723_898,
    "elu_net11": 1_641_938,
    "elu_net18": 39_226_634,
    "relu_nin": 966_986,
    "elu_nin": 966_986,
    "prelu_nin": 968_404,
    "mpelu_nin": 969_822,
}


def dense(inputs, outputs):
    """Parameters of a dense layer with bias, or of a convolution: `inputs` are then those of one pixel of a map."""
    return (inputs + 1) * outputs


# The small plain networks: a 3x3 stem and 2x2 convolutions, then a pyramid of 1 + 4 + 16 bins and three dense layers.
SMALL_PLAIN = {
    depth: dense(9 * 3, 32)
    + dense(4 * 32, 64)
    + 3 * dense(4 * 64, 64)
    + dense(4 * 64, 128)
    + (depth - 9) * dense(4 * 128, 128)
    + dense(21 * 128, 512)
    + dense(512, 512)
    + dense(512, 100)
    for depth in (15, 30, 52)
}
# Maps and units that an activation of the plain networks follows, so its alphas: convolutions 1, 2 to 5, 6 and on.
PLAIN_UNITS = {depth: 64 + 4 * 128 + (depth - 8) * 256 + 2 * 4096 for depth in (15, 30, 52)}
SMALL_PLAIN_UNITS = {depth: 32 + 4 * 64 + (depth - 8) * 128 + 2 * 512 for depth in (15, 30, 52)}
MLP8 = dense(16, 256) + 7 * dense(256, 256) + dense(256, 2)  # 16 columns, 8 layers of 256, 2 classes

RELU_PLAIN = {15: 111_956_456, 30: 115_892_456, 52: 121_665_256}
AT_THE_DEFAULT_CLASSES = {
    "mpelu_nopre_resnet164": 1_719_380,
    "mpelu_nopre_resnet29": 311_930 + 90 * 257,
    "mpelu_nopre_resnet1001": 10_302_164,
    "elu_net11": 1_669_028,
    "elu_net18": 39_330_404,
    "relu_plain15": 111_956_456,
    "elu_plain15": 111_956_456,
    "relu_plain30": 115_892_456,
    "elu_plain30": 115_892_456,
    "elu_plain52": 121_665_256,
    "relu_plain52": 121_665_256,
    # MPELU: alpha and beta of each map and unit more; PReLU: alpha only.
    **{f"mpelu_plain{n}": relu + 2 * PLAIN_UNITS[n] for n, relu in RELU_PLAIN.items()},
    **{f"prelu_plain{n}": relu + PLAIN_UNITS[n] for n, relu in RELU_PLAIN.items()},
    **{f"{act}_small_plain{n}": SMALL_PLAIN[n] for act in ("relu", "elu") for n in SMALL_PLAIN},
    **{f"mpelu_small_plain{n}": SMALL_PLAIN[n] + 2 * SMALL_PLAIN_UNITS[n] for n in SMALL_PLAIN},
    **{f"prelu_small_plain{n}": SMALL_PLAIN[n] + SMALL_PLAIN_UNITS[n] for n in SMALL_PLAIN},
    # 1x96x6, 3x512x3, 5x768x3, 3x1024x3, a pyramid of 1 + 4 + 16 bins, 2x4096, 1000.
    "elu_net15": dense(36 * 3, 96)
    + dense(9 * 96, 512)
    + 2 * dense(9 * 512, 512)
    + dense(9 * 512, 768)
    + 4 * dense(9 * 768, 768)
    + dense(9 * 768, 1024)
    + 2 * dense(9 * 1024, 1024)
    + dense(21 * 1024, 4096)
    + dense(4096, 4096)
    + dense(4096, 1000),
    **{f"snn_mlp{n}": MLP8 + (n - 8) * dense(256, 256) for n in (2, 3, 4, 8, 16, 32)},
    "relu_mlp": MLP8,
    "batchnorm_mlp": MLP8 + 8 * 2 * 256,  # gamma and beta
    "layernorm_mlp": MLP8 + 8 * 2 * 256,
    "weightnorm_mlp": MLP8 + 8 * 256,  # the lengths
    "highway_mlp": MLP8 + 7 * dense(256, 256),  # gates, but for the first layer
    # Blocks of two layers with batch norm and no bias, the first one's shortcut, the classifier.
    "residual_mlp": (16 + 256 + 7 * 2 * 256) * 256 + 8 * 2 * 2 * 256 + dense(16, 256) + dense(256, 2),
}


def at_ten_classes(name, key):
    info = zoo.model_info(name)
    return info[key] + (10 - info["num_classes"]) * info["per_class"][key]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_papers(name):
    assert zoo.model_info(name)["num_classes"] == 100
    assert at_ten_classes(name, "parameters") == PARAMETERS[name]


@pytest.mark.parametrize("name", AT_THE_DEFAULT_CLASSES)
def test_parameters_are_the_papers_at_the_default_classes(name):
    assert zoo.model_info(name)["parameters"] == AT_THE_DEFAULT_CLASSES[name]


@pytest.mark.parametrize("name", [name for name in zoo.list_models(pretrained=True) if (BUNDLED / name).is_dir()])
def test_the_index_has_the_inputs_and_classes_of_the_pretrained_network(name):
    """By its graph: SNNs have other columns and classes than their architecture by default."""
    layers = json.loads((BUNDLED / name / "config.json").read_text())["config"]["layers"]
    info = zoo.model_info(name)
    assert [None, *info["input_shape"]] == layers[0]["config"]["batch_shape"]
    ends = [layer["config"] for layer in layers if layer["name"].startswith("classifier")]
    assert info["num_classes"] == next(end.get("units", end.get("filters")) for end in ends)
    assert "per_class" not in info


def test_every_architecture_is_counted_by_hand():
    assert {*PARAMETERS, *AT_THE_DEFAULT_CLASSES} == set(zoo.list_models())


@pytest.mark.parametrize("name", ["relu_resnet20", "mpelu_nin", "elu_net11", "weightnorm_mlp", "mpelu_small_plain15"])
def test_the_number_of_classes_changes_the_head_only(name):
    model = zoo.create_model(name, num_classes=10)
    assert trainable_parameters(model) == at_ten_classes(name, "parameters")
    assert multiply_accumulates(model) == at_ten_classes(name, "macs")


def test_option_b_adds_two_convolutions_and_their_norms():
    model = zoo.create_model("relu_resnet20", num_classes=10, shortcut="B")
    kernels = [layer.kernel for layer in model.layers if layer.name.endswith("shortcut_conv")]
    assert sum(int(np.prod(kernel.shape)) for kernel in kernels) == 2560
    assert trainable_parameters(model) == 269_722 + 2560 + 2 * (32 + 64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu_resnet20", 40_551_040),
        ("relu_resnet110", 252_887_680),
        ("mpelu_resnet110", 252_887_680),
        ("relu_preact_resnet164", 244_500_992),
        ("mpelu_nopre_resnet164", 244_500_992),
        ("mpelu_nopre_resnet1001", 1_487_849_984),
    ],
)
def test_multiply_accumulates_at_ten_classes(name, expected):
    assert at_ten_classes(name, "macs") == expected


@pytest.mark.parametrize("name, last", [("mpelu_plain15", 21), ("elu_plain30", 36), ("elu_plain52", 58)])
def test_maps_of_the_plain_networks_have_the_sizes_of_the_authors_files(name, last):
    """With Caffe's rounding; read from the snapshot, which test_architectures.py compares with the network."""
    text = pathlib.Path(__file__).with_name("snapshots").joinpath(f"{name}.txt").read_text()
    sizes = [int(size) for size in re.findall(r"^Conv2D .* -> \((\d+),", text, flags=re.MULTILINE)]
    assert sizes == [109, 36, 37, 36, 37, 18, 19, 18, 19, 18, 19, *range(20, last)]
    assert "SpatialPyramidPooling pyramid levels=4 -> (21760,)" in text


def test_dropout_of_the_elu_networks():
    def rates(**options):
        model = zoo.create_model("elu_net11", **options)
        return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}

    assert rates() == {
        "stack2_drop": 0.1,
        "stack3_drop": 0.2,
        "stack4_drop": 0.3,
        "stack5_drop": 0.4,
        "stack6_drop": 0.5,
    }
    assert rates(dropout=(0.5,)) == {"stack1_drop": 0.5}
    inside = rates(dropout=(0, 0.15), dropout_in_stacks=True)
    assert inside == {"stack2_drop1": 0.15, "stack2_drop": 0.15}


@pytest.mark.parametrize(
    "name, depth",
    [
        ("mpelu_resnet20", 20),
        ("relu_preact_resnet164", 29),
        ("mpelu_nopre_resnet164", 29),
        ("shah_elu_resnet20", 20),
    ],
)
def test_stochastic_depth_drops_branches_more_often_with_depth(name, depth):
    model = zoo.create_model(name, depth=depth, stochastic_depth=0.5)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose([drop.rate for drop in drops], 0.5 * np.arange(1, 10) / 9)
    x = np.ones((2000, 2, 2, 3), "float32")
    y = keras.ops.convert_to_numpy(drops[3](x, training=True))
    first = y[:, :1, :1, :1]
    np.testing.assert_array_equal(y, np.broadcast_to(first, y.shape))  # a branch is there or not, whole, by image
    rate = drops[3].rate
    np.testing.assert_allclose(np.unique(first), [0, 1 / (1 - rate)], rtol=1e-6)
    assert abs((first == 0).mean() - rate) < 4 * (rate * (1 - rate) / 2000) ** 0.5
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(drops[3](x, training=False)), x)


def test_index_has_every_architecture_and_weight():
    index = json.loads(INDEX.read_text())
    assert set(index["architectures"]) == set(architectures())
    published = {}
    for family in FAMILIES:
        published |= __import__(f"zoo.{family}", fromlist=["WEIGHTS"]).WEIGHTS
    assert {name: row["sums"] for name, row in index["models"].items()} == published


def test_index_has_the_figures_of_the_families_tables():
    figures = {
        f"{arch}.{tag}": figure
        for arch, row in json.loads(INDEX.read_text())["architectures"].items()
        for tag, figure in row.get("paper", {}).items()
    }
    tables = {}
    for family in FAMILIES:
        tables |= __import__(f"zoo.{family}", fromlist=["PAPER"]).PAPER
    assert figures == tables, "run `python -m zoo index --models`"


def test_the_command_makes_the_index(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zoo.index.INDEX", tmp_path / "index.json")
    assert zoo_command(["index", "--models"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.json")
    assert (tmp_path / "index.json").read_text() == INDEX.read_text(), "run `python -m zoo index --models`"


def test_the_index_names_the_papers_of_networks_and_units():
    he, li, clevert = (f"https://arxiv.org/abs/{number}" for number in ("1512.03385", "1606.00305", "1511.07289"))
    for name, addresses in {
        "relu_resnet20": [he],
        "mpelu_resnet20": [he, li],
        "elu_resnet20": [he, clevert],
        "mpelu_nopre_resnet164": [li],
        "elu_nin": [li, clevert],
        "prelu_nin": [li, "https://arxiv.org/abs/1502.01852"],
        "elu_net11": [clevert],
        "batchnorm_mlp": ["https://arxiv.org/abs/1706.02515"],
    }.items():
        assert [source.partition("(")[2].rstrip(")") for source in zoo.model_info(name)["sources"]] == addresses


# Li et al., Table 12: errors in percent, best (mean, standard deviation) of 5 runs, on CIFAR-10 and CIFAR-100.
TABLE_12 = {
    "mpelu_nopre_resnet164": ((4.58, 4.67, 0.06), (21.35, 21.78, 0.33)),
    "mpelu_nopre_resnet1001": ((3.63, 3.78, 0.09), (18.96, 19.08, 0.16)),
    "mpelu025_nopre_resnet164": ((4.43, 4.53, 0.12), (21.69, 21.88, 0.19)),
    "mpelu025_nopre_resnet1001": ((3.57, 3.71, 0.11), (18.81, 18.98, 0.19)),
}


@pytest.mark.parametrize("name", TABLE_12)
def test_the_papers_accuracies_are_its_errors(name):
    paper = zoo.model_info(name)["paper"]
    for data, (best, mean, deviation) in zip(("cifar10", "cifar100"), TABLE_12[name], strict=True):
        figures = 1 - mean / 100, deviation / 100, 1 - best / 100
        assert paper[f"{data}-dagger"] == "{:.4f} +- {:.4f} (best {:.4f})".format(*figures)


def test_docstrings_have_the_counts():
    """The parameters in the tables of the two bottleneck families, at depths 164 and 1001."""
    for family, separator in (("preact", ";"), ("nopre", " |")):
        text = __import__(f"zoo.{family}", fromlist=["PAPER"]).__doc__
        rows = re.findall(rf"`(\w+)_resnet\*`.*\| ([\d,]+){re.escape(separator)} ([\d,]+) \|", text)
        names = {name.rpartition("_")[0] for name in zoo.list_models() if zoo.model_info(name)["family"] == family}
        assert {name for name, *_ in rows} == names
        for name, *counts in rows:
            for depth, count in zip((164, 1001), counts, strict=True):
                assert int(count.replace(",", "")) == PARAMETERS[f"{name}_resnet{depth}"], (name, depth)


def test_list_models_matches_patterns_in_natural_order():
    assert zoo.list_models("relu_resnet*") == [f"relu_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)]
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
        (lambda: zoo.load_model("snn_mlp2"), "'snn_mlp2' is an architecture; with pretrained weights: snn_mlp2.uci-a"),
        (lambda: zoo.load_model("mpelu_resnet56"), "none yet. zoo.create_model.'mpelu_resnet56'. builds it"),
        (lambda: zoo.create_model("snn_mlp2.wine"), "is a pretrained model: zoo.load_model.'snn_mlp2.wine'."),
        (lambda: zoo.create_model("relu_resnet20", input_shape=(None, None, 3)), "fixed integers"),
        (lambda: zoo.create_model("mpelu_resnet20", depth=21), "6n\\+2"),
        (lambda: zoo.create_model("mpelu_nopre_resnet164", depth=100), "9n\\+2"),
        (lambda: zoo.create_model("mpelu_resnet20", activation="gelu"), "relu, elu, mpelu"),
        (lambda: zoo.create_model("mpelu_resnet20", num_classes=0), "num_classes is an integer, 1 or more; received 0"),
        (lambda: zoo.create_model("mpelu_resnet20", widht=3), "no option 'widht'"),
        (lambda: zoo.create_model("mpelu_resnet20", input_shape=(2, 32, 3)), "4 x 4"),
        (lambda: zoo.create_model("mpelu_b_resnet20", activation="elu"), "for activation='mpelu'"),
        (lambda: zoo.create_model("mpelu_resnet20", after_addition="relu"), "near_identity, none"),
        (lambda: zoo.create_model("mpelu_resnet20", shortcut="C"), "'A' or 'B'"),
        (lambda: zoo.create_model("mpelu_resnet20", stochastic_depth=1), "below 1"),
        (lambda: zoo.create_model("relu_resnet20", alpha=0.5), "relu has no alpha"),
        (lambda: zoo.create_model("mpelu_resnet20", depth=20.0), "6n\\+2"),
        (lambda: zoo.create_model("mpelu_resnet20", depth=2), "6n\\+2"),
        (lambda: zoo.create_model("mpelu_nopre_resnet110"), "mpelu_nopre_resnet1001"),
        (lambda: zoo.create_model("mpelu_nopre_resnet164", input_shape=(32, 3, 3)), "4 x 4"),
        (lambda: zoo.create_model("mpelu_nopre_resnet164", stochastic_depth=-0.1), "below 1"),
        (lambda: zoo.create_model("mpelu_preact_resnet110"), "mpelu_preact_resnet164"),
        (lambda: zoo.create_model("mpelu_preact_resnet164", activation="selu"), "relu, elu, mpelu"),
        (lambda: zoo.create_model("mpelu_preact_resnet164", depth=100), "9n\\+2"),
        (lambda: zoo.create_model("mpelu_preact_resnet164", input_shape=(3, 3, 3)), "4 x 4"),
        (lambda: zoo.create_model("shah_elu_resnet20", depth=100), "6n\\+2"),
        (lambda: zoo.create_model("shah_elu_resnet20", input_shape=(3, 32, 3)), "4 x 4"),
        (lambda: zoo.create_model("shah_elu_resnet18"), "shah_elu_resnet20"),
        (lambda: zoo.create_model("elu_net12"), "elu_net11"),
        (lambda: zoo.create_model("elu_net11", depth=15), "11 or 18"),
        (lambda: zoo.create_model("elu_net11", input_shape=(28, 28, 3)), "32 x 32"),
        (lambda: zoo.create_model("elu_net11", dropout=(0, 0, 0, 0, 0, 0, 0.5)), "6 stacks"),
        (lambda: zoo.create_model("elu_net15", input_shape=(64, 64, 3)), "128 x 128"),
        (lambda: zoo.create_model("mpelu_nin", input_shape=(2, 2, 3)), "4 x 4"),
        (lambda: zoo.create_model("mpelu_nin", activation="selu"), "mpelu, prelu"),
        (lambda: zoo.create_model("selu_nin"), "elu_nin"),
        (lambda: zoo.create_model("mpelu_plain16"), "mpelu_plain15"),
        (lambda: zoo.create_model("mpelu_small_plain15", fan_mode="fan_on"), "fan_in"),
        (lambda: zoo.create_model("relu_small_plain15", alpha=0.25), "relu has no alpha"),
        (lambda: zoo.create_model("mpelu_plain15", depth=14), "15 or more"),
        (lambda: zoo.create_model("mpelu_plain15", initializer="lsuv"), "taylor, he, gaussian"),
        (lambda: zoo.create_model("mpelu_plain15", input_shape=(64, 64, 3)), "79 x 79"),
        (lambda: zoo.create_model("mpelu_small_plain15", input_shape=(16, 16, 3)), "17 x 17"),
        (lambda: zoo.create_model("snn_mlp5"), "snn_mlp4"),
        (lambda: zoo.create_model("snn_mlp4", form="diamond"), "rectangular"),
        (lambda: zoo.create_model("snn_mlp4", form="diavolo"), "form is 'rectangular' or 'conic'"),
        (lambda: zoo.create_model("snn_mlp4", dropout=1.0), "below 1"),
        (lambda: zoo.create_model("snn_mlp4", num_features=3, mean=[1.0, 2.0]), "one value per column"),
        # Options without effect, or that contradict another.
        (lambda: zoo.create_model("relu_mlp", block_layers=3), "block_layers is for residual blocks"),
        (lambda: zoo.create_model("relu_mlp", bottleneck=0.25), "bottleneck is for form='diavolo'"),
        (lambda: zoo.create_model("residual_mlp", bottleneck=0.25), "bottleneck is for form='diavolo'"),
        (lambda: zoo.create_model("relu_small_plain15", initializer="gaussian", fan_mode="fan_in"), "'taylor' or 'he'"),
        (lambda: zoo.create_model("relu_small_plain15", fan_mode="nonsense"), "fan_in, fan_out, fan_avg"),
        # Wrong types, each of which is close to a right value.
        (lambda: zoo.create_model("snn_mlp4", depth=2.5), "depth is an integer, 1 or more; received 2.5"),
        (lambda: zoo.create_model("snn_mlp4", depth="4"), "depth is an integer, 1 or more; received '4'"),
        (lambda: zoo.create_model("snn_mlp4", depth=True), "depth is an integer, 1 or more; received True"),
        (lambda: zoo.create_model("snn_mlp4", width=64.0), "width is an integer"),
        (lambda: zoo.create_model("snn_mlp4", num_classes="3"), "num_classes is an integer"),
        (lambda: zoo.create_model("snn_mlp4", dropout="0.1"), "dropout is one number"),
        (lambda: zoo.create_model("snn_mlp4", variance=-1.0), "variance is finite and not negative; received -1.0"),
        (lambda: zoo.create_model("snn_mlp4", mean=float("nan")), "mean is finite; received nan"),
        (lambda: zoo.create_model("residual_mlp", block_layers=2.5), "block_layers is an integer, 2 or more"),
        (lambda: zoo.create_model("residual_mlp", block_layers=1), "block_layers is an integer, 2 or more"),
        (lambda: zoo.create_model("residual_mlp", form="diavolo", bottleneck="0.5"), "bottleneck is a fraction"),
        (lambda: zoo.create_model("residual_mlp", form="diavolo", bottleneck=0), "bottleneck is a fraction"),
        (lambda: zoo.create_model("relu_small_plain15", depth=15.5), "15, 30, 52.* received 15.5"),
        (lambda: zoo.create_model("relu_small_plain15", depth="15"), "15, 30, 52.* received '15'"),
        (lambda: zoo.create_model("relu_small_plain15", dropout=(0.5,)), "dropout is one number"),
        (lambda: zoo.create_model("elu_net11", dropout=0.5), "dropout is a list with a rate"),
        (lambda: zoo.create_model("elu_net11", dropout=(0.5, "0.1")), "each rate of dropout is one number"),
        (lambda: zoo.create_model("elu_net11", depth=11.0), "11 or 18"),
        (lambda: zoo.create_model("elu_net15", dropout=(0.5, 0.5)), "dropout is one number"),
        (lambda: zoo.create_model("elu_net15", stem_stride=1.5), "stem_stride is an integer"),
        (lambda: zoo.create_model("mpelu_nin", dropout=1), "dropout is one number, at least 0 and below 1"),
        (lambda: zoo.create_model("mpelu_nin", num_classes=2.5), "num_classes is an integer"),
        (lambda: zoo.create_model("mpelu_nin", alpha="0.25"), "alpha is a number"),
        (lambda: zoo.create_model("mpelu_resnet20", stochastic_depth="a"), "stochastic_depth is one number"),
        (lambda: zoo.create_model("mpelu_resnet20", input_shape=32), r"input_shape is \(height, width, channels\)"),
        (lambda: zoo.create_model("mpelu_resnet20", input_shape=(32, 32.0, 3)), "input_shape is .height"),
        (lambda: zoo.create_model("mpelu_resnet20", input_shape=(32, 32, None)), "input_shape is .height"),
        (lambda: zoo.create_model("mpelu_resnet20", mean=0.5), "a mean and a std per channel"),
        (lambda: zoo.create_model("mpelu_resnet20", std=(0, 0, 0)), "std is above 0"),
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
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name", ["relu_resnet20", "mpelu_nopre_resnet29", "mpelu_preact_resnet164", "elu_net11", "mpelu_nin", "elu_plain30"]
)
def test_networks_are_the_same_where_keras_is_told_channels_first(name):
    """In keras.json or by a call: images here are (height, width, channels) in any case."""
    expected = [(layer.name, layer.output.shape) for layer in zoo.create_model(name).layers]
    try:
        keras.config.set_image_data_format("channels_first")
        model = zoo.create_model(name)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert [(layer.name, layer.output.shape) for layer in model.layers] == expected


def test_features_of_a_network_that_classifies_a_map_are_pooled_channels_last(tmp_path):
    folder = zoo.save_model(zoo.create_model("mpelu_nin"), tmp_path / "net")
    try:
        keras.config.set_image_data_format("channels_first")
        features = zoo.load_model(folder, features=True)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert features.output_shape == (None, 192)


def test_the_index_is_of_what_is_published_and_not_of_what_else_lies_there(tmp_path, monkeypatch):
    name = "snn_mlp2.wine"
    (tmp_path / name).symlink_to(BUNDLED / name)
    for other in (".snn_mlp2.wine.new", "snn_mlp2.mine"):  # what a save left, and what has no pin yet
        (tmp_path / other).mkdir()
    monkeypatch.setattr(index, "BUNDLED", tmp_path)
    monkeypatch.setattr(index, "published_weights", lambda: {name: "its pin"})
    assert list(index.make_index(models_only=True)["models"]) == [name]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--namespace", "somebody"), "--namespace is of the Hub: give --remote too"),
        (("--remote", "--pretrained"), "--remote lists models with weights alone"),
    ],
)
def test_options_of_list_that_do_not_go_together(options, words, capsys):
    assert zoo_command(["list", *options]) == 1
    printed = capsys.readouterr()
    assert words in printed.err and not printed.out
