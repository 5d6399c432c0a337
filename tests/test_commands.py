"""The shell commands: what they print, and one clear line for every bad input."""

import csv
import importlib.util
import json
import math
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from test_tables import interrupt_at
from test_tables import steps_of

import training.__main__
import zoo
import zoo.__main__
from keras_mpelu import MPELU
from keras_mpelu import WeightNormalization
from training.finetune import frozen_body
from zoo.datasets import CIFAR100_CLASSES
from zoo.demo import digits_as_images
from zoo.prediction import eight_bits
from zoo.prediction import predict_files
from zoo.prediction import read_image

ROOT = pathlib.Path(__file__).parent.parent
IMAGES, TABLE = "mpelu_resnet20.cifar100", "snn_mlp2.wine"
FIGURES = {"loss": 0.1, "top1": 1.0, "top5": 1.0, "ece": 0.1, "rows": 36}


def zoo_command(*arguments):
    return zoo.__main__.main([str(argument) for argument in arguments])


def training_command(*arguments):
    return training.__main__.main([str(argument) for argument in arguments])


@pytest.fixture
def wine_csv(tmp_path):
    """The wine data set's test rows as a CSV with the model's own columns; returns (path, header, rows)."""
    data = zoo.load_dataset("wine")
    rows = [list(map(str, row)) for row in data.x_test]

    def write(header, rows, name="wine.csv"):
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / name

    return write, list(data.feature_names), rows, data


@pytest.fixture
def digit_folders(tmp_path):
    """Forty rendered digits of each of three classes, in class folders."""
    data = zoo.load_dataset("digits")
    for label in range(3):
        folder = tmp_path / "digits" / f"digit {label}"
        folder.mkdir(parents=True)
        for number, image in enumerate(digits_as_images(data.x_train[data.y_train == label][:40])):
            Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "digits"


