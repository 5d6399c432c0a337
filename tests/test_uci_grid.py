"""The comparison on the UCI tasks: what is planned, kept, gone on with and chosen; on small tasks made by code."""

import csv
import json
import operator
import pathlib
import time
import types

import keras
import numpy as np
import pytest

import zoo
from training import loop
from training import stacked
from training import uci as grid
from training import uci_ensemble
from training import uci_export
from training import uci_speed
from training.__main__ import UCI_BENCHMARKS
from training.__main__ import main
from training.loop import Interrupted
from training.publishing import check_publishable
from zoo import datasets
from zoo import snn
from zoo import uci
from zoo.folders import find_folder

SLICE = pathlib.Path(__file__).parents[1] / "results" / "uci" / "slice.json"
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="networks are stacked on JAX")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two tasks in data_dir, `left` (three classes) and `right`, and a slice of two methods beside the results."""
    table = {}
    for number, (task, classes) in enumerate({"left": 3, "right": 2}.items()):
        random = np.random.default_rng(number)
        rows = 40 + 8 * number
        x = random.normal(size=(rows, 3 + number))
        y = np.arange(rows) % classes
        x[:, 0] += 2 * y
        column = np.arange(rows) % 4
        place = tmp_path / "data" / "uci" / task
        place.mkdir(parents=True)
        folds = np.tile(column[:, None] == 3, 4), np.tile(column[:, None] == 2, 4)
        for name, array in zip(uci.file_names(task), (x, y, *folds), strict=True):
            np.savetxt(place / name, array, delimiter=",", fmt="%.6g")
        table[task] = uci.describe(uci.read(task, place))
    monkeypatch.setattr(uci, "facts", lambda: table)
    settings = json.loads(SLICE.read_text()) | {"width": 5, "periods": 4, "window": 2}
    settings["methods"] = {
        "SNN": [{"arch": "snn_mlp2", "depth": 2, "dropout": 0.05}],
        "LayerNorm": [{"arch": "layernorm_mlp", "depth": 2}],
    }
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "slice.json").write_text(json.dumps(settings))
    return tmp_path


def rows_of(path):
    with open(path, newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@on_jax
def test_interrupted_runs_go_on_and_end_as_an_uninterrupted_one(small):
    data = {"data_dir": small / "data", "jobs": 1}
    with pytest.raises(Interrupted, match="0 of 2 stacks"):
        grid.run(small, stop_after=0, **data)
    with pytest.raises(Interrupted):
        grid.run(small, stop_after=-1, **data)
    path = grid.run(small, ["SNN"], **data)
    before = path.read_text()
    grid.run(small, **data)
    assert path.read_text().startswith(before)  # nothing is trained twice
    rows = rows_of(path)
    assert len(rows) == 2 * 2 * 2 and len({(r["method"], r["task"], r["learning_rate"]) for r in rows}) == 8
    assert grid.run(small, **data).read_text() == path.read_text()
    path.rename(small / "interrupted.csv")
    assert rows_of(grid.run(small, **data)) == rows
    for row in rows:
        assert row["test_rows"] == {"left": "10", "right": "12"}[row["task"]]
        assert float(row["test_accuracy"]) == pytest.approx(int(row["test_right"]) / int(row["test_rows"]), abs=1e-6)
        assert 2 <= int(row["period"]) <= 4 and row["epochs"] == "4.0"


@on_jax
def test_a_kill_within_a_stack_costs_that_stack_only(small, monkeypatch):
    """One task of a stack is there already: the stack is trained for the other one alone."""
    data = {"data_dir": small / "data", "jobs": 1}
    path = grid.run(small, ["SNN"], ["left"], **data)
    assert {row["task"] for row in rows_of(path)} == {"left"}
    grid.run(small, ["SNN"], **data)
    assert [row["task"] for row in rows_of(path)] == ["left", "left", "right", "right"]


@on_jax
def test_the_speed_of_a_stack_beside_single_fits(small, monkeypatch):
    fit, taken = uci_speed._fit_alone, []
    monkeypatch.setattr(uci_speed, "_fit_alone", lambda *given: taken.append(fit(*given)) or taken[-1])
    path = uci_speed.run(small, ["SNN"], fits=2, data_dir=small / "data")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["method"] == "SNN" and row["fitted"] == "2" and row["periods"] == "4" for row in rows)
    assert len(taken) == 2 * len(rows)
    for row, first, second in zip(rows, taken[::2], taken[1::2], strict=True):
        of_all = int(row["networks"]) * (first[0] + second[0]) / 2  # by the mean of those that were fitted
        assert float(row["fit_seconds"]) == pytest.approx(of_all, abs=0.051) and float(row["stacked_seconds"]) > 0
        ratio = float(row["fit_seconds"]) / float(row["stacked_seconds"])
        assert float(row["speed_up"]) == pytest.approx(ratio, rel=0.2, abs=0.2)


@on_jax
def test_export_is_the_selected_network(small):
    """On the folder of weights: the row of runs.csv, by zoo.evaluate on the authors' column."""
    slice_path = small / "uci" / "slice.json"  # of the validation rows, 10 and 12, the curve takes 11 at most
    slice_path.write_text(json.dumps(json.loads(slice_path.read_text()) | {"validation_rows": 11}))
    data = {"data_dir": small / "data"}
    (small / "uci" / "runs.csv").write_text(",".join(grid.FIELDS) + "\n")
    with pytest.raises(ValueError, match="has 0 of the 2 configurations"):
        uci_export.run(small, ["left"], **data)
    (small / "uci" / "runs.csv").unlink()
    path = grid.run(small, ["SNN"], jobs=1, **data)
    chosen = grid.select(rows_of(path))
    home = uci_export.run(small, **data)
    for task in ("left", "right"):
        row = chosen["SNN", task, 0]
        folder = home / f"snn_mlp2.uci-{task}"
        model = zoo.load_model(str(folder))
        figures = zoo.evaluate(model, datasets.load_dataset(f"uci/{task}", small / "data"))
        assert figures["top1"] == pytest.approx(float(row["test_accuracy"]), abs=1e-6)
        details = json.loads((folder / "recipe.json").read_text())
        assert details["recipe"]["learning_rate"] == float(row["learning_rate"])
        assert details["recipe"]["period"] == int(row["period"])
        chooser = {
            "left": "the 10 validation rows of column 0 of the authors' folds chose",
            "right": "the validation rows (11 drawn from the 12 of column 0 of the authors' folds) chose",
        }[task]
        assert chooser in details["recipe"]["notes"]
        assert row["validation_rows"] == {"left": "10", "right": "11"}[task]
        assert details["results"]["top1"] == pytest.approx(figures["top1"])
        assert f"| top-1 accuracy | {100 * figures['top1']:.2f} % |" in (folder / "README.md").read_text()
        assert any("measured again on the" in said for said in check_publishable(folder.name, folder, small / "data"))
    before = sorted(home.iterdir())
    assert uci_export.run(small, **data) == home and sorted(home.iterdir()) == before


