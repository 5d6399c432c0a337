"""One's own table: columns of all kinds, missing cells, classes and numbers to predict, and bad input."""

import csv
import json
import math
import signal

import keras
import numpy as np
import pytest

import training.__main__
import zoo.__main__
from keras_mpelu import OneHotColumns
from training.own_data import hold_out
from zoo import tables
from zoo.csv_files import read_csv
from zoo.csv_files import read_table

pytestmark = pytest.mark.usefixtures("quick_compilation")


def command(module, *arguments):
    return module.__main__.main([str(argument) for argument in arguments])


def write(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def mixed_rows(count=150, seed=0):
    """colour decides on the class but for size; size is missing in a fifth, code is a number that is a category."""
    random = np.random.default_rng(seed)
    colours = random.choice(["red", "green", "blue"], count)
    sizes = random.normal(50, 10, count)
    codes = random.choice([7, 300], count)
    classes = np.where((colours == "red") ^ (codes == 7), "yes", "no")
    cost = 3 * sizes + 100 * (colours == "red") + 1000
    shown = [f"{size:.3f}" if chance > 0.2 else "NA" for size, chance in zip(sizes, random.random(count), strict=True)]
    rows = zip(colours, shown, codes, classes, [f"{c:.2f}" for c in cost], ["same"] * count, strict=True)
    return ["colour", "size", "code", "class", "cost", "unit"], [list(map(str, row)) for row in rows]


def test_columns_are_learned_and_encoded(tmp_path):
    header = ["number", "text", "gaps", "none", "same", "code", "y"]
    lines = ["1,b,2.5,,k,3,x", "2, a ,?,NA,k,4,y", "4,,7.5,,k,3,x"]
    path = tmp_path / "a.csv"
    path.write_text(",".join(header) + "\n" + "\n".join(lines) + "\n")
    table = tables.learn(path, *read_csv(path), "y", categorical=["code"])
    assert [column.kind for column in table.columns] == [
        *("number", "category", "number", "ignored", "ignored", "category")
    ]
    assert [column.reason for column in table.columns[3:5]] == ["empty", "constant"]
    assert (table.columns[1].vocabulary, table.columns[2].fill) == (("a", "b"), 5.0)
    assert table.feature_names() == ["number", "text", "gaps", "gaps is missing", "code"]
    assert table.sizes() == [0, 3, 0, 0, 3]
    expected = [[1, 2, 2.5, 0, 1], [2, 1, 5, 1, 2], [4, 0, 7.5, 0, 1]]
    np.testing.assert_array_equal(tables.read_rows(table, path), np.float32(expected))
    again = tables.Table.from_json(json.loads(json.dumps(table.to_json())))
    assert again == table
    # Another file: other order, no target, no ignored column, an unknown text and a missing number.
    other = write(tmp_path / "b.csv", ["code", "gaps", "text", "number"], [["9", "", "c", "nan"]])
    np.testing.assert_array_equal(tables.read_rows(again, other), np.float32([[2, 0, 5, 1, 0]]))


def test_columns_may_be_separated_by_semicolons_or_tabs(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('n;"t, (a\tb)";y\n1.5;p,q;x\n2;r;y\n')
    assert read_csv(path) == (["n", "t, (a\tb)", "y"], [(2, ["1.5", "p,q", "x"]), (3, ["2", "r", "y"])])
    path.write_text('\ufeffn\t"a;\nb"\r\n1\t2\r\n', newline="")
    assert read_csv(path) == (["n", "a;\nb"], [(3, ["1", "2"])])
    path.write_text("n,a;b;c\n1,2\n")  # a comma decides, and a tab at the end is none
    assert read_csv(path) == (["n", "a;b;c"], [(2, ["1", "2"])])
    path.write_text("\tn\n0\t1\n")
    assert read_csv(path) == (["", "n"], [(2, ["0", "1"])])
    path.write_text("n\t\n1\n")
    assert read_csv(path) == (["n"], [(2, ["1"])])
    path.write_text("n;y\n3,14;x\n")
    with pytest.raises(ValueError, match="line 2, column 'n': '3,14' is no finite number; write it without a comma"):
        read_table(path, ["n", "y"])
    path.write_text("n;y\nclosed, unknown;x\n")
    with pytest.raises(ValueError, match="'closed, unknown' is no finite number; fill or drop the row"):
        read_table(path, ["n", "y"])


def test_marks_of_missing_numbers_are_categories_among_texts(tmp_path):
    rows = [["1", "+", "a", "x"], ["-", "-", "None", "y"], ["#N/A", "<NA>", "#n/a", "x"], [".", "+", "b", "y"]]
    path = write(tmp_path / "a.csv", ["number", "sign", "text", "y"], [*rows, ["none", "-", "a", "x"]])
    table = tables.learn(path, *read_csv(path), "y")
    assert [column.kind for column in table.columns] == ["number", "category", "category"]
    assert [column.vocabulary for column in table.columns] == [(), ("+", "-"), ("None", "a", "b")]
    expected = [[1, 0, 1, 2], [1, 1, 2, 1], [1, 1, 0, 0], [1, 1, 1, 3], [1, 1, 2, 2]]
    np.testing.assert_array_equal(tables.read_rows(table, path), np.float32(expected))
    # A folder of before, in whose vocabulary such a text is.
    before = tables.Table((tables.Column("text", "category", ("#n/a", "None", "a", "b")),), "y")
    texts = write(tmp_path / "b.csv", ["text"], [[row[2]] for row in rows])
    np.testing.assert_array_equal(tables.read_rows(before, texts), np.float32([[3], [2], [1], [4]]))


def test_a_column_of_marks_alone_is_left_out(tmp_path):
    """Also where only the training rows have no number: a mark would be a category there, and a number elsewhere."""
    path = write(tmp_path / "a.csv", ["number", "marks", "y"], [["1", "-", "x"], ["2", ".", "y"]])
    assert tables.learn(path, *read_csv(path), "y").columns[1] == tables.Column("marks", "ignored", reason="empty")


def test_a_column_that_a_few_texts_keep_from_being_numbers_is_named_before_training(tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("training.finetune_table._Fit.run", lambda *_: said.append(capsys.readouterr().err))
    rows = [[str(n + 1000), f"{n},5", "SML"[n % 3], "4", "xy"[n % 2]] for n in range(12)]
    rows[6][0], rows[4][3] = "1,006", "5more"
    data = write(tmp_path / "a.csv", ["price", "decimal", "letter", "doors", "y"], rows)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--out", tmp_path / "out")
    assert command(training, *arguments, "--categorical", "doors") == 0
    price, decimal = said[0].splitlines()
    assert "'price'" in price and "line 8 has '1,006'" in price and "--categorical 'price'" in price
    assert "'decimal'" in decimal and "line 2 has '0,5'" in decimal
    assert command(training, *arguments) == 0
    assert "line 6 has '5more'" in said[1]


def test_one_hot_columns(tmp_path):
    sizes = [0, 3, 0, 2]
    x = np.float32([[0.5, 2, -1, 0], [1.5, 0, 4, 1], [2.5, 7, 0, -1]])
    expected = np.float32([[0.5, 0, 0, 1, -1, 1, 0], [1.5, 1, 0, 0, 4, 0, 1], [2.5, 0, 0, 0, 0, 0, 0]])
    layer = OneHotColumns(sizes)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), expected)
    np.testing.assert_array_equal(tables.one_hot(x, sizes), expected)
    assert layer.compute_output_shape((None, 4)) == (None, 7)
    assert OneHotColumns.from_config(layer.get_config()).sizes == sizes
    inputs = keras.Input((4,))
    np.testing.assert_array_equal(keras.Model(inputs, layer(inputs)).predict(x, verbose=0), expected)
    for wrong in ([], [-1], [1.5], [2**21]):
        with pytest.raises(ValueError, match="sizes"):
            OneHotColumns(wrong)
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        layer(np.ones((2, 5), "float32"))


@pytest.mark.parametrize(("dtype", "largest"), [("float32", 299), ("int32", 299), ("uint8", 255)])
def test_codes_are_not_rounded_in_half_precision(dtype, largest):
    """299 would be 300 there."""
    layer = OneHotColumns([0, 300], dtype="mixed_bfloat16")
    outputs = layer(np.array([[3, largest], [7, 0]], dtype))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    outputs = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    assert outputs.shape == (2, 301) and outputs[:, 1:].argmax(axis=1).tolist() == [largest, 0]
    assert outputs[:, 0].tolist() == [3, 7] and (outputs[:, 1:].sum(axis=1) == 1).all()


def test_a_blank_line_of_a_single_column_is_a_missing_cell(tmp_path):
    (tmp_path / "one.csv").write_text("height\n1.5\n\n2.5\n\n\n")
    assert read_csv(tmp_path / "one.csv")[1] == [(2, ["1.5"]), (3, [""]), (4, ["2.5"])]
    (tmp_path / "two.csv").write_text("height,width\n1.5,2\n\n2.5,3\n\n")
    assert read_csv(tmp_path / "two.csv")[1] == [(2, ["1.5", "2"]), (4, ["2.5", "3"])]


def test_classes_of_a_raw_table(tmp_path, capsys):
    header, rows = mixed_rows()
    data = write(tmp_path / "raw.csv", header, rows)
    out = tmp_path / "mine"
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "class", "--out", out, "--learning-rate", 0.01)
    arguments = (*arguments, "--epochs", 40)
    assert command(training, *arguments, "--categorical", "code", "--ignore", "cost", "--balanced") == 0
    printed = capsys.readouterr()
    assert "column 'unit' is left out: constant" in printed.err and "column 'cost' is left out: as asked" in printed.err
    details = json.loads((out / "recipe.json").read_text())
    assert details["results"]["top1"] > 0.9 and details["results"]["balanced_accuracy"] > 0.9
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "README.md").read_text()
    assert f"`python -m zoo predict ./{out.name} FILE.csv` takes the table as it is" in card
    assert "accuracy of always saying the largest class" in card and "| colour | category of 3 values |" in card
    # The raw table, with and without its target; a category that was never seen.
    assert command(zoo, "predict", out, data, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    guesses = [line["top5"][0][0] for line in lines]
    assert np.mean([guess == row[3] for guess, row in zip(guesses, rows, strict=True)]) > 0.9
    new = write(tmp_path / "new.csv", ["size", "code", "colour"], [["50", "7", "pink"], ["", "300", "red"]])
    assert command(zoo, "predict", out, new, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["top5"][0][0] == "yes"
    assert all(np.isfinite(probability) for line in lines for _, probability in line["top5"])
    # The folder is a model like any other, and is not fine-tuned once more on raw columns.
    model = zoo.load_model(str(out))
    assert model.input_shape == (None, len(details["feature_names"]))
    assert command(training, "finetune", out, "--data", data, "--target", "class", "--out", tmp_path / "b") == 1
    assert "give its architecture, 'snn_mlp2'" in capsys.readouterr().err


def test_bars_in_names_do_not_end_the_cells_of_the_card(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["a|b,kind", *(f"{rng.normal() + 3 * (n % 2)},{'x|y' if n % 2 else 'z'}" for n in range(40))]
    (tmp_path / "bars.csv").write_text("\n".join(lines))
    data, out = tmp_path / "bars.csv", tmp_path / "out"
    assert command(training, "finetune", "snn_mlp2", "--data", data, "--target", "kind", "--out", out) == 0
    card = (out / "README.md").read_text()
    assert "| a\\|b | number |" in card and "| recall of 'x\\|y' | " in card


def test_a_number_of_a_raw_table(tmp_path, capsys):
    header, rows = mixed_rows(500)
    rows = [row for row in rows if row[1] != "NA"]
    data = write(tmp_path / "raw.csv", header, rows)
    out = tmp_path / "mine"
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "cost", "--out", out, "--learning-rate", 0.003)
    assert command(training, *arguments, "--epochs", 60) == 0
    results = json.loads((out / "recipe.json").read_text())["results"]
    assert results["r2"] > 0.9 and results["rmse"] < results["rmse_of_the_mean"] / 3
    capsys.readouterr()
    assert command(zoo, "predict", out, data, "--json") == 0
    values = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    truth = np.array([float(row[4]) for row in rows])
    assert np.corrcoef(values, truth)[0, 1] > 0.95 and abs(np.mean(values) - truth.mean()) < 20
    assert "mean_absolute_error" in str(zoo.load_model(str(out)).get_compile_config())


def parts(labels, seed):
    """The numbers of the rows that `finetune` trains on, and of those that it holds out."""
    held = hold_out(np.arange(len(labels)), labels, ("a", "b"), (), 0.2, seed)
    inner = hold_out(held.x_train, held.y_train, ("a", "b"), (), 0.2, seed + 1, all_may_stay=True)
    return inner.x_train, held.x_test


def test_a_column_is_of_one_kind_whichever_rows_are_held_out(tmp_path):
    labels = np.arange(40) % 2
    _, held = parts(labels, seed=4)
    rows = [[str(number % 5 + 1), "ab"[label]] for number, label in enumerate(labels)]
    rows[held[0]][0] = "X"  # the only text among numbers
    data = write(tmp_path / "mixed.csv", ["code", "y"], rows)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--out", tmp_path / "out", "--epochs", 1)
    assert command(training, *arguments, "--seed", 4) == 0
    (column,) = json.loads((tmp_path / "out" / "recipe.json").read_text())["table"]["columns"]
    assert column["kind"] == "category" and column["vocabulary"] == ["1", "2", "3", "4", "5"]
    assert command(zoo, "predict", tmp_path / "out", data) == 0


def one_cost_apart(path, row):
    """A table whose target is 0.1 but in one row; in sums of 0.1 the mean is not 0.1 to the last digit."""
    rows = [[str(number), "7.5" if number == row else "0.1"] for number in range(40)]
    return write(path, ["n", "cost"], rows)


def test_a_number_that_is_constant_among_the_training_rows_is_one_clear_line(tmp_path, capsys):
    train, held = parts(np.zeros(40, int), seed=1)
    data = one_cost_apart(tmp_path / "a.csv", row=held[0])
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "cost", "--out", tmp_path / "out", "--seed", 1)
    assert command(training, *arguments, "--task", "regression") == 1
    said = capsys.readouterr().err
    assert f"one value only, 0.1, in column 'cost' among the {len(train)} training rows" in said and "--seed" in said
    assert not (tmp_path / "out").exists()


def test_r2_is_left_out_where_the_held_out_rows_have_one_value(tmp_path, capsys):
    train, _ = parts(np.zeros(40, int), seed=1)
    data = one_cost_apart(tmp_path / "a.csv", row=train[0])
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "cost", "--out", tmp_path / "out", "--seed", 1)
    assert command(training, *arguments, "--task", "regression", "--epochs", 2) == 0
    results = json.loads((tmp_path / "out" / "recipe.json").read_text())["results"]
    assert "r2" not in results and results["rmse"] > 0
    assert "no R2: one value only" in capsys.readouterr().out
    assert "| R2 | none: the held-out rows have one value only |" in (tmp_path / "out" / "README.md").read_text()