def processor_seconds():
    """Seconds of processor time of the ended child processes: what a command costs on an idle machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_list_and_info_in_a_fresh_interpreter_are_quick_and_load_no_backend():
    def timed(*arguments):
        started = processor_seconds()
        command = [sys.executable, "-X", "importtime", "-m", "zoo", *arguments]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        modules = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert not modules & {"keras", "tensorflow", "jax", "torch", "numpy"}
        return result.stdout, processor_seconds() - started

    listed, _ = timed("list", "mpelu*")
    assert "mpelu_nopre_resnet1001" in listed.split()
    assert min(timed("list")[1] for _ in range(3)) < 0.5
    shown, _ = timed("info", IMAGES)
    card = str(ROOT / "zoo" / "weights" / IMAGES / "README.md")
    for words in (
        "276,948",
        "40,556,800",
        "top-1",
        "paper's top-1",
        "python -m training train",
        "MB",
        "Apache-2.0",
        card,
    ):
        assert words in shown


@pytest.mark.parametrize("given, there", [(None, "1"), ("0", "0")])
def test_the_commands_turn_onednn_on_unless_told_otherwise(given, there, monkeypatch, capsys):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    assert zoo_command("list", "mpelu_resnet20") == 0
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == there


def test_the_pretrained_are_listed_by_a_pattern(capsys):
    assert zoo_command("list", "relu_resnet*", "--pretrained") == 0
    assert capsys.readouterr().out.split() == ["relu_resnet20.cifar100"]


def test_a_table_for_whoever_asks_is_theirs_to_change():
    zoo.model_info(TABLE)["seeds"].append(9)
    zoo.model_info("snn_mlp2")["input_shape"].append(9)
    assert 9 not in zoo.model_info(TABLE)["seeds"] + zoo.model_info("snn_mlp2")["input_shape"]


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_bar_is_where_somebody_sees_it(more, monkeypatch, capsys):
    """Keras writes it to stdout, which may be a file while stderr is a terminal."""
    asked = []
    monkeypatch.setattr(
        "zoo.__main__._evaluated_on_a_dataset", lambda args, progress: asked.append(progress) or ("wine", FIGURES)
    )
    for terminal in (sys.stderr, sys.stdout):
        with monkeypatch.context() as patch:
            patch.setattr(terminal, "isatty", lambda: True)
            assert zoo_command("evaluate", TABLE, *more) == 0
    assert asked == [False, not more]


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-m", "zoo", "list"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, cwd=ROOT, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


def test_an_interrupted_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr("zoo.__main__.list_models", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert zoo_command("list") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_diverged_model_predicts_nothing(wine_csv, tmp_path, capsys):
    write, header, rows, _ = wine_csv
    model = zoo.load_model(TABLE)
    model.layers[-1].bias.assign([np.nan] * 3)
    folder = zoo.save_model(model, tmp_path / "diverged")
    header = [f"column {number}" for number in range(13)]
    assert zoo_command("predict", folder, write(header, rows[:2]), "--json") == 1
    shown = capsys.readouterr()
    assert shown.out == "" and "outputs are not finite" in shown.err


def test_data_are_looked_for_where_one_says(monkeypatch, tmp_path, capsys):
    asked, load = [], zoo.load_dataset
    monkeypatch.setattr("zoo.datasets.load_dataset", lambda name, folder: asked.append((name, folder)) or load(name))
    assert zoo_command("evaluate", TABLE, "--data-dir", tmp_path) == 0
    assert asked == [("wine", str(tmp_path))]


def test_a_table_is_fine_tuned_as_one_says(wine_csv, tmp_path, capsys):
    """Labels 1, 2 and 3 as classes, and half of the rows held out."""
    write, header, rows, data = wine_csv
    path = write([*header, "kind"], [[*row, str(label + 1)] for row, label in zip(rows, data.y_test, strict=True)])
    options = ("--target", "kind", "--epochs", 1, "--validation", 0.5)
    for task in ("classification", "regression"):
        out = tmp_path / task
        assert training_command("finetune", "snn_mlp2", "--data", path, "--task", task, "--out", out, *options) == 0
        details = json.loads((out / "recipe.json").read_text())
        assert len(details["class_names"]) == {"classification": 3, "regression": 0}[task]
        assert details["data"]["test_rows"] == 18
    again = ("finetune", "snn_mlp2", "--data", path, "--target", "kind", "--out", tmp_path / "other")
    assert training_command(*again, "--validation", 1) == 1
    assert "between 0 and 1; received 1.0" in capsys.readouterr().err


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="what it sets there is for GPUs")
def test_a_deterministic_run_with_so_much_time(tmp_path):
    """In a process of its own, which TensorFlow and PyTorch then keep to it."""
    command = [sys.executable, "-m", "training", "train", "snn_mlp2.wine", "--deterministic", "--minutes", "0.02"]
    subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    home = tmp_path / "snn_mlp2.wine"
    assert json.loads((home / "seed0" / "run.json").read_text())["deterministic"] is True
    assert json.loads((home / "snn_mlp2.wine" / "recipe.json").read_text())["recipe"]["epochs"] >= 1


def test_info_of_an_architecture_gives_the_papers_figure(capsys):
    assert zoo_command("info", "mpelu_nopre_resnet164") == 0
    shown = capsys.readouterr().out
    assert "78.22 +- 0.33 % (best 78.65)" in shown
    assert "1,719,380 at 100 classes, 1,696,250 at 10 (trainable)" in shown
    assert "244,500,992 at 10 (conv" in shown


@pytest.mark.parametrize("name", [TABLE, "snn_mlp8.uci-letter", "mpelu_nopre_resnet29.cifar100"])
def test_info_gives_the_command_that_made_the_model(name, capsys):
    """As the training wrote it into the folder, and as its card and results/models.csv have it."""
    assert zoo_command("info", name) == 0
    recipe = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("recipe "))
    command = recipe.removeprefix("recipe").strip()
    folder = ROOT / "zoo" / "weights" / name
    written = json.loads((folder / "recipe.json").read_text()).get("command")
    assert command == (written or f"python -m training train {name}")
    assert f"with `{command}`" in " ".join((folder / "README.md").read_text().split())
    with open(ROOT / "results" / "models.csv", newline="") as file:
        assert {row["name"]: row["train"] for row in csv.DictReader(file)}[name] == command


def test_info_gives_the_mean_of_several_seeds(monkeypatch, capsys):
    several = zoo.model_info(TABLE) | {"seeds": [0, 4, 2], "top1_by_seed": [0.75, 0.5, 1.0]}
    monkeypatch.setattr("zoo.__main__.model_info", lambda name: several)
    assert zoo_command("info", TABLE) == 0
    assert "mean top-1         75.00 +- 25.00 % (seeds 0, 4, 2)" in capsys.readouterr().out


def test_predict_takes_images_of_any_size(tmp_path, capsys):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 41, 3), "uint8")).save(tmp_path / "colour.png")
    Image.fromarray(rng.integers(0, 256, (8, 8), "uint8")).save(tmp_path / "grey.jpg")
    assert zoo_command("predict", IMAGES, tmp_path / "colour.png", tmp_path / "grey.jpg", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [pathlib.Path(row["input"]).name for row in rows] == ["colour.png", "grey.jpg"]
    for row in rows:
        probabilities = [probability for _, probability in row["top5"]]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
        assert len(row["top5"]) == 5 and {name for name, _ in row["top5"]} <= set(CIFAR100_CLASSES)


def test_photos_are_stretched_to_the_networks_size(tmp_path):
    """Neither cut nor padded: what is red stays a quarter of the picture, what is blue the rest."""
    photo = np.zeros((20, 100, 3), "uint8")
    photo[:, :25, 0] = photo[:, 25:, 2] = 200
    Image.fromarray(photo).save(tmp_path / "wide.png")
    pixels = read_image(tmp_path / "wide.png", (32, 32, 3))
    assert pixels.shape == (32, 32, 3) and (pixels == pixels[:1]).all()
    assert (pixels[0, :6] == [200, 0, 0]).all() and (pixels[0, 10:] == [0, 0, 200]).all()


def test_files_to_predict_may_be_an_iterator(tmp_path):
    for shade in (0, 255):
        Image.new("RGB", (32, 32), (shade, 0, 0)).save(tmp_path / f"{shade}.png")
    assert len(predict_files(IMAGES, tmp_path.glob("*.png"))) == 2


def test_predict_takes_a_csv_with_its_columns_in_any_order(wine_csv, capsys):
    write, header, rows, data = wine_csv
    path = write(header[::-1], [row[::-1] for row in rows])
    assert zoo_command("predict", TABLE, path, "--json") == 0
    found = [json.loads(line)["top5"][0][0] for line in capsys.readouterr().out.splitlines()]
    expected = zoo.load_model(TABLE).predict(data.x_test, verbose=0).argmax(axis=1)
    assert found == [data.class_names[label] for label in expected]


def test_evaluate_prints_what_the_function_returns(capsys):
    assert zoo_command("evaluate", TABLE, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["top1"] == zoo.evaluate(TABLE, "wine")["top1"]
    assert zoo_command("evaluate", TABLE) == 0
    assert f"top-1 {100 * printed['top1']:.2f} %" in capsys.readouterr().out


def test_finetune_on_a_folder_of_class_folders(digit_folders, tmp_path, capsys):
    out, own = tmp_path / "mine", tmp_path / "cifar100"
    own.symlink_to(digit_folders)  # called like a data set of ours, which it is not
    assert training_command("finetune", IMAGES, "--data", own, "--out", out, "--epochs", 15) == 0
    assert "held-out rows of 3 classes" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "own data" in card and "CIFAR-100" not in card and "uoft-cs" not in card
    assert zoo_command("evaluate", out) == 1
    assert "was trained on no data set that has a name here; give one with --dataset" in capsys.readouterr().err
    model = zoo.load_model(str(out))
    assert model.output_shape == (None, 3)
    assert zoo_command("predict", out, digit_folders / "digit 1" / "0.png") == 0
    assert "digit " in capsys.readouterr().out
    assert json.loads((out / "recipe.json").read_text())["results"]["top1"] > 0.5  # chance is a third
    with open(out / "history.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(1, 16)]
    with Image.open(out / "curves.png") as picture:
        assert picture.width > 800
    assert training_command("card", out) == 0
    assert training_command("publish", "mine", "--folder", out, "--dry-run") == 0
    assert "![training curves](curves.png)" in (out / "README.md").read_text()
    assert str(tmp_path) not in (out / "recipe.json").read_text()  # it may be published


def test_finetune_on_a_csv(wine_csv, tmp_path, capsys):
    write, header, rows, data = wine_csv
    names = [f"vineyard {label}" for label in data.y_test]
    path = write(["label", *header], [[name, *row] for name, row in zip(names, rows, strict=True)])
    assert training_command("finetune", TABLE, "--data", path, "--out", tmp_path / "a", "--epochs", 2) == 0
    # Other columns: the weights mean nothing there, the architecture can be trained anew.
    other = write(
        ["label", "first", "second"], [[n, r[0], r[6]] for n, r in zip(names, rows, strict=True)], "other.csv"
    )
    assert training_command("finetune", TABLE, "--data", other, "--out", tmp_path / "b") == 1
    assert "give an architecture, such as 'snn_mlp2'" in capsys.readouterr().err
    assert training_command("finetune", "snn_mlp2", "--data", other, "--out", tmp_path / "b", "--epochs", 60) == 0
    assert zoo_command("predict", tmp_path / "b", write(["second", "first"], [["1.5", "13"]], "new.csv")) == 0
    assert "vineyard" in capsys.readouterr().out
    before = (tmp_path / "b" / "README.md").read_text()
    assert training_command("card", tmp_path / "b") == 0
    assert (tmp_path / "b" / "README.md").read_text() == before and "![report](report.png)" in before
    for name in "ab":
        assert training_command("publish", name, "--folder", tmp_path / name, "--dry-run") == 0
        assert "would publish" in capsys.readouterr().out


@pytest.fixture
def halves(tmp_path):
    """Twelve images of 8 x 8 that are bright on the left, and their mirror images, in class folders."""
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "halves" / name).mkdir(parents=True)
    for number in range(12):
        image = rng.integers(0, 100, (8, 8, 3), "uint8")
        image[:, :4] += 150
        Image.fromarray(image).save(tmp_path / "halves" / "left" / f"{number}.png")
        Image.fromarray(image[:, ::-1]).save(tmp_path / "halves" / "right" / f"{number}.png")
    return tmp_path / "halves"


def network_of_halves(folder, *layers):
    """A saved network of these layers and a Dense, which says `left` or `right`."""
    layers = [*layers, keras.layers.Flatten(), keras.layers.Dense(2, "softmax", name="classifier")]
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), *layers])
    model = keras.Model(model.inputs[0], model.outputs[0])
    rng = np.random.default_rng(1)  # also the statistics of batch norms are not those to begin with
    model.set_weights([rng.uniform(0.05, 0.15, weight.shape) for weight in model.weights])
    return zoo.save_model(model, folder, details={"class_names": ["left", "right"]})


def batch_norm_network(folder):
    """With a part that learns but for one of its layers."""
    frozen = keras.layers.Conv2D(3, 1, trainable=False, name="frozen")
    part = [keras.layers.Conv2D(4, 3, name="conv"), frozen, keras.layers.BatchNormalization(name="norm")]
    return network_of_halves(folder, keras.Sequential(part), keras.layers.BatchNormalization(name="last_norm"))


def changed(folder, other):
    """Names of the weights that are not the same in both to the last bit."""
    weights = [zoo.load_model(path).weights for path in (folder, other)]
    return {
        "/".join(one.path.split("/")[-2:])
        for one, two in zip(*weights, strict=True)
        if np.asarray(one).tobytes() != np.asarray(two).tobytes()
    }


@pytest.mark.parametrize("options", [(), ("--freeze",), ("--freeze", "--flip")])
def test_a_frozen_network_learns_in_its_head_alone(options, halves, tmp_path):
    network, out = batch_norm_network(tmp_path / "network"), tmp_path / "out"
    assert training_command("finetune", network, "--data", halves, "--out", out, "--epochs", 2, *options) == 0
    head = {"classifier/kernel", "classifier/bias"}
    norms = {f"{norm}/{name}" for norm in ("norm", "last_norm") for name in ("gamma", "beta")}
    statistics = {f"{norm}/moving_{name}" for norm in ("norm", "last_norm") for name in ("mean", "variance")}
    assert changed(network, out) == (head if options else head | norms | statistics | {"conv/kernel", "conv/bias"})
    # What is frozen while it is fine-tuned is not so for whoever loads it, unless it was before.
    assert zoo.load_model(out).get_config() == zoo.load_model(network).get_config()
    card = (out / "README.md").read_text()
    assert f"| freeze | {bool(options)} |" in card and f"| flip | {'--flip' in options} |" in card
    assert training_command("card", out) == 0
    assert (out / "README.md").read_text() == card


def test_what_is_frozen_within_a_wrapper_or_an_activation_stays_so():
    unit = MPELU(trainable=False)
    wrapper = WeightNormalization(keras.layers.Dense(3, activation=unit))
    model = keras.Sequential([keras.Input((2,)), wrapper, keras.layers.Dense(2, "softmax")])
    for learns in (False, True):
        wrapper.layer.trainable = learns
        unit.trainable = False
        with pytest.raises(ZeroDivisionError), frozen_body(model):
            assert not wrapper.trainable and not wrapper.layer.trainable
            raise ZeroDivisionError
        assert (wrapper.trainable, wrapper.layer.trainable, unit.trainable) == (True, learns, False)


def test_a_model_of_sigmoids_is_refused_before_it_is_fine_tuned(halves, tmp_path, capsys):
    model = network_of_halves(tmp_path / "network")
    sigmoids = zoo.save_model(zoo.load_model(model, classifier_activation="sigmoid"), tmp_path / "sigmoids")
    assert training_command("finetune", sigmoids, "--data", halves, "--out", tmp_path / "out") == 1
    assert "ends in a sigmoid, expected softmax or logits" in capsys.readouterr().err


def test_fine_tuning_on_larger_images(halves, tmp_path, capsys):
    network, out = tmp_path / "network", tmp_path / "out"
    model = zoo.create_model("relu_resnet20", depth=8, input_shape=(8, 8, 3), num_classes=2)
    of_its_size = zoo.save_model(model, tmp_path / "of_its_size")
    model = zoo.load_model(of_its_size, input_shape=(None, None, 3))
    zoo.save_model(model, network, details={"class_names": ["left", "right"]})
    command = ("finetune", network, "--data", halves, "--epochs", 1, "--out", out)
    assert training_command(*command) == 1
    assert "takes images of any size; say to which yours are scaled: give --image-size" in capsys.readouterr().err
    assert training_command(*command, "--image-size", 12) == 0
    assert zoo.load_model(out).input_shape == (None, 12, 12, 3)
    assert "| image_size | 12 |" in (out / "README.md").read_text()
    assert zoo_command("evaluate", out, "--data", halves) == 0  # at that size
    flat = network_of_halves(tmp_path / "flat")
    assert training_command("finetune", flat, "--data", halves, "--image-size", 12, "--out", tmp_path / "other") == 1
    assert "can load for images of shape (12, 12, 3)" in capsys.readouterr().err


def test_images_are_flipped_in_training_alone(halves, tmp_path, monkeypatch):
    network = network_of_halves(tmp_path / "network")
    ours = {(read_image(path, (8, 8, 3)).tobytes(), path.parent.name) for path in halves.glob("*/*.png")}
    seen, fit, evaluate = {}, keras.Model.fit, zoo.evaluate

    def outputs(model, x, **options):
        return keras.ops.convert_to_numpy(model(x, **options))

    def looked_at(self, x, y, **options):
        history = fit(self, x, y, **options)
        seen.update(learner=self, x=x, y=y, losses=history.history["loss"])
        return history

    def held_out(model, dataset):
        seen.update(held=dataset.x_test, labels=dataset.y_test)
        return evaluate(model, dataset)

    monkeypatch.setattr(keras.Model, "fit", looked_at)
    monkeypatch.setattr("training.finetune.evaluate", held_out)
    for option in ([], ["--flip"]):
        out = tmp_path / f"out{''.join(option)}"
        command = ("finetune", network, "--data", halves, "--out", out, "--epochs", 20, "--learning-rate", 0.01)
        assert training_command(*command, "--batch-size", 5, *option) == 0
        model, x, held = zoo.load_model(out), seen["x"], seen["held"]
        rows = zip([*x, *held], [*seen["y"], *seen["labels"]], strict=True)
        assert {(image.tobytes(), ["left", "right"][label]) for image, label in rows} == ours  # each as it is
        truth = outputs(model, held)[np.arange(len(held)), seen["labels"]]
        figures = json.loads((out / "recipe.json").read_text())["results"]
        assert figures["loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-3)
        # What the network is trained on: each image as it is or as in a mirror, by chance. An image is then as often of
        # the one class as of the other, and what can be learned is a guess, whose loss is log 2.
        x = x[np.abs(outputs(model, x) - outputs(model, x[:, :, ::-1])).max(axis=1) > 1e-3]  # that can be told apart
        assert len(x) > 15
        as_it_is, mirrored = outputs(model, x), outputs(model, x[:, :, ::-1])
        twice = [outputs(seen["learner"], x, training=True) for _ in range(2)]
        flipped = [np.isclose(found, mirrored, atol=1e-5).all(axis=1) for found in twice]
        for found, flips in zip(twice, flipped, strict=True):
            np.testing.assert_allclose(found, np.where(flips[:, None], mirrored, as_it_is), atol=1e-5)
        np.testing.assert_allclose(outputs(seen["learner"], x, training=False), as_it_is, atol=1e-5)
        if option:
            assert 3 < flipped[0].sum() < len(x) - 3 and (flipped[0] != flipped[1]).any()
            assert np.mean(seen["losses"][-10:]) > 0.5
        else:
            assert not flipped[0].any() and np.mean(seen["losses"][-10:]) < 0.2
        assert model.get_config() == zoo.load_model(network).get_config()


@pytest.mark.parametrize("asked", [None, 7])
def test_batch_size_of_images(asked, halves, tmp_path, monkeypatch):
    steps, out = steps_of(monkeypatch), tmp_path / "out"
    options = ("--batch-size", asked) if asked else ()
    network = network_of_halves(tmp_path / "network")
    assert training_command("finetune", network, "--data", halves, "--out", out, "--epochs", 3, *options) == 0
    details = json.loads((out / "recipe.json").read_text())
    assert details["data"]["train_rows"] == 20 and len(steps) == 3 * (math.ceil(20 / 7) if asked else 1)
    assert f"| batch_size | {asked or 20} |" in (out / "README.md").read_text()


def test_an_interrupted_fine_tuning_keeps_what_the_head_learned_from_flipped_images(halves, tmp_path, monkeypatch):
    interrupt_at(2, monkeypatch, "on_train_batch_end")
    network, out = batch_norm_network(tmp_path / "network"), tmp_path / "out"
    command = ("finetune", network, "--data", halves, "--out", out, "--epochs", 50, "--batch-size", 4)
    assert training_command(*command, "--freeze", "--flip") == 0
    assert changed(network, out) == {"classifier/kernel", "classifier/bias"}
    assert zoo.load_model(out).get_config() == zoo.load_model(network).get_config()
    card = (out / "README.md").read_text()
    for row in ("batch_size | 4", "epochs | 50", "epochs done | 3", "freeze | True", "flip | True"):
        assert f"| {row} |" in card


@pytest.mark.usefixtures("no_cross_validation")
def test_train_makes_a_complete_folder_and_resumes(tmp_path, capsys, monkeypatch):
    command = ("train", TABLE, "--out", tmp_path, "--epochs", 3, "--seeds", 1, 2)
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.Keeper.on_train_begin", lambda self, logs=None: setattr(self, "stop", True))
        for options, where in (((), "at step 1 of 24"), (("--stop-after", 1e-9), "before seed 1")):
            with pytest.raises(SystemExit) as stop:
                training_command(*command, *options)
            assert stop.value.code == os.EX_TEMPFAIL
            printed = capsys.readouterr().err
            assert where in printed and "the same command goes on" in printed
    assert training_command(*command) == 0
    assert "resumed at step 1 of 24" in capsys.readouterr().out
    folder = tmp_path / TABLE / TABLE
    results = json.loads((folder / "recipe.json").read_text())["results"]
    assert results["seeds"] == [1, 2] and results["top1"] == results["top1_by_seed"][0]
    assert results["top1"] == zoo.evaluate(zoo.load_model(str(folder)), "wine")["top1"]
    assert "n = 2" in (folder / "README.md").read_text()
    with open(folder / "history.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    with open(tmp_path / TABLE / "seed1" / "log.csv") as file:  # Keras's, with the interrupted epoch
        logged = [(row["epoch"], row["step"]) for row in csv.DictReader(file)]
    assert logged == [("0", "1"), ("0", "8"), ("1", "16"), ("2", "24")]


def test_tensorboard_logs(tmp_path, capsys, monkeypatch):
    command = ("train", TABLE, "--out", tmp_path / "out", "--epochs", 2, "--validation", 0.2, "--tensorboard", tmp_path)
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
        assert training_command(*command) == 1
        assert "TensorBoard's logs need tensor" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    pytest.importorskip("tensorflow", reason="Keras writes the logs with TensorFlow")
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert training_command(*command) == 0
    events = EventAccumulator(str(tmp_path / TABLE / "seed0" / "train")).Reload()
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= set(events.Tags()["tensors"])


def bad_inputs(tmp_path, write, header, rows):
    """(command, words of the error) for each bad input."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8")).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "classless").mkdir()
    (tmp_path / "lonely" / "a").mkdir(parents=True)
    (tmp_path / "lonely" / "b").mkdir()
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    (tmp_path / "not_a_model").mkdir()
    out = tmp_path / "out"
    labelled = write(["label", *header], [["x", *rows[0]], ["y", *rows[1]]], "labelled.csv")
    paired = write(["label", *header], [["xy"[number % 2], *rows[number]] for number in range(4)], "paired.csv")
    yield ("predict", "mpelu_resnet20.cifar10", tmp_path / "whole.png"), "close: mpelu_resnet20.cifar100"
    yield ("info", "nothing.like-it"), "unknown model 'nothing.like-it'"
    yield ("list", "nothing*"), "no model matches"
    yield ("evaluate", TABLE, "--dataset", "cifar1000"), "close: cifar100"
    yield ("evaluate", TABLE, "--dataset", "digits"), "takes inputs of shape (13,); digits has (64,)"
    yield ("evaluate", "snn_mlp4.digits", "--dataset", "wine"), "takes inputs of shape (64,)"
    yield ("predict", IMAGES, tmp_path / "none.png"), "no file"
    yield ("predict", IMAGES, tmp_path / "lonely"), "is a folder; give the files in it"
    yield ("predict", IMAGES, tmp_path / "empty.png"), "is empty; expected an image"
    yield ("predict", IMAGES, tmp_path / "text.png"), "is not an image that Pillow can read"
    yield ("predict", IMAGES, tmp_path / "whole.png", tmp_path / "half.png"), "is a damaged or unusable image"
    yield ("predict", TABLE, write(header[1:], [row[1:] for row in rows])), "lacks the columns 'alcohol'"
    yield ("predict", TABLE, write([*header, "more"], [[*row, "1"] for row in rows])), "further columns 'more'"
    yield ("predict", TABLE, write([*header, header[0]], [[*row, "1"] for row in rows])), "twice"
    yield ("predict", TABLE, write(header, [["high", *rows[0][1:]]])), "line 2, column 'alcohol': 'high'"
    yield ("predict", TABLE, write(header, [["nan", *rows[0][1:]]])), "'nan' is no finite number"
    yield ("predict", TABLE, write(header, [["1e39", *rows[0][1:]]])), "'1e39' is no finite number"
    yield ("predict", TABLE, write(header, [["1_0", *rows[0][1:]]])), "'1_0' is no finite number"
    yield ("predict", TABLE, write(header, [rows[0][:-1]])), "line 2 has 12 values; the header has 13"
    yield ("predict", TABLE, write(header, [])), "has no rows"
    yield ("predict", TABLE, tmp_path / "binary.csv"), "is not a CSV text file"
    yield ("predict", tmp_path / "not_a_model", tmp_path / "whole.png"), "has no config.json"
    yield ("demo", "--out", tmp_path / "no" / "such" / "picture.png"), "no folder"
    yield ("demo", "--out", tmp_path / "picture.gif"), "the path of a PNG file"
    yield ("train", "mpelu_resnet21.cifar100"), "mpelu_resnet20.cifar100"
    for name in ("cats", "dogs"):  # one of the four pictures is damaged
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(2):
            shutil.copy(tmp_path / "whole.png", tmp_path / "pets" / name / f"{number}.png")
    shutil.copy(tmp_path / "half.png", tmp_path / "pets" / "dogs" / "1.png")
    yield ("train", "relu_resnet20", "--data", tmp_path / "pets", "--out", out), "1.png is a damaged or unusable image"
    yield ("train", "snn_mlp2", "--data", tmp_path / "pets", "--out", out), "takes the columns of a table"
    yield ("train", "relu_resnet20", "--data", labelled, "--out", out), "takes images"
    yield ("train", "snn_mlp2", "--data", labelled, "--label", "klass", "--out", out), "no column 'klass'"
    yield ("train", "snn_mlp2", "--data", tmp_path / "nowhere", "--out", out), "no folder or CSV file"
    yield ("train", "snn_mlp2", "--data", labelled, "--out", out, "--bundle"), "leave bundle out"
    yield ("train", TABLE, "--out", tmp_path / "empty.png"), "is a file; give another --out"
    yield ("train", TABLE, "--out", out, "--publish", "average"), "publish='average' needs average > 0"
    yield ("finetune", IMAGES, "--data", tmp_path / "nowhere", "--out", out), "no folder or CSV file"
    yield ("finetune", IMAGES, "--data", tmp_path / "classless", "--out", out), "0 class folders; expected two or more"
    yield ("finetune", IMAGES, "--data", tmp_path / "lonely", "--out", out), "has 0 images"
    yield ("finetune", IMAGES, "--data", labelled, "--out", out), "takes images"
    yield ("finetune", TABLE, "--data", tmp_path / "lonely", "--out", out), "takes the columns of a table"
    yield ("finetune", TABLE, "--data", labelled, "--label", "klass", "--out", out), "no column 'klass'"
    yield ("finetune", TABLE, "--data", labelled, "--out", out), "one row of class 'x'"
    yield ("finetune", TABLE, "--data", labelled, "--out", tmp_path / "classless"), "exists; give another --out"
    yield ("finetune", TABLE, "--data", labelled, "--out", tmp_path / "empty.png" / "out"), "is a file; give another"
    yield ("finetune", TABLE, "--data", labelled, "--learning-rate", 0, "--out", out), "learning_rate is above 0"
    yield ("finetune", TABLE, "--data", labelled, "--epochs", 0, "--out", out), "epochs is 1 or more"
    yield ("train", TABLE, "--epochs", 0, "--out", out), "epochs is above 0"
    yield ("finetune", "snn_mlp5", "--data", labelled, "--out", out), "unknown architecture 'snn_mlp5'; close: snn_mlp"
    yield ("finetune", TABLE, "--data", labelled, "--seed", -1, "--out", out), "seed is a whole number from 0 to"
    for name in (TABLE, "snn_mlp2"):
        yield ("finetune", name, "--data", paired, "--batch-size", 0, "--out", out), "batch_size is 1 or more; received"
        yield ("finetune", name, "--data", paired, "--batch-size", 3, "--out", out), "batch_size is 1 to 2, the number"
        yield ("finetune", name, "--data", paired, "--flip", "--out", out), "paired.csv is a table: leave --flip out"
        yield ("finetune", name, "--data", paired, "--image-size", 9, "--out", out), "table: leave --image-size out"
    yield ("finetune", IMAGES, "--data", tmp_path / "lonely", "--image-size", 0, "--out", out), "1 pixel or more"
    yield ("finetune", "snn_mlp2", "--data", paired, "--freeze", "--out", out), "or give a pretrained model"