def test_the_bundled_cards_name_the_validation_rows_that_were_measured():
    """Those of runs.csv, which the training wrote down."""
    measured = {row["task"]: row["validation_rows"] for row in rows_of(SLICE.with_name("runs.csv"))}
    for name in snn.WEIGHTS:
        task = name.partition(".uci-")[2]
        if task:
            notes = json.loads((find_folder(name)[0] / "recipe.json").read_text())["recipe"]["notes"]
            rows = measured[task]
            assert f"the {rows} validation rows of column 0" in notes or f"({rows} drawn from the" in notes, name


@on_jax
def test_export_takes_the_smallest_that_is_as_good(small):
    path = small / "uci" / "slice.json"
    settings = json.loads(path.read_text()) | {"width": 40}
    settings["methods"]["SNN"].append({"arch": "snn_mlp3", "depth": 3, "dropout": 0.05})
    settings["methods"]["LayerNorm"] *= 2
    path.write_text(json.dumps(settings))
    rows = rows_of(grid.run(small, ["SNN"], ["left"], jobs=1, data_dir=small / "data"))
    row = grid.select(rows)["SNN", "left", 0]
    hard = uci_export.candidates("left", row, 1.1, settings, small / "data")
    assert [(one.network["depth"], one.width) for one in hard] == [(2, 32), (2, 40), (3, 32), (3, 40)]
    assert [one.parameters for one in hard] == sorted(one.parameters for one in hard)
    # The one that the grid selected is among them, and is trained to the same end.
    again = next(one for one in hard if (one.network["depth"], one.width) == (int(row["depth"]), 40))
    assert again.trained.accuracy == pytest.approx(float(row["validation_accuracy"]), abs=1e-6)
    easy = uci_export.candidates("left", row, 0.0, settings, small / "data")
    assert len(easy) == 1 and easy[0].trained.accuracy == hard[0].trained.accuracy

    def smallest(*accuracies, goal=0.8):
        tried = [easy[0]._replace(trained=easy[0].trained._replace(accuracy=value)) for value in accuracies]
        return tried.index(uci_export.smallest_of(tried, goal))

    assert smallest(0.7, 0.8, 0.9) == 1 and smallest(0.7, 0.75, 0.6) == 1 and smallest(0.7, 0.7999999) == 1
    diverged = easy[0]._replace(trained=easy[0].trained._replace(period=0))
    assert uci_export.smallest_of([diverged], 0.0) is None