def test_stops_early_where_nothing_can_be_learned(tmp_path):
    random = np.random.default_rng(0)
    # The second column is as large as numbers may be.
    rows = [[f"{x:.3f}", f"{random.choice([-1, 1])}e19", str(random.integers(2))] for x in random.normal(size=60)]
    data = write(tmp_path / "noise.csv", ["x", "large", "y"], rows)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--out", tmp_path / "out")
    assert command(training, *arguments, "--learning-rate", 0.01, "--patience", 3, "--epochs", 100) == 0
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["results"]["epochs"] < 50


def test_what_stops_the_training_is_not_what_it_is_measured_on(tmp_path, monkeypatch):
    """Also: the weights kept are the best on the stopping rows, and rare classes weigh more where that is asked."""
    random = np.random.default_rng(0)
    labels = np.arange(80) % 4 == 0  # 20 rows of the rarer class
    rows = [[str(number), f"{random.normal():.3f}", "ba"[int(label)]] for number, label in enumerate(labels)]
    data = write(tmp_path / "noise.csv", ["number", "x", "y"], rows)
    train, held = parts(np.array(labels ^ True, int), seed=0)  # "a" is class 0
    given, fit = {}, keras.Model.fit

    def kept(self, x, y, **options):
        history = fit(self, x, y, **options)
        given.update(x=x, y=y, losses=history.history["val_loss"], **options)
        return history

    monkeypatch.setattr(keras.Model, "fit", kept)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--out", tmp_path / "out", "--balanced")
    assert command(training, *arguments, "--learning-rate", 0.03, "--patience", 5) == 0
    stopping = given["validation_data"]
    assert set(given["x"][:, 0]) == set(train) and set(stopping[0][:, 0]) == set(range(80)) - set(train) - set(held)
    counts = np.bincount(given["y"])
    assert given["class_weight"] == pytest.approx({0: len(train) / (2 * counts[0]), 1: len(train) / (2 * counts[1])})
    assert given["class_weight"][0] > 2 * given["class_weight"][1]
    losses = given["losses"]
    assert len(losses) == 5 + 1 + int(np.argmin(losses))  # the patience after the best
    x, y, weights = (
        stopping  # of the classes, as in training: else a rare one has hardly a say in which weights are kept
    )
    np.testing.assert_allclose(weights, [given["class_weight"][label] for label in y], rtol=1e-6)
    loss, _ = zoo.load_model(tmp_path / "out").evaluate(x, y, sample_weight=weights, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4) and losses[-1] > min(losses) * 1.001


