"""Figures on labelled files of one's own, against the data set's, scikit-learn's and counts by hand."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

import training.__main__
import zoo
import zoo.__main__
from zoo import tables
from zoo.folders import write_sums
from zoo.labelled_files import evaluate_files
from zoo.prediction import predict_files

IMAGES, TABLE = "mpelu_resnet20.cifar100", "snn_mlp2.wine"
TWO_CLASSES = "snn_mlp4.breast_cancer"  # malignant, benign: not by the alphabet


def write(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(name, label):
    """The test rows of a data set for a CSV, the label in the middle and the columns the other way round."""
    dataset = zoo.load_dataset(name)
    header = [*dataset.feature_names[:5:-1], label, *dataset.feature_names[5::-1]]
    rows = [
        [*map(repr, x[:5:-1].tolist()), dataset.class_names[y], *map(repr, x[5::-1].tolist())]
        for x, y in zip(dataset.x_test, dataset.y_test, strict=True)
    ]
    return header, rows


@pytest.fixture(scope="module")
def wine():
    return labelled("wine", "cultivar")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four images of noise, under two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, count in (("apple", 3), ("whale", 1)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (32, 32, 3), "uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def evaluate(*arguments):
    return zoo.__main__.main(["evaluate", *map(str, arguments)])


def test_a_csv_gives_the_figures_of_the_data_set(wine, tmp_path, capsys):
    path = write(tmp_path / "wine.csv", *wine)
    expected = zoo.evaluate(TABLE, "wine")
    assert evaluate_files(TABLE, path, "cultivar") == pytest.approx(expected)
    assert evaluate(TABLE, "--data", path, "--label", "cultivar", "--json") == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx({"name": TABLE, "data": str(path), **expected})


def test_the_labels_are_in_the_models_order(tmp_path, capsys):
    path = write(tmp_path / "cells.csv", *labelled("breast_cancer", "label"))
    expected = zoo.evaluate(TWO_CLASSES, "breast_cancer")
    assert evaluate_files(TWO_CLASSES, path) == pytest.approx(expected)
    assert evaluate(TWO_CLASSES, "--data", path) == 0
    assert f"rows of {path}:\ntop-1 {100 * expected['top1']:.2f} %" in capsys.readouterr().out


def test_one_output_may_stand_for_two_classes(tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(inputs))
    model.layers[-1].set_weights([np.float32([[1.0]]), np.float32([0.0])])
    zoo.save_model(model, tmp_path / "model", details={"class_names": ["no", "yes"], "feature_names": ["x"]})
    path = write(tmp_path / "a.csv", ["x", "label"], [["2", "yes"], ["1", "no"], ["-1", "no"], ["-3", "no"]])
    figures = evaluate_files(tmp_path / "model", path)
    chances = 1 / (1 + np.exp([-2.0, 1.0, -1.0, -3.0]))
    assert (figures["top1"], figures["rows"]) == (0.75, 4)
    assert figures["loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-5)


def test_a_folder_of_class_folders_counts_what_is_right(pictures, tmp_path, capsys):
    """Each picture is put under the class that `predict` sees, but for one: three of four are right."""
    files = sorted(pictures.glob("*/*.png"))
    seen = [row["top5"] for row in predict_files(IMAGES, files)]
    names = [best[0][0] for best in seen[:3]] + [seen[3][1][0]]  # of the last the second likeliest
    for name, file in zip(names, files, strict=True):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{file.parent.name}{file.name}").write_bytes(file.read_bytes())
    figures = evaluate_files(IMAGES, tmp_path)
    assert (figures["top1"], figures["top5"], figures["rows"]) == (0.75, 1.0, 4)
    true = [dict(best)[name] for best, name in zip(seen, names, strict=True)]
    assert figures["loss"] == pytest.approx(-np.log(true).mean(), abs=1e-4)
    (tmp_path / names[0] / "notes.txt").write_text("")
    assert evaluate(IMAGES, "--data", tmp_path, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["top1"] == 0.75 and "left out as no images (1 .txt)" in printed.err


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A model of a number, made of a table with texts and missing cells, and another table of the kind."""
    folder, random = tmp_path_factory.mktemp("houses"), np.random.default_rng(0)

    def rows(count):
        size, colour = random.normal(100, 20, count), random.choice(["red", "blue"], count)
        price = 2000 * size + 50000 * (colour == "red")
        shown = [f"{s:.1f}" if chance > 0.1 else "NA" for s, chance in zip(size, random.random(count), strict=True)]
        return [list(row) for row in zip(shown, colour, [f"{p:.0f}" for p in price], strict=True)]

    header = ["size", "colour", "price"]
    data = write(folder / "houses.csv", header, rows(120))
    arguments = ["finetune", "snn_mlp2", "--data", data, "--target", "price", "--epochs", 30, "--out", folder / "model"]
    assert training.__main__.main(list(map(str, arguments))) == 0
    return folder / "model", header, rows(25)