@on_jax
def test_the_ensemble_averages_networks_of_the_folds(small):
    """Against networks that are trained one by one, whose weights are put into ordinary models."""
    data = {"data_dir": small / "data", "jobs": 1}
    with pytest.raises(ValueError, match="left has 0 of the 2 configurations"):
        uci_ensemble.run(small, ["left"], **data)
    grid.run(small, ["SNN"], **data)
    with pytest.raises(Interrupted, match="0 of 2 stacks"):
        uci_ensemble.run(small, stop_after=-1, **data)
    path = uci_ensemble.run(small, ["left"], **data)
    first = rows_of(path)
    rows = rows_of(uci_ensemble.run(small, **data))
    assert rows[: len(first)] == first and rows_of(uci_ensemble.run(small, **data)) == rows
    assert [(r["kind"], r["task"], r["seed"]) for r in rows] == [
        (kind, task, seed)
        for task in ("left", "right")
        for kind, seeds in (("another seed", "12"), ("ensemble", "0"))
        for seed in seeds
    ]
    settings = json.loads((small / "uci" / "slice.json").read_text())
    dataset = datasets.load_dataset("uci/left", small / "data")
    ensemble = next(row for row in rows if row["kind"] == "ensemble")
    network = {"arch": "snn_mlp2", "depth": 2, "dropout": 0.05}
    fold = uci_ensemble.stratified_folds(dataset.y_train, 5, 0)
    probabilities, held = [], []
    for number in range(5):
        stack = stacked.Stack(
            grid.program_of(network, settings["width"], grid.shape_of("left")),
            [
                stacked.Member(
                    dataset.x_train[fold != number],
                    dataset.y_train[fold != number],
                    dataset.x_train[fold == number],
                    dataset.y_train[fold == number],
                    3,
                    float(ensemble["learning_rate"]),
                    number,
                )
            ],
            int(ensemble["batch_size"]),
        )
        stack.window = settings["window"]
        for _ in range(settings["periods"]):
            stack.advance()
        result = stack.results()[0]
        model = zoo.create_model("snn_mlp2", num_features=3, num_classes=3, width=settings["width"], dropout=0.05)
        model.set_weights(result.weights)
        probabilities.append(np.asarray(model(dataset.x_test)))
        held.append(result.accuracy)
    right = [int((one.argmax(axis=-1) == dataset.y_test).sum()) for one in probabilities]
    assert int(ensemble["test_right"]) == (sum(probabilities).argmax(axis=-1) == dataset.y_test).sum()
    assert float(ensemble["members_accuracy"]) == pytest.approx(np.mean(right) / len(dataset.y_test), abs=1e-6)
    assert float(ensemble["held_accuracy"]) == pytest.approx(np.mean(held), abs=1e-6)
    # Another seed is the grid's own row at that seed.
    theirs = rows_of(grid.run(small, ["SNN"], seeds=[1], **data))
    single = next(row for row in rows if (row["task"], row["seed"]) == ("left", "1"))
    same = next(
        row
        for row in theirs
        if (row["task"], row["seed"], row["learning_rate"]) == ("left", "1", single["learning_rate"])
    )
    assert single["test_right"] == same["test_right"]
    assert float(single["held_accuracy"]) == pytest.approx(float(same["validation_accuracy"]), abs=1e-6)