def test_a_column_of_ids_is_told(tmp_path, capsys):
    rows = [[str(100 - n), str(n % 7), f"{n}.5", str(1000 * n + 7), "ab"[n % 2]] for n in range(30)]
    data = write(tmp_path / "a.csv", ["id", "n", "x", "price", "y"], rows)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--epochs", 1)
    assert command(training, *arguments, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    told = [line for line in printed.err.splitlines() if "a different whole number in every row" in line]
    assert len(told) == 1 and told[0].endswith("leave it out: --ignore 'id'")
    results = json.loads((tmp_path / "out" / "recipe.json").read_text())["results"]
    assert f"(the largest class alone: {100 * results['top1_of_the_largest_class']:.2f} %" in printed.out
    assert f"mean recall of the classes {100 * results['balanced_accuracy']:.2f} %)" in printed.out
    assert command(training, *arguments, "--out", tmp_path / "other", "--ignore", "id") == 0
    assert "a different whole number" not in capsys.readouterr().err


def test_rows_of_a_program_are_encoded_as_those_of_a_file(tmp_path, capsys):
    header, rows = mixed_rows(60)
    data, out = write(tmp_path / "raw.csv", header, rows), tmp_path / "out"
    assert (
        command(training, "finetune", "snn_mlp2", "--data", data, "--target", "class", "--out", out, "--epochs", 1) == 0
    )
    coded = tmp_path / "coded"
    options = ("--data", data, "--target", "class", "--categorical", "code", "--epochs", 1)
    assert command(training, "finetune", "snn_mlp2", *options, "--out", coded) == 0
    table = tables.Table.from_json(json.loads((out / "recipe.json").read_text())["table"])
    expected = tables.read_rows(table, data)
    records = [dict(zip(header, row, strict=True)) for row in rows]
    np.testing.assert_array_equal(zoo.encode_rows(records, out), expected)
    names = [column.name for column in table.columns if column.kind == "number"]

    def typed(record):
        """As pandas has it: numbers as such, and what is missing as None or NaN."""
        without = {name: cell for name, cell in record.items() if name != "class"}
        return {
            name: (math.nan if name in names else None)
            if tables.is_missing(cell)
            else float(cell)
            if name in names
            else cell
            for name, cell in without.items()
        }

    np.testing.assert_array_equal(zoo.encode_rows(map(typed, records), out), expected)
    capsys.readouterr()
    without = zoo.encode_rows([typed(records[0]) | {"colour": None}], out)
    assert without[0, 0] == 0 and capsys.readouterr().err == ""  # missing, and no category that the model does not know
    assert zoo.encode_rows([], out).shape == (0, expected.shape[1])
    codes = [record | {"code": float(record["code"])} for record in records]  # of which some are not numbers, but codes
    np.testing.assert_array_equal(zoo.encode_rows(codes, coded), zoo.encode_rows(records, coded))
    assert capsys.readouterr().err == ""
    for wrong in (records[0], ["text"]):
        with pytest.raises(ValueError, match="rows is a list of dictionaries"):
            zoo.encode_rows(wrong, out)
    with pytest.raises(ValueError, match="row 2 has the columns .*, the first one "):
        zoo.encode_rows([records[0], {"other": 1}], out)
    with pytest.raises(ValueError, match="this table lacks the columns"):
        zoo.encode_rows([{"other": 1}], out)
    with pytest.raises(ValueError, match="snn_mlp2.wine was not made of a table of one's own"):
        zoo.encode_rows(records, "snn_mlp2.wine")


def test_categories_that_the_model_does_not_know_are_told(tmp_path, capsys):
    rows = [[str(number % 2 == 0), str(number), "ab"[number % 2]] for number in range(20)]
    data = write(tmp_path / "a.csv", ["flag", "n", "y"], rows)
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "y", "--out", tmp_path / "out", "--epochs", 1)
    assert command(training, *arguments) == 0
    assert "does not know" not in capsys.readouterr().err
    new = write(tmp_path / "new.csv", ["flag", "n"], [["True", "1"], ["", "2"], ["TRUE", "3"], ["FALSE", "4"]])
    assert command(zoo, "predict", tmp_path / "out", new) == 0
    said = capsys.readouterr().err
    assert "column 'flag' has 2 of 4 cells with a category that the model does not know" in said
    assert "first in line 4: 'TRUE'; it knows 'False', 'True')" in said


