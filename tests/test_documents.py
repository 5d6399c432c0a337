"""Docstring examples and README snippets run; generated tables are up to date."""

import csv
import dataclasses
import doctest
import importlib
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_mpelu
import zoo
from training.benchmark import RATES
from training.report import readme_table
from training.report import results_csv
from training.report import with_table
from zoo.index import make_index
from zoo.pretrained import FINETUNING_RATE
from zoo.registry import read_index

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = pathlib.Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("keras_mpelu", "zoo", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
    if re.search("^ *>>> ", path.read_text(), flags=re.MULTILINE)
]
README = (ROOT / "README.md").read_text()
COMPARISON = (ROOT / "results" / "uci" / "tasks.csv").read_text()
FINETUNING = (ROOT / "results" / "finetuning.csv").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(module), extraglobs={"np": np, "keras": keras, "zoo": zoo})
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", [*keras_mpelu.__all__, *(f"zoo.{name}" for name in zoo.__all__)])
def test_every_public_name_has_a_docstring_with_an_example(name):
    text = getattr(zoo if name.startswith("zoo.") else keras_mpelu, name.removeprefix("zoo.")).__doc__
    assert "Example:" in text, f"{name} has no example"


SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_counts_what_there_is():
    words = " ".join(README.split())
    found = re.search(
        r"has (\d+) architectures .* and (\d+) models with weights .*: (\w+) for the images of CIFAR-100", words
    )
    cifar = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    pretrained = zoo.list_models(pretrained=True)
    of_images = sum(".cifar100" in name for name in pretrained)
    assert found.groups() == (str(len(zoo.list_models())), str(len(pretrained)), cifar[of_images])
    assert f"All {len(pretrained)} models are in the package" in words
    assert f"and {len(pretrained) - of_images} small ones for tables" in words


def test_there_are_snippets_and_modules_to_run():
    assert len(SNIPPETS) >= 6 and len(MODULES) >= 20


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme_snippets(snippet, tmp_path, monkeypatch, request, capsys):
    if 'cifar100")' in snippet and "evaluate" in snippet:
        dataset = zoo.load_dataset("cifar100", request.getfixturevalue("data_dir"))
        few = dataclasses.replace(
            dataset, x_test=dataset.x_test[:500], y_test=dataset.y_test[:500]
        )  # all: test_pretrained
        monkeypatch.setattr("zoo.evaluation.load_dataset", lambda name: {"cifar100": few}[name])
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    if "# True" in snippet:
        assert capsys.readouterr().out.strip().endswith("True")


def test_further_seeds_count_in_the_table_where_they_were_added(monkeypatch):
    info = zoo.model_info("snn_mlp2.wine")
    added = {"seeds": [1, 2], "minutes": 0.75, "hardware": "1 core of another", "command": "that of the two"}
    info |= {
        "seeds": [0, 1, 2],
        "top1_by_seed": [0.6, 0.7, 0.8],
        "minutes": 0.5,
        "hardware": "2 cores",
        "added": [added],
    }
    monkeypatch.setattr("training.report.list_models", lambda pretrained: ["snn_mlp2.wine"])
    monkeypatch.setattr("training.report.model_info", lambda name: info)
    results = results_csv()
    assert f",{zoo.registry.train_command('snn_mlp2.wine')}; that of the two," in results
    row = readme_table(results, COMPARISON).splitlines()[-1]
    assert "| 70.00 +- 10.00 % | 3 |" in row and row.endswith("| 1.2 | 2 cores; 1 core of another |")


def test_the_readme_table_is_up_to_date():
    results = (ROOT / "results" / "models.csv").read_text()
    assert results == results_csv(), "run `python -m training report`"
    assert README == with_table(README, results, COMPARISON, FINETUNING), "run `python -m training report`"


def test_the_index_is_that_of_the_folders():
    assert make_index(models_only=True) == read_index(), "run `python -m zoo index --models`"


def test_ci_says_of_every_test_file_whether_it_is_run_on_pytorch():
    """A new file is neither forgotten there nor left out without a reason."""
    on_pytorch = (ROOT / ".ci" / "run").read_text().partition('say "tests on PyTorch"')[2]
    files = sorted(path.name for path in (ROOT / "tests").glob("test_*.py"))
    assert sorted(re.findall(r"test_\w+\.py", on_pytorch)) == files


def test_fine_tuning_beats_training_from_scratch_as_the_readme_says():
    rows = list(csv.DictReader(FINETUNING.splitlines()))
    accuracy = {(row["arm"], row["seed"]): float(row["test_accuracy"]) for row in rows}
    gains = [accuracy["pretrained", seed] - accuracy["scratch", seed] for seed in ("0", "1", "2")]
    assert min(gains) > 0
    rates = [
        [float(value) for value in row["validation_accuracy"].split()] for row in rows if row["arm"] == "pretrained"
    ]
    best = max(range(5), key=lambda place: sum(row[place] for row in rates))
    assert RATES[best] == FINETUNING_RATE  # what `load_model` compiles with