@on_jax
def test_members_that_diverged_have_no_say(small, monkeypatch):
    """Two of the five diverge: the row is that of the other three, trained without them."""
    data = {"data_dir": small / "data", "jobs": 1}
    grid.run(small, ["SNN"], ["left"], **data)
    members_of = uci_ensemble.members_of

    def two_diverge(data, stack, rate, settings):
        members = members_of(data, stack, rate, settings)
        if stack.kind == uci_ensemble.ENSEMBLE:
            return [one._replace(learning_rate=1e30) if one.seed in (0, 3) else one for one in members]
        return [one._replace(learning_rate=1e30) if one.seed == 1 else one for one in members]

    monkeypatch.setattr(uci_ensemble, "members_of", two_diverge)
    with np.errstate(invalid="ignore", over="ignore"):
        first, second, row = rows_of(uci_ensemble.run(small, **data))
    assert (first["seed"], first["members"], first["diverged"], first["held_accuracy"]) == ("1", "1", "1", "0.000000")
    assert (second["seed"], second["members"], second["diverged"]) == ("2", "1", "0")
    assert (row["kind"], row["members"], row["diverged"]) == ("ensemble", "5", "2")

    slice_ = grid.read_slice(small / "uci")
    dataset = datasets.load_dataset("uci/left", small / "data")
    rate = float(row["learning_rate"])
    network = {"arch": row["arch"], "depth": int(row["depth"]), "dropout": float(row["dropout"])}
    shape = grid.shape_of("left")
    stack = uci_ensemble.Selected(uci_ensemble.ENSEMBLE, network, {"left": rate}, (0,), shape, 16, 0.0)
    sound = [one for one in members_of(dataset, stack, rate, slice_.settings) if one.seed in (1, 2, 4)]
    program = grid.program_of(network, slice_.settings["width"], shape)
    training = grid.trained_stack(program, sound, int(row["batch_size"]), slice_.settings)
    probabilities = np.array(training.probabilities([dataset.x_test] * 3))
    right = (probabilities.mean(axis=0).argmax(axis=-1) == dataset.y_test).sum()
    assert int(row["test_right"]) == right
    single = (probabilities.argmax(axis=-1) == dataset.y_test).mean()
    assert float(row["members_accuracy"]) == pytest.approx(single, abs=1e-6)
    held = np.mean([one.accuracy for one in training.results()])
    assert float(row["held_accuracy"]) == pytest.approx(held, abs=1e-6)


def test_figures_of_a_mean_leave_out_what_diverged():
    """Two rows of two classes; alone the member that diverged would outvote the one that did not."""
    y = np.array([0, 1])
    right, wrong = np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    sound = stacked.Trained([], None, 7, 0.1, 0.75)
    lost = stacked.Trained([], None, 0, np.inf, 0.0)
    figures = uci_ensemble.figures_of([lost, sound], [wrong, right], y)
    assert figures == {
        "members": 2,
        "diverged": 1,
        "members_accuracy": "1.000000",
        "held_accuracy": "0.750000",
        "test_rows": 2,
        "test_right": 2,
        "test_accuracy": "1.000000",
    }
    # With nothing trained left it says so, and has the figures of the weights at the start.
    figures = uci_ensemble.figures_of([lost, lost], [wrong, wrong], y)
    assert (figures["diverged"], figures["test_right"], figures["held_accuracy"]) == (2, 0, "0.000000")


def test_rows_under_other_columns_are_refused(small):
    """They would be added under the wrong names."""
    path = small / "uci" / "ensembles.csv"
    path.write_text(",".join([name for name in uci_ensemble.FIELDS if name != "diverged"] + ["mood"]) + "\n")
    (small / "uci" / "runs.csv").write_text(",".join(grid.FIELDS) + "\n")
    with pytest.raises(ValueError, match="ensembles.csv has other columns .*missing: diverged; unknown: mood.*move it"):
        uci_ensemble.run(small)