def test_a_model_of_numbers_has_no_classes(tmp_path):
    header, rows = mixed_rows(40)
    data = write(tmp_path / "raw.csv", header, rows)
    out = tmp_path / "out"
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", "cost", "--out", out, "--epochs", 1)
    assert command(training, *arguments) == 0
    for given in ({"num_classes": 3}, {"classifier_activation": None}):
        with pytest.raises(ValueError, match="predicts a number, so it has no classes"):
            zoo.load_model(out, **given)


@pytest.mark.parametrize("asked", [None, 7])
@pytest.mark.parametrize("name", ["snn_mlp2", "snn_mlp2.wine"])
def test_batch_size(name, asked, tmp_path, monkeypatch):
    steps, out = steps_of(monkeypatch), tmp_path / "out"
    wine = zoo.load_dataset("wine")
    rows = [[*row, f"kind {label}"] for row, label in zip(wine.x_train, wine.y_train, strict=True)]
    data = write(tmp_path / "wine.csv", [*wine.feature_names, "label"], rows)
    options = ("--batch-size", asked) if asked else ()
    assert command(training, "finetune", name, "--data", data, "--out", out, "--epochs", 2, *options) == 0
    details = json.loads((out / "recipe.json").read_text())
    assert details["recipe"]["batch_size"] == (asked or 32)
    assert len(steps) == 2 * math.ceil(details["data"]["train_rows"] / (asked or 32))
    card = (out / "README.md").read_text()
    for row in (f"batch_size | {asked or 32}", "learning_rate | 0.001", "epochs | 2", "epochs done | 2"):
        assert f"| {row} |" in card
    assert ("| freeze | False |" in card) == ("." in name) and "flip" not in card