def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, wine_csv, capsys):
    write, header, rows, _ = wine_csv
    for command, words in bad_inputs(tmp_path, write, header, rows):
        run = training_command if command[0] in ("train", "finetune") else zoo_command
        status = run(*command)
        printed = capsys.readouterr()
        assert status == 1, command
        assert printed.out == "", command
        lines = printed.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], (command, words, printed.err)
        assert not (tmp_path / "out").exists(), command


def test_no_write_permission_is_one_clear_line(tmp_path, wine_csv, capsys, monkeypatch):
    write, header, rows, _ = wine_csv
    path = write(["label", *header], [[f"{n % 2}", *row] for n, row in enumerate(rows)])

    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in CI, may write anywhere
    assert training_command("finetune", TABLE, "--data", path, "--out", tmp_path / "out") == 1
    assert "no permission to write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert training_command("train", TABLE, "--out", tmp_path / "out") == 1
    assert "no permission to write" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert zoo_command("demo", "--out", tmp_path / "picture.png") == 1
    assert "a folder that may be written" in capsys.readouterr().err


def test_a_diverged_fine_tuning_says_so(tmp_path, wine_csv, capsys):
    write, header, rows, data = wine_csv
    path = write(["label", *header], [[label, *row] for label, row in zip(data.y_test, rows, strict=True)])
    command = ("finetune", "snn_mlp2", "--data", path, "--out", tmp_path / "out", "--learning-rate", 1e30)
    assert training_command(*command, "--epochs", 3) == 1
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def grey_tiff(path, values):
    Image.fromarray(np.array([values], "int32")).save(path)  # 32 bits
    return path


