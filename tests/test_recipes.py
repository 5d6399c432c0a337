"""Recipes: one for every network, the papers' numbers in them, and data of one's own."""

import dataclasses
import inspect
import json

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from training import get_recipe
from training import loop
from training import recipes
from training import run
from training.__main__ import main as training_command
from training.card import is_of_a_recipe
from training.optimizer import CoupledSGD
from training.recipes import _recipes
from zoo.card import known_dataset
from zoo.datasets import list_datasets
from zoo.registry import architectures

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_every_network_has_a_recipe_whose_settings_its_builder_takes():
    known = {*list_datasets(), "imagenet"}
    for arch in zoo.list_models():
        default = get_recipe(arch)
        own = [recipe for recipe in _recipes().values() if recipe.arch == arch]
        assert own[0] == default and default.dataset in known
        builder, _, family = architectures()[arch]
        for recipe in own:
            assert recipe.dataset in known
            assert set(recipe.overrides) <= set(inspect.signature(builder).parameters), recipe.name
            assert recipe.notes
        if family != "snn":
            modern = get_recipe(f"{default.name.partition('-')[0]}-modern")
            assert (modern.schedule, modern.rates) == ("cosine", ()) and modern.average
            # What did not help the small networks on held-out rows is not in their recipe.
            basic = family in ("resnet", "elu_resnet") and not arch.endswith(("110", "1202"))
            large = not basic and arch != "mpelu_nopre_resnet29"
            for part in ("label_smoothing", "cutmix", "mixup", "erase"):
                assert bool(getattr(modern, part)) == large, part
            residual = "stochastic_depth" in inspect.signature(builder).parameters
            assert ("stochastic_depth" in modern.overrides) == (large and residual)
            if default.schedule == "steps" and residual:  # the paper's own recipe: there is a shorter one too
                short = get_recipe(f"{default.name}-short")
                assert (short.epochs, short.schedule, short.l2) == (50, "cosine", 5e-4)
        else:
            assert {f"{arch}.uci-adult", f"{arch}.wine"} <= set(_recipes())


def test_teachers_are_published_larger_networks_of_the_same_data():
    models = zoo.list_models(pretrained=True)
    distilled = [recipe for name, recipe in _recipes().items() if name.endswith("-distilled")]
    assert "mpelu_resnet20.cifar100-distilled" in [recipe.name for recipe in distilled]
    for recipe in distilled:
        assert recipe.teachers and set(recipe.teachers) <= set(models)
        for teacher in recipe.teachers:
            assert get_recipe(teacher).dataset == recipe.dataset
            assert zoo.model_info(teacher)["parameters"] > zoo.model_info(recipe.arch)["parameters"]
        # Else it is the modern recipe: so their difference is what the teachers do.
        modern = dataclasses.asdict(get_recipe(recipe.name.replace("-distilled", "-modern")))
        changed = {field for field, value in dataclasses.asdict(recipe).items() if value != modern[field]}
        assert changed == {"name", "notes", "teachers", "distillation", "temperature"}