@pytest.mark.parametrize("target", ["class", "cost"])
def test_an_interrupted_training_keeps_what_it_has_learned(target, tmp_path, monkeypatch, capfd):
    interrupt_at(2, monkeypatch)
    header, rows = mixed_rows(60)
    data = write(tmp_path / "raw.csv", header, rows)
    out = tmp_path / "out"
    arguments = ("finetune", "snn_mlp2", "--data", data, "--target", target, "--out", out, "--epochs", 50)
    assert command(training, *arguments) == 0
    assert "interrupted: stops after this step and keeps what was learned" in capfd.readouterr().err
    assert json.loads((out / "recipe.json").read_text())["results"]["epochs"] == 3
    assert command(zoo, "predict", out, data) == 0


@pytest.mark.parametrize("when", ["on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
def test_an_interrupted_fine_tuning_keeps_what_it_has_learned(when, tmp_path, monkeypatch, capfd):
    interrupt_at(2, monkeypatch, when)
    before = signal.getsignal(signal.SIGINT)  # in a job in the background it is ignored
    wine = zoo.load_dataset("wine")
    rows = [[*row, f"kind {label}"] for row, label in zip(wine.x_train, wine.y_train, strict=True)]
    data = write(tmp_path / "wine.csv", [*wine.feature_names, "label"], rows)
    out = tmp_path / "out"
    assert command(training, "finetune", "snn_mlp2.wine", "--data", data, "--out", out, "--epochs", 50) == 0
    assert "interrupted: stops after this step" in capfd.readouterr().err
    assert json.loads((out / "recipe.json").read_text())["results"]["epochs"] == 3
    assert len((out / "history.csv").read_text().splitlines()) == 1 + 3
    assert signal.getsignal(signal.SIGINT) == before


def steps_of(monkeypatch):
    """A list that grows by the steps of trainings."""
    steps = []
    monkeypatch.setattr(keras.callbacks.TerminateOnNaN, "on_train_batch_end", lambda *_, **__: steps.append(1))
    return steps


def interrupt_at(epoch, monkeypatch, when="on_epoch_begin"):
    """Ctrl-C in an epoch, once; a second one would stop at once."""
    state = {"epoch": -1, "done": False}

    def begin(self, number, logs=None):
        state["epoch"] = number
        if when == "on_epoch_begin":
            interrupt(self, number)

    def interrupt(self, number, logs=None):
        if state["epoch"] == epoch and not state["done"]:
            state["done"] = True
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(keras.callbacks.TerminateOnNaN, "on_epoch_begin", begin)
    if when != "on_epoch_begin":
        monkeypatch.setattr(keras.callbacks.TerminateOnNaN, when, interrupt)


def bad_tables(folder):
    """(file, options, words of the error)."""
    good = [["1", "a", "x"], ["2", "b", "y"], ["3", "a", "x"], ["4", "b", "y"]]
    header = ["n", "t", "y"]

    def table(name, rows, names=header):
        return write(folder / f"{name}.csv", names, rows)

    yield table("good", good), ("--target", "z"), "no column 'z'"
    yield table("good", good), ("--ignore", "q"), "no column 'q' beside the target"
    yield table("good", good), ("--task", "regression"), "'x' is no finite number"
    yield table("good", good), ("--ignore", "n", "t"), "no column to learn from beside 'y' (as asked)"
    yield table("infinite", [["inf", *row[1:]] for row in good]), (), "line 2, column 'n': 'inf' is no finite number"
    yield table("overflow", [["1e39", *row[1:]] for row in good]), (), "'1e39' is no finite number"
    yield table("huge", [*good, ["-1e30", "a", "x"]]), (), "line 6, column 'n': '-1e30' is too large"
    yield table("one_class", [[*row[:2], "x"] for row in good]), (), "one class only, 'x'"
    yield table("one_row", good[:1]), (), "one class only"
    yield table("no_row", []), (), "has no rows"
    yield table("constant", [["5", "k", row[2]] for row in good]), (), "no column to learn from beside 'y' (constant)"
    yield table("duplicate", good, ["n", "n", "y"]), (), "the column 'n' twice"
    yield table("no_label", [*good, ["5", "a", ""]]), (), "line 6 has no label in column 'y'"
    yield table("na_label", [*good, ["5", "a", "NA"]] * 2), (), "line 6 has no label in column 'y' ('NA'"
    names = [[str(n), f"name {n}", "xy"[n % 2]] for n in range(150)]
    prices = [[str(n), "a", f"{n}.472"] for n in range(12)]
    yield table("prices", prices), (), "12 different numbers in the 12 rows of column 'y'; give --task regression"
    prices = [[str(n), "a", f"{n}.472" if n != 7 else "unknown"] for n in range(60)]
    yield table("unknown_price", prices), (), "line 9, column 'y': 'unknown' is no number, though most labels are"
    comma = [[str(n), "a", f"{n},5"] for n in range(12)]
    yield table("comma", comma), (), "line 2, column 'y': '0,5' is no number, though most labels are"
    dash = [[str(n), "a", str(n) if n != 7 else "-"] for n in range(60)]
    yield table("dash", dash), (), "line 9, column 'y': '-' is no finite number"
    digits = [[str(n), "a", str(n % 3 if n else 7)] for n in range(30)]
    tiny = [[f"{n}e-12", "a", "xy"[n % 2]] for n in range(30)]
    yield table("tiny", tiny), (), "by some 8.66e-12 around 1.45e-11, of which the network would see next to nothing"
    seconds = [[f"{1.7e12 + n:.0f}", "a", "xy"[n % 2]] for n in range(30)]
    yield (
        table("seconds", seconds),
        (),
        "which float32 cannot tell apart; subtract a constant such as the smallest of them",
    )
    yield table("lonely_digit", digits), (), "one row of class '7'"
    lonely = [[str(n), "a", f"k{min(n, 3)}"] for n in range(30)]
    yield table("three_lonely", lonely), (), "one row of class 'k0', 'k1', 'k2' (4 values"
    flags = [["1", "0", "x"], ["", "1", "y"]] * 3
    yield table("flags", flags, ["n", "n is missing", "y"]), (), "a column 'n is missing', which is also"
    yield table("names", names), (), "150 different values in column 't'"
    several = [[f"day {n}", f"name {n}", "xy"[n % 2]] for n in range(150)]
    yield table("several", several, ["the day", "t", "y"]), (), "as little can be taken as they are: 't'; to leave"
    several = [[*row, "1"] for row in several]
    names = ["the day", "t", "y", "n"]
    yield table("quoted", several, names), ("--ignore", "n"), "to leave all out: --ignore 'n' 'the day' 't'"
    german = [[f"{n},25", "a", "xy"[n % 2]] for n in range(150)]
    yield table("german", german), (), "write them as numbers such as 1234.5, or leave the column out by --ignore 'n'"
    codes = [["-", "a", "x"], *([str(n), "a", "xy"[n % 2]] for n in range(150))]
    options = "--categorical", "n"
    yield table("codes", codes), options, "151 different values in column 'n', more than 100 categories; group"
    numbers = [["-" if n == 7 else str(n) if n != 77 else "many", "a", "xy"[n % 2]] for n in range(150)]
    yield table("mostly_numbers", numbers), (), "(line 79: 'many')"
    wide = [[*map(str, np.arange(100_000) + k), "xy"[k % 2]] for k in range(4)]
    yield table("wide", wide, [*(f"c{k}" for k in range(100_000)), "y"]), (), "100000 columns"
    costs = [[str(n), "a", "3.5"] for n in range(30)]
    yield table("same_cost", costs), ("--task", "regression"), "one value only, 3.5"
    many = [[str(n), "a", str(n)] for n in range(30)]
    yield table("numbers", many), ("--balanced",), "balanced weighs classes"
    missing = [[str(n), "a", "" if n == 3 else str(n)] for n in range(30)]
    yield table("missing_target", missing), (), "line 5, column 'y': '' is no finite number"


def test_bad_tables_are_one_clear_line_and_leave_nothing(tmp_path, capsys):
    for path, options, words in bad_tables(tmp_path):
        arguments = ("finetune", "snn_mlp2", "--data", path, "--out", tmp_path / "out", "--target", "y", *options)
        assert command(training, *arguments) == 1, path
        printed = capsys.readouterr()
        lines = [line for line in printed.err.splitlines() if not line.startswith("column ")]
        assert len(lines) == 1 and words in lines[0] and len(lines[0]) < 400, (path, words, printed.err)
        assert not (tmp_path / "out").exists()
    data = write(tmp_path / "good.csv", ["n", "y"], [["1", "a"], ["2", "b"], ["3", "a"], ["4", "b"]])
    assert command(training, "finetune", "relu_resnet20", "--data", data, "--out", tmp_path / "out") == 1
    assert "'relu_resnet20' takes images" in capsys.readouterr().err
    assert command(training, "finetune", "snn_mlp2.wine", "--data", data, "--out", tmp_path / "out", "--balanced") == 1
    assert "balanced is for training an architecture" in capsys.readouterr().err