def test_a_model_of_numbers_gives_the_figures_of_scikit_learn(houses, tmp_path, capsys):
    model, header, rows = houses
    path = write(tmp_path / "new.csv", header, rows)
    figures = evaluate_files(model, path)
    predicted = [row["value"] for row in predict_files(model, [path])]
    truth = [float(row[2]) for row in rows]
    assert figures["rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(truth, predicted))
    assert figures["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(truth, predicted))
    assert figures["r2"] == pytest.approx(sklearn.metrics.r2_score(truth, predicted))
    assert figures["rows"] == 25
    assert evaluate(model, "--data", path) == 0
    assert f"R2 {figures['r2']:.3f}" in capsys.readouterr().out
    renamed = write(tmp_path / "renamed.csv", ["size", "colour", "paid"], rows)
    assert evaluate_files(model, renamed, "paid") == figures
    ignoring = shutil.copytree(model, tmp_path / "ignoring")  # a model whose own table had a column of one value
    details = json.loads((ignoring / "recipe.json").read_text())
    details["table"]["columns"].append(tables.Column("year", "ignored", reason="constant")._asdict())
    (ignoring / "recipe.json").write_text(json.dumps(details))
    write_sums(ignoring)
    moved = write(tmp_path / "moved.csv", [*header[:2], "year"], rows)
    assert evaluate_files(ignoring, moved, "year") == figures
    same = write(tmp_path / "same.csv", header, [[*row[:2], "1000"] for row in rows[:3]])
    assert "r2" not in evaluate_files(model, same)
    assert evaluate(model, "--data", same) == 0
    assert "no R2: one value only" in capsys.readouterr().out


def test_info_tells_of_the_folder_of_ones_own_model(houses, capsys):
    assert zoo.__main__.main(["info", str(houses[0])]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.count(" ") > 1)
    results = json.loads((houses[0] / "recipe.json").read_text())["results"]
    assert (shown["name"], shown["task"], shown["predicts"]) == ("model", "regression", "price")
    assert shown["rmse"] == f"{results['rmse']:.6g}" and shown["card"].endswith("README.md")
    assert "own_houses, 77 training rows, 24 test rows" in shown["data"]
    assert zoo.__main__.main(["info", str(houses[0] / "nothing")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_info_tells_what_little_a_folder_says_and_knows_names_beside_folders(tmp_path, monkeypatch, capsys):
    inputs = keras.Input((2,))
    folder = zoo.save_model(keras.Model(inputs, keras.layers.Dense(3)(inputs)), tmp_path / "snn_mlp4")
    (folder / "recipe.json").write_text(
        json.dumps({"data": {"name": None, "train_rows": "many"}, "class_names": [*"abc"]})
    )
    (folder / "SHA256SUMS").unlink()
    assert zoo.__main__.main(["info", f"{folder}/"]) == 0
    shown = capsys.readouterr().out
    assert "name               snn_mlp4\ndata               own data\nclasses            3: a, b, c\nsize" in shown
    monkeypatch.chdir(tmp_path)
    assert zoo.__main__.main(["info", "snn_mlp4"]) == 0
    assert "zoo/snn.py" in capsys.readouterr().out  # the architecture; ./snn_mlp4 is the folder


def test_what_is_no_labelled_data_of_the_model_is_told(wine, houses, pictures, tmp_path, capsys):
    header, rows = wine
    model, columns, prices = houses

    def csv_of(header, rows):
        return write(tmp_path / f"{len(list(tmp_path.iterdir()))}.csv", header, rows)

    def cell(rows, number, place, text):
        return [[text if (k, p) == (number, place) else old for p, old in enumerate(row)] for k, row in enumerate(rows)]

    place = header.index("cultivar")
    unknown = tmp_path / "unknown"
    (unknown / "Apple").mkdir(parents=True)
    (unknown / "Apple" / "1.png").write_bytes((pictures / "whale" / "0.png").read_bytes())
    (tmp_path / "empty" / "apple").mkdir(parents=True)
    for arguments, message in (
        ((TABLE, csv_of(header, rows)), "has no column 'label' to compare with; its columns are"),
        (
            (TABLE, csv_of(header, cell(rows, 1, place, "barolo")), "cultivar"),
            "line 3, column 'cultivar' has the label",
        ),
        ((TABLE, csv_of(header, cell(rows, 0, place, " ")), "cultivar"), "line 2, column 'cultivar' has no label"),
        ((TABLE, csv_of(header[1:], [row[1:] for row in rows]), "cultivar"), "lacks the columns"),
        ((TABLE, pictures), "takes the rows of a table: give a CSV file"),
        ((IMAGES, csv_of(header, rows)), "takes images: give a folder of class folders"),
        ((IMAGES, unknown), "unknown class folder of .*: 'Apple'; close: apple"),
        ((IMAGES, pictures, "class"), "--label is for a CSV"),
        ((model, csv_of(columns, prices), "colour"), "'colour' of .* is one of the model's inputs"),
        ((TABLE, csv_of(header, rows), header[0]), "is one of the model's inputs; give that of the truth by --label"),
        ((IMAGES, tmp_path / "empty"), "has 0 images; expected one or more"),
        ((model, csv_of(columns, cell(prices, 2, 2, "dear"))), "line 4, column 'price': 'dear' is no finite number"),
        ((model, csv_of(columns[:2], [row[:2] for row in prices])), "has no column 'price' to compare with"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_files(*arguments)
    with pytest.raises(FileNotFoundError, match="no folder or CSV file"):
        evaluate_files(TABLE, tmp_path / "none.csv")
    for arguments, message in (
        (("--label", "cultivar"), "--label is a column of a CSV of your own"),
        (("--data", tmp_path, "--data-dir", tmp_path), "leave it out beside --data"),
    ):
        assert evaluate(TABLE, *arguments) == 1
        assert message in capsys.readouterr().err