@pytest.mark.parametrize(
    "name, steps, first_steps",  # steps of an epoch; the first step with each rate: mpelu.md d and f
    [
        ("mpelu_nin", 50000 // 128, {0: 0.1, 256 * 390: 0.01}),
        ("elu_plain30", 20000, {0: 0.01, 100_000: 0.001, 600_000: 1e-4}),
        ("elu_net11.cifar100", 500, {0: 0.01, 35_000: 0.005, 85_000: 5e-4, 135_000: 5e-5}),
        ("elu_net18.cifar10", 500, {0: 0.01, 35_000: 0.001}),
        ("mpelu_nopre_endbn_resnet164", 390, {0: 0.01, 390: 0.1, 80 * 390: 0.01, 121 * 390: 0.001}),
        ("snn_mlp8.uci-letter", 1000, {0: 0.01, 99_999: 0.01}),
    ],
)
def test_the_papers_schedules(name, steps, first_steps):
    recipe = get_recipe(name)
    schedule = loop.learning_rate_schedule(recipe, steps)
    rate_at = schedule if callable(schedule) else lambda step: schedule
    rates = list(first_steps.values())
    for number, step in enumerate(first_steps):
        assert float(rate_at(step)) == pytest.approx(rates[number])
        if number:
            assert float(rate_at(step - 1)) == pytest.approx(rates[number - 1])
    assert float(rate_at(recipe.epochs * steps)) == pytest.approx(rates[-1])


@pytest.mark.parametrize(
    "name, expected",  # weight -> multipliers of rate and decay: mpelu.md c4
    [
        (
            "mpelu_nin",
            {
                "stack1_conv1/kernel": (1, 1),
                "stack1_conv1/bias": (2, 0),
                "stack3_act2/alpha": (2, 0),
                "classifier/kernel": (0.1, 1),
                "classifier/bias": (0.1, 0),
                "classifier_act/beta": (2, 0),
            },
        ),
        ("prelu_nin", {"stack1_act1/alpha": (1, 1), "stack2_conv3/bias": (2, 0)}),
        (
            "mpelu_small_plain15",
            {"conv3/kernel": (1, 1), "classifier/bias": (2, 0), "conv3_act/alpha": (2, 1), "fc2_act/beta": (2, 1)},
        ),
        ("mpelu_small_plain30", {"conv3/bias": (2, 0), "fc1/bias": (2, 0), "conv27_act/alpha": (1, 0)}),
        ("mpelu_resnet20.cifar100-paper", {"stem_act/alpha": (1, 1), "stage1_unit1_act2/beta": (1, 1)}),
        ("mpelu_resnet20.cifar100-dagger", {"stem_act/alpha": (1, 1)}),
        ("mpelu_b_resnet20.cifar100-warmup", {"stem_act/alpha": (1, 1)}),
        ("mpelu_b_resnet20.cifar100-paper", {"stage1_unit1_act1/alpha": (1, 1)}),
        ("mpelu_nonbottleneck_resnet20.cifar100-paper", {"stage1_unit1_act1/alpha": (5, 10)}),
        ("mpelu_nin.cifar10-modern", {"stack1_conv1/bias": (1, 1), "stack1_act1/alpha": (5, 0)}),
    ],
)
def test_the_papers_multipliers(name, expected):
    recipe = get_recipe(name)
    model = loop.build(recipe, 10)
    optimizer = CoupledSGD(multipliers=recipe.multipliers)
    optimizer.build(model.trainable_variables)  # a pattern that fits no weight is an error
    found = dict(zip([w.path for w in model.trainable_variables], optimizer._multipliers_by_index, strict=True))
    assert {path: found[path] for path in expected} == expected


def test_a_csv_of_ones_own(tmp_path, capsys):
    rng = np.random.default_rng(0)
    lines = ["kind,width,height"]
    for number in range(60):
        x = rng.normal(size=2) + (3 if number % 2 else 0)
        lines.append(f"{'big' if number % 2 else 'small'},{x[0]},{x[1]}")
    (tmp_path / "my things.csv").write_text("\n".join(lines))
    command = ["train", "snn_mlp2", "--data", str(tmp_path / "my things.csv"), "--label", "kind", "--epochs", "3"]
    assert training_command([*command, "--out", str(tmp_path / "runs"), "--seeds", "3", "4"]) == 0
    assert "on 12 test rows of own_my_things" in capsys.readouterr().out
    folder = tmp_path / "runs" / "snn_mlp2.own_my_things" / "snn_mlp2.own_my_things"
    details = json.loads((folder / "recipe.json").read_text())
    assert details["class_names"] == ["big", "small"] and details["feature_names"] == ["width", "height"]
    assert details["data"]["train_rows"] == 48 and details["data"]["name"] == "own_my_things"
    card = (folder / "README.md").read_text()
    assert "Rescaled from 60 to 3 epochs" in card and "48 rows of own_my_things" in card and "of seeds [3, 4]" in card
    assert "The recipe of snn_mlp2.digits, whose values were set for other data." in card
    assert "| seeds | [3, 4] |" in card and " minutes for all 2 seeds on " in card
    # It may be published, and is still known for anyone's own: no test rows that `publish` or `evaluate` would load.
    for file in folder.rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file
    assert known_dataset(details) is None and not is_of_a_recipe(details)
    assert training_command(["publish", folder.name, "--folder", str(folder), "--dry-run"]) == 0
    assert "the data are one's own" in capsys.readouterr().out
    # The same command finds its run.
    assert training_command([*command, "--out", str(tmp_path / "runs"), "--seeds", "3", "4"]) == 0
    model = zoo.load_model(str(folder))
    assert model.predict(np.zeros((1, 2), "float32"), verbose=0).shape == (1, 2)


def test_images_of_ones_own_are_not_standardised_by_those_of_cifar():
    assert "mean" in get_recipe("mpelu_nin").overrides
    assert not {"mean", "std"} & set(get_recipe("mpelu_nin").on_own_data("flowers").overrides)


def test_another_dtype_is_another_run_that_says_so(tmp_path, capsys):
    command = ["train", "snn_mlp2.wine", "--epochs", "1", "--out", str(tmp_path)]
    assert training_command([*command, "--dtype", "mixed_bfloat16"]) == 0
    folder = tmp_path / "snn_mlp2.wine" / "snn_mlp2.wine"
    assert json.loads((folder / "recipe.json").read_text())["recipe"]["dtype"] == "mixed_bfloat16"
    assert (
        "`python -m training train snn_mlp2.wine --epochs 1 --dtype mixed_bfloat16`"
        in (folder / "README.md").read_text()
    )
    assert "in 5-fold stratified cross-validation over all 178 rows" in (folder / "README.md").read_text()
    assert {weight.dtype for weight in zoo.load_model(str(folder)).weights} == {"float32"}
    assert training_command(command) == 1  # the recipe's own, float32
    said = (
        "is of another run (seeds [0], 1 epochs) than this one (seeds [0], 1 epochs), which would replace it (it has "
    )
    assert f"{said}dtype 'mixed_bfloat16', here 'float32');" in capsys.readouterr().err


def test_a_family_of_images_without_a_recipe_says_so(monkeypatch):
    index = {"architectures": {"mynet20": {"family": "mynet", "input_shape": [32, 32, 3]}}, "models": {}}
    monkeypatch.setattr("zoo.registry.read_index", lambda: index)
    monkeypatch.setattr(recipes, "TABULAR", {})
    recipes._recipes.cache_clear()
    try:
        for name in ("mynet20", "mynet20.digits"):
            with pytest.raises(ValueError, match="mynet20 has no recipe: give its family, 'mynet', a line in IMAGES"):
                get_recipe(name)
    finally:
        recipes._recipes.cache_clear()


@pytest.mark.parametrize(
    "flags, slow", [("sse2 avx2 fma", True), ("avx2 avx512_bf16", False), ("fp asimd bf16", False)]
)
def test_bfloat16_is_named_slow_where_the_processor_cannot_compute_in_it(tmp_path, flags, slow):
    (tmp_path / "cpuinfo").write_text(f"model name\t: bf16-less\nflags\t\t: fpu {flags} sse\n")
    assert run.bfloat16_is_slow(tmp_path / "cpuinfo") is slow
    assert run.bfloat16_is_slow(tmp_path / "nowhere") is None  # macOS and Windows do not tell


@pytest.mark.parametrize(
    "slow, dtype, said",
    [(True, "mixed_bfloat16", 1), (None, "mixed_bfloat16", 1), (True, "float32", 0), (False, "mixed_bfloat16", 0)],
)
def test_a_run_in_slow_bfloat16_names_the_way_out_before_it_begins(tmp_path, monkeypatch, capsys, slow, dtype, said):
    monkeypatch.setattr(run, "bfloat16_is_slow", lambda: slow)
    with pytest.raises(loop.Interrupted):
        run.train(get_recipe("snn_mlp2.wine"), out=tmp_path, dtype=dtype, stop_after=0)
    assert capsys.readouterr().err.count("--dtype float32 makes another run") == said


def test_a_folder_of_images_of_ones_own(tmp_path, monkeypatch):
    fitted, fit = [], loop.fit

    def kept(*given, **options):
        fitted.append(fit(*given, **options))
        return fitted[-1]

    monkeypatch.setattr(loop, "fit", kept)
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 100, (20, 24, 3), "uint8")).save(tmp_path / "pets" / name / f"{number}.png")
    recipe = dataclasses.replace(
        get_recipe("relu_resnet20.cifar10-modern"), epochs=1, batch_size=8, warmup_epochs=0, dtype="float32"
    )
    recipe = dataclasses.replace(recipe, overrides={**recipe.overrides, "depth": 8, "stochastic_depth": 0.1})
    weights = run.train(recipe, data=tmp_path / "pets", out=tmp_path / "runs", publish="average")
    assert weights.name == "relu_resnet20.own_pets-modern"
    details = json.loads((weights / "recipe.json").read_text())
    assert details["class_names"] == ["cats", "dogs"]
    assert details["data"]["train_rows"] == 16 and details["data"]["test_rows"] == 4
    assert details["recipe"]["publish"] == "average" and details["recipe"]["overrides"]["stochastic_depth"] == 0.1
    model = zoo.load_model(str(weights))
    for value, average in zip(model.get_weights(), fitted[0].average, strict=True):
        np.testing.assert_array_equal(value, average)
    mean = keras.ops.convert_to_numpy(model.get_layer("preprocess").mean)
    assert (abs(mean - 50) < 10).all()  # its own, not CIFAR-10's 125


def test_imagenet_is_to_be_given(capsys):
    assert training_command(["train", "relu_plain30"]) == 1
    assert "relu_plain30.imagenet: imagenet cannot be loaded by its name; give a folder" in capsys.readouterr().err