@on_jax
def test_large_tasks_are_trained_in_full_passes(small):
    """Where the grid takes 8 of the training rows a period, against the same network trained with all of them."""
    path = small / "uci" / "slice.json"
    settings = json.loads(path.read_text()) | {"rows_per_period": 8}
    path.write_text(json.dumps(settings))
    data = {"data_dir": small / "data", "jobs": 1}
    grid.run(small, ["SNN"], ["left"], **data)
    rows = rows_of(uci_ensemble.run(small, **data))
    assert [row["kind"] for row in rows] == ["another seed", "another seed", "full passes"]
    split = datasets.load_dataset("uci/left", small / "data").split(0)
    member = stacked.Member(
        split.x_train, split.y_train, split.x_validation, split.y_validation, 3, float(rows[2]["learning_rate"]), 0
    )
    network = {"arch": "snn_mlp2", "depth": 2, "dropout": 0.05}
    program = grid.program_of(network, settings["width"], grid.shape_of("left"))
    held = {}
    for rows_per_period in (8, len(split.y_train)):
        stack = stacked.Stack(program, [member], int(rows[2]["batch_size"]), rows_per_period, settings["window"])
        for _ in range(settings["periods"]):
            stack.advance()
        held[rows_per_period] = stack.results()[0]
        accuracy = stack.test([(split.x_test, split.y_test)])[1][0]
    assert float(rows[2]["held_accuracy"]) == pytest.approx(held[len(split.y_train)].accuracy, abs=1e-6)
    assert float(rows[2]["test_accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    assert held[8].loss != pytest.approx(held[len(split.y_train)].loss, rel=1e-3)  # it makes a difference
    # The exported network is trained so too.
    folder = uci_export.run(small, data_dir=small / "data") / "snn_mlp2.uci-left"
    details = json.loads((folder / "recipe.json").read_text())
    assert details["recipe"]["rows_per_period"] == len(split.y_train) and details["results"]["epochs"] == 4.0


def test_folds_are_even_in_every_class():
    y = np.random.default_rng(3).permutation(np.repeat([0, 1, 2, 3], (7, 13, 2, 1)))
    fold = uci_ensemble.stratified_folds(y, 5, seed=1)
    assert np.ptp(np.bincount(fold, minlength=5)) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(fold[y == label], minlength=5)) <= 1
    assert not np.array_equal(fold, uci_ensemble.stratified_folds(y, 5, seed=2))


def test_wrong_names_and_files(small):
    with pytest.raises(ValueError, match="unknown method 'SSN'; close: SNN"):
        grid.run(small, ["SSN"])
    with pytest.raises(ValueError, match="unknown task 'lef'; close: left"):
        grid.run(small, tasks=["lef"])
    (small / "uci" / "runs.csv").write_text(",".join(grid.FIELDS) + "\nffffffff" + "," * (len(grid.FIELDS) - 1) + "\n")
    with pytest.raises(ValueError, match="another slice"):
        grid.run(small)
    (small / "uci" / "slice.json").unlink()
    with pytest.raises(FileNotFoundError, match="slice.json"):
        grid.run(small)


def test_methods_have_as_many_configurations(small):
    path = small / "uci" / "slice.json"
    settings = json.loads(path.read_text())
    settings["methods"]["SNN"] *= 2
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="different numbers of networks"):
        grid.read_slice(small / "uci")


def test_the_slice_of_the_results():
    """Seven methods, all tasks that are at hand once for each network, values of the paper's grid alone."""
    slice_ = grid.read_slice(SLICE.parent)
    settings = slice_.settings
    assert list(settings["methods"]) == ["SNN", "MSRAinit", "BatchNorm", "LayerNorm", "WeightNorm", "Highway", "ResNet"]
    planned = grid.plan(slice_)
    for method, networks in settings["methods"].items():
        for network in networks:
            tasks = [task for job in planned if (job.method, job.network) == (method, network) for task in job.tasks]
            assert sorted(tasks) == sorted(set(uci.tasks()) - {"miniboone"})
            # Tables A4 to A10.
            assert network["depth"] in ((2, 3, 4, 8, 16) if method == "ResNet" else (2, 3, 4, 8, 16, 32))
            rates = {"SNN": (0, 0.05), "MSRAinit": (0, 0.5), "Highway": (0, 0.5)}.get(method, (0,))
            assert network.get("dropout", 0) in rates
    assert settings["width"] in (256, 512, 1024) and set(settings["learning_rates"]) <= {0.01, 0.1, 1}
    for job in planned:
        for task in job.tasks:
            known = uci.facts()[task]
            assert known.features <= job.shape[0] and len(known.class_counts) <= job.shape[1]
    # The results' rows are of this slice: it was not changed after the first test label was read.
    runs = SLICE.with_name("runs.csv")
    if runs.exists():
        assert {row["slice"] for row in rows_of(runs)} == {slice_.name}