def sixteen_bit_pgm(path, values):
    path.write_bytes(b"P5 %d 1 65535\n" % len(values) + np.array(values, ">u2").tobytes())
    return path


def sixteen_bit_png(path, values):
    Image.fromarray(np.array([values], "uint16")).save(path)
    return path


@pytest.mark.parametrize(
    ("save", "values", "expected"),
    [
        (grey_tiff, [0, 7, 128, 255], [0, 7, 128, 255]),
        (grey_tiff, [0, 257, 32896, 65535], [0, 1, 128, 255]),
        (sixteen_bit_pgm, [0, 257, 32896, 65535], [0, 1, 128, 255]),
        (sixteen_bit_png, [0, 257, 32896, 65535], [0, 1, 128, 255]),
        # Almost black, in files that cannot hold 8 bits in this mode.
        (sixteen_bit_pgm, [0, 7, 128, 255], [0, 0, 0, 0]),
        (sixteen_bit_png, [0, 7, 128, 255], [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_of_more_than_8_bits(tmp_path, save, values, expected, channels):
    pixels = read_image(save(tmp_path / f"grey.{save.__name__[-4:].strip('_')}", values), (None, None, channels))
    assert pixels.dtype == "uint8" and pixels.tolist() == [[[value] * channels for value in expected]]


def test_a_sixteen_bit_png_as_older_pillow_opens_it(tmp_path):
    """In mode I; the newer ones open it in I;16."""
    with Image.open(sixteen_bit_png(tmp_path / "grey.png", [0, 128, 255])) as png:
        image = png.convert("I")
    assert np.asarray(eight_bits(image, "L", "PNG")).tolist() == [[0, 0, 0]]  # almost black


@pytest.mark.parametrize("values", [[-1, 5], [0, 65536]])
def test_grey_of_an_unknown_range_is_refused(tmp_path, values):
    with pytest.raises(ValueError, match=rf"32-bit pixels from {values[0]} to {values[1]}.*expected 0 to 255"):
        read_image(grey_tiff(tmp_path / "grey.tiff", values), (32, 32, 3))


def test_a_missing_backend_is_one_clear_line(tmp_path):
    code = "import sys; sys.modules['tensorflow'] = None; import zoo.__main__ as m; sys.exit(m.main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", code, "predict", TABLE, "x.csv"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: ") and "KERAS_BACKEND" in result.stderr


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="a minute of compiling; TensorFlow and PyTorch do the same"
)
def test_the_demo_measures_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("zoo.demo.EPOCHS", 2)
    monkeypatch.setattr("zoo.demo._cifar100", lambda: None)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)  # a fresh user has no data and no network
    assert zoo_command("demo", "--out", tmp_path / "picture.png") == 0
    printed = capsys.readouterr().out
    assert "fine-tune" in printed and "snn_mlp4.digits" in printed
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 800


def test_a_failed_run_of_the_queue_is_one_clear_line(tmp_path, capsys, monkeypatch):
    row = f"| one | `python -m training train {TABLE}` | 1 min | to do |"
    (tmp_path / "QUEUE.md").write_text(f"| run | command | estimate | state |\n|---|---|---|---|\n{row}\n")
    monkeypatch.setattr("training.queue._run", lambda command, stop: 1)
    assert training_command("train", "--queue", tmp_path / "QUEUE.md", "--out", tmp_path / "runs") == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1] == f"error: 1 of the queue's runs failed: {TABLE}; their messages are above"


def test_finetune_of_a_saved_model_that_names_no_columns(tmp_path, capsys):
    folder = zoo.save_model(zoo.create_model("snn_mlp2", num_features=2, num_classes=2, width=8), tmp_path / "m")
    table = tmp_path / "rows.csv"
    table.write_text("label,column 1,column 0\n" + "".join(f"{'ab'[n % 2]},{n},{-n}\n" for n in range(20)))
    assert training_command("finetune", folder, "--data", table, "--out", tmp_path / "out", "--epochs", 1) == 0
    details = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert details["feature_names"] == ["column 0", "column 1"] and details["class_names"] == ["a", "b"]
    table.write_text(table.read_text().replace("column 1", "width"))
    assert training_command("finetune", folder, "--data", table, "--out", tmp_path / "b") == 1
    said = capsys.readouterr().err
    assert "(missing: 'column 1'; further: 'width')" in said and "'snn_mlp4', to train it anew" in said
    inputs = keras.Input((5, 2))
    folder = zoo.save_model(keras.Model(inputs, keras.layers.Flatten()(inputs)), tmp_path / "rows_of_rows")
    assert training_command("finetune", folder, "--data", table, "--out", tmp_path / "b") == 1
    assert "takes inputs of shape (None, 5, 2), expected images or rows" in capsys.readouterr().err


def test_what_is_called_like_a_published_model_is_named_by_its_path(tmp_path, wine_csv, capsys, monkeypatch):
    write, header, rows, data = wine_csv
    path = write(["label", *header], [[label, *row] for label, row in zip(data.y_test, rows, strict=True)])
    monkeypatch.chdir(tmp_path)
    assert training_command("finetune", TABLE, "--data", path, "--out", TABLE, "--epochs", 1) == 0
    assert f"zoo.load_model('./{TABLE}')" in capsys.readouterr().out