def test_selection_is_by_validation_alone_and_breaks_ties_as_the_paper():
    def row(accuracy, depth, rate, dropout, test="0.5", form=""):
        return {
            "form": form,
            "method": "SNN",
            "task": "iris",
            "seed": "0",
            "validation_accuracy": str(accuracy),
            "depth": str(depth),
            "learning_rate": str(rate),
            "dropout": str(dropout),
            "test_accuracy": test,
        }

    worse, best = row(0.8, 8, 0.01, 0.05, test="1.0"), row(0.9, 2, 0.1, 0.0, test="0.1")
    assert grid.select([worse, best]) == {("SNN", "iris", 0): best}
    ordered = [row(0.9, 2, 0.01, 0.05), row(0.9, 8, 0.1, 0.05), row(0.9, 8, 0.01, 0.0), row(0.9, 8, 0.01, 0.05)]
    for count in range(2, 5):
        assert grid.select(ordered[:count])["SNN", "iris", 0] is ordered[count - 1]
        assert grid.select(ordered[:count][::-1])["SNN", "iris", 0] is ordered[count - 1]
    # What is left is as slice.json says, whichever ended first.
    forms = [row(0.9, 2, 0.01, "", form=form) for form in ("diavolo", "rectangular")]
    assert grid.select(forms) == grid.select(forms[::-1]) == {("SNN", "iris", 0): forms[1]}


@pytest.mark.parametrize(
    "what, option, name, close",
    [
        *((what, "--tasks", "lef", "left") for what in UCI_BENCHMARKS if "tasks" in UCI_BENCHMARKS[what]),
        *((what, "--methods", "SSN", "SNN") for what in ("uci", "uci-speed")),
        ("uci-classical", "--methods", "random forests", "random forest, 500 trees"),
    ],
)
def test_a_mistyped_name_is_answered_with_close_ones(small, what, option, name, close, capsys):
    assert main(["benchmark", what, option, name, "--out", str(small)]) == 1
    assert f"error: unknown {option[2:-1]} {name!r}; close: {close}" in capsys.readouterr().err


def test_two_grids_in_one_folder_are_refused(small):
    with loop.only_run_in(small / "uci"):
        with pytest.raises(BlockingIOError, match="another process trains in"):
            grid.run(small, data_dir=small / "data")
    assert not (small / "uci" / "runs.csv").exists()


def test_options_of_the_grid_belong_to_it(capsys):
    assert main(["benchmark", "signal", "--tasks", "iris"]) == 1
    assert (
        "--tasks belongs to uci, uci-classical, uci-speed, uci-ensemble, uci-export, not to signal"
        in capsys.readouterr().err
    )
    assert main(["benchmark", "uci-export", "--seeds", "1"]) == 1  # the card would not know
    assert "--seeds belongs to uci" in capsys.readouterr().err


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="says so on the other backends")
def test_says_which_backend_it_needs(small):
    with pytest.raises(ValueError, match="set KERAS_BACKEND=jax"):
        grid.run(small, ["SNN"], jobs=1, data_dir=small / "data")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_belong_to_their_jobs_and_none_is_begun_after_the_deadline(processes, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # which it adds to
    jobs = [3, 1, 2, 5, 4]
    assert sorted(grid._results(jobs, operator.neg, processes, None)) == [(1, -1), (2, -2), (3, -3), (4, -4), (5, -5)]
    late = grid._results(jobs, operator.neg, processes, time.monotonic() + 3600)
    assert next(late) in {(job, -job) for job in jobs}
    monkeypatch.setattr(grid, "time", types.SimpleNamespace(monotonic=lambda: float("inf")))
    assert len(list(late)) <= processes - 1  # those that run already
