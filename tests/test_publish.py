"""Cards, model.safetensors and publication, with the real client against a stand-in Hub."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import huggingface_hub
import keras
import numpy as np
import pytest
from hub_server import Hub
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.repocard_data import model_index_to_eval_results
from scipy.stats import binomtest
from test_hub import ROOT
from test_hub import contents
from test_hub import golden
from test_hub import use

import zoo
import zoo.__main__
from keras_mpelu import MPELU
from training import publish
from training.__main__ import main
from training.card import card_text
from training.card import rewrite
from training.card import what_was_learned
from training.folder_files import safetensors_bytes
from training.publishing import FILES
from training.publishing import check_publishable
from training.publishing import completed
from training.publishing import describe
from zoo.card import eval_results
from zoo.folders import find_folder
from zoo.folders import sha256
from zoo.folders import write_sums
from zoo.hub import SUMS
from zoo.hub import tag_of
from zoo.registry import BUNDLED
from zoo.registry import published_weights

# The client's own way of uploading to LFS; 2026-11, huggingface_hub 2.4 with httpx2 2.16.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.usefixtures("quick_compilation"),
]

SMALL = "snn_mlp2.wine"
IMAGES = "mpelu_resnet20.cifar100"
BUNDLED_MODELS = zoo.list_models(pretrained=True)
OF_UCI = next(name for name in BUNDLED_MODELS if ".uci-" in name)
SAMPLE = [IMAGES, SMALL, OF_UCI]
if keras.backend.backend() == "tensorflow":  # what publishing does does not depend on it
    SAMPLE = [name for name in BUNDLED_MODELS if ".uci-" not in name or name == OF_UCI]


def details_of(name):
    return json.loads((BUNDLED / name / "recipe.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A bundled folder as `python -m training card` makes it anew."""
    folder = tmp_path_factory.mktemp("finished") / SMALL
    shutil.copytree(BUNDLED / SMALL, folder)
    rewrite(folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return pathlib.Path(shutil.copytree(finished, tmp_path / SMALL))


@pytest.fixture
def unchecked(monkeypatch):
    """For what happens after the checks, which one test runs and the others need not repeat."""
    monkeypatch.setattr("training.publishing.check_publishable", lambda *_: [])


@pytest.fixture
def hub(request, tmp_path, monkeypatch):
    """An empty Hub that takes large files by LFS, unless a test's parameter says otherwise."""
    with Hub(lfs=getattr(request, "param", True), token="write") as server:
        use(server.address, tmp_path / "cache", monkeypatch)
        monkeypatch.delenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")
        monkeypatch.setenv("HF_TOKEN", "write")
        yield server
    huggingface_hub.close_session()


# Cards and folders


def test_a_rewritten_folder_is_complete_and_keeps_its_weights(finished):
    assert {path.name for path in finished.iterdir()} == FILES | {SUMS}
    for file in ("model.weights.h5", "config.json", "recipe.json", "history.csv", "golden.npz", "test_logits.npz"):
        assert (finished / file).read_bytes() == (BUNDLED / SMALL / file).read_bytes()
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(finished).predict(x, verbose=0), y, atol=1e-4)


def test_rewriting_twice_changes_nothing(folder):
    before = contents(folder)
    rewrite(folder)
    assert contents(folder) == before


def test_a_rewritten_card_fetches_no_data(tmp_path, monkeypatch):
    folder = pathlib.Path(shutil.copytree(BUNDLED / IMAGES, tmp_path / IMAGES))
    details = details_of(IMAGES)
    del details["results"]["top1_by_superclass"]  # as folders of older versions
    (folder / "recipe.json").write_text(json.dumps(details))
    write_sums(folder)

    def fetch(*_):
        raise AssertionError("fetched")

    for remote in ("read_hub", "download_with_tfds"):
        monkeypatch.setattr(f"zoo.datasets.{remote}", fetch)
    for variable in ("ZOO_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    rewrite(folder)
    assert "by superclass" not in (folder / "README.md").read_text()


def test_a_damaged_folder_is_not_rewritten(folder):
    (folder / "config.json").write_text("{}")
    before = contents(folder)
    with pytest.raises(ValueError, match="config.json is damaged"):
        rewrite(folder)
    assert contents(folder) == before


def test_safetensors_holds_the_weights_of_the_h5_by_their_layers(finished):
    import h5py
    from safetensors.numpy import load_file

    tensors = load_file(finished / "model.safetensors")
    assert tensors["hidden1/kernel"].shape == (13, 64)
    arrays = []
    with h5py.File(finished / "model.weights.h5") as file:
        file.visititems(lambda name, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    assert len(arrays) >= len(tensors)
    for name, tensor in tensors.items():
        assert any(array.shape == tensor.shape and np.array_equal(array, tensor) for array in arrays), name


def test_the_same_weights_are_the_same_bytes_of_safetensors(finished):
    model = zoo.load_model(finished, compile=False)
    assert len({safetensors_bytes(model) for _ in range(20)}) == 1


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_cards_read_back_as_written(name, tmp_path):
    details = details_of(name)
    details["results"] |= {"seeds": [0, 1, 2], "top1_by_seed": [details["results"]["top1"], 0.5, 0.7]}
    for seeds in (1, 3):
        if seeds == 1:
            details = details_of(name)
        path = tmp_path / "README.md"
        path.write_text(card_text(details))
        card = ModelCard.load(path)
        results = eval_results(details)
        assert card.data.eval_results == results and card.data.model_name == name
        again = model_index_to_eval_results(eval_results_to_model_index(name, results))
        assert again == (name, results)
        assert results[0].metric_value == details["results"]["top1"]
        assert (card.data.license, card.data.library_name) == ("apache-2.0", "keras")
        # The snippet comes first, before any heading but the title.
        assert card.text.split("```python")[0].count("#") == 1


def test_several_seeds_are_a_mean_with_a_spread():
    details = details_of(IMAGES)
    details["results"] |= {"seeds": [0, 1, 2], "top1_by_seed": [0.68, 0.69, 0.70]}
    mean = eval_results(details)[1]
    assert mean.metric_value == pytest.approx(0.69) and mean.metric_name == "Top-1, mean of 3 seeds"
    assert mean.metric_args == {"seeds": [0, 1, 2], "standard_deviation": pytest.approx(0.01)}
    assert (mean.dataset_type, mean.dataset_config, mean.dataset_split) == ("uoft-cs/cifar100", "cifar100", "test")
    assert "69.00 +- 1.00 % top-1 (n = 3" in card_text(details)


def test_the_papers_figure_stands_beside_ours(monkeypatch):
    details, row = details_of(IMAGES), {"sources": ["He et al., 2016 (there)", "Li et al., 2018 (here)"]}
    monkeypatch.setattr("training.card.read_index", lambda: {"architectures": {"mpelu_resnet20": row}, "models": {}})
    row["paper"] = {"cifar100": "0.700", "cifar10": "0.900"}
    assert "| top-1 accuracy | 66.77 % |" in card_text(details)
    assert "Paper: top-1 70.0 % (Li et al., 2018)." in card_text(details)
    assert (
        "`mpelu_resnet20` of He et al., 2016 (there), with the units of Li et al., 2018 (here): 276,948 p"
        in card_text(details)
    )
    row["paper"] = {"cifar10": "0.900"}
    assert "no figure for this network on this data set (Li et al., 2018: cifar10: 90.0 %)." in card_text(details)
    row["sources"].pop()
    assert "(He et al., 2016: cifar10: 90.0 %)." in card_text(details)


def test_what_a_card_says_of_alpha():
    """In how many layers the median is near 0, and what that comes to if these are most."""
    model = keras.Sequential([keras.Input((3,)), *(MPELU() for _ in range(3)), keras.layers.Dense(2)])
    details = details_of(IMAGES)
    for alphas, found, close in (([-0.9, 0.01, 1.0], 1, False), ([-0.01, 0.01, 1.0], 2, True)):
        for layer, alpha in zip(model.layers, alphas, strict=False):
            layer.alpha.assign([alpha, alpha, 7.0])
        learned = what_was_learned(model)
        assert learned == {"learned": {"mpelu_layers": 3, "of_alpha_0": found}}
        card = card_text(details | learned)
        assert f"In {found} of its 3 MPELU layers" in card and ("close to a ReLU network" in card) == close
    assert what_was_learned(zoo.create_model("snn_mlp2", width=4)) == {}


def test_a_card_says_whether_the_settings_were_chosen():
    details = details_of("snn_mlp2.wine")
    assert "settings were chosen on part of these rows; the forest" in card_text(details)
    assert "settings were set beforehand; the forest" in card_text(details | {"name": "relu_mlp.wine"})


def test_a_card_says_how_sure_a_figure_is():
    """By SciPy's interval, which is wide where a few rows are all right, too."""
    for right, rows in ((36, 36), (31, 53), (6677, 10000)):
        low, high = binomtest(right, rows).proportion_ci(method="wilson")
        details = details_of(IMAGES)
        details["results"]["top1"], details["data"]["test_rows"] = right / rows, rows
        assert f"(Wilson) | {100 * low:.2f} to {100 * high:.2f} % |" in card_text(details)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "snn_mlp2.uci-glass",
            ["standardised all rows together", "The 6 classes and the 9 columns are counted from 0"],
        ),
        (
            "snn_mlp8.uci-letter",
            ["standardised all rows together", 'columns that `zoo.load_dataset("uci/letter")` gives'],
        ),
        ("snn_mlp2.uci-thyroid", ["the training rows by themselves and the test rows by themselves"]),
        (
            "snn_mlp2.wine",
            ["Columns: alcohol, malic_acid", "Classes: class_0, class_1, class_2.", "Preprocessing is inside"],
        ),
        (IMAGES, ["cs.toronto.edu", "Classes: apple,", "In 18 of its 19 MPELU layers", "code of 21 November 2026"]),
        (
            "mpelu_resnet20.cifar100-nodecay",
            ["In 0 of its 19 MPELU layers the median alpha is near 0 (below 0.05 in size).\n"],
        ),
    ],
)
def test_a_card_says_what_its_rows_are_and_what_became_of_alpha(name, words):
    card = (BUNDLED / name / "README.md").read_text()
    for part in words:
        assert part in card
    facts, limits = card.split("## Data")[1].split("## Limits")
    assert details_of(name)["data"]["sha256"][:12] in facts and "close to a ReLU" not in facts
    assert ("close to a ReLU" in limits) == (name == IMAGES)


@pytest.mark.parametrize("base", [SMALL, "hf://somebody/net@v1", "/home/me/net"])
def test_a_saved_model_gets_a_card_that_says_what_it_was_made_from(tmp_path, base):
    model = zoo.load_model(SMALL)
    details = {
        "base_model": base,
        "license": "mit",
        "class_names": ["a", "b", "c"],
        "feature_names": [f"x{number}" for number in range(13)],
        "data": {"name": "/home/me/secret/rows.csv"},
        "results": {"top1": 0.5, "rows": 10, "seeds": [0]},
    }
    folder = zoo.save_model(model, tmp_path / "mine", details=details)
    card = ModelCard.load(folder / "README.md")
    expected = {SMALL: f"keras-mpelu/{SMALL}", "hf://somebody/net@v1": "somebody/net"}.get(base)
    assert card.data.base_model == expected and card.data.license == "mit"
    assert card.data.eval_results == eval_results(details)
    assert "secret" not in card.content and "Classes: a, b, c." in card.text


def test_the_snippet_of_a_saved_models_card_runs(tmp_path, monkeypatch, capsys):
    zoo.save_model(zoo.create_model("snn_mlp2", width=4), tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    exec(ModelCard.load(tmp_path / "mine" / "README.md").text.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("(2, ")


# Checks before a publication


def test_a_dry_run_checks_and_asks_nothing_of_the_hub(hub, finished, capsys):
    assert main(["publish", SMALL, "--dry-run", "--folder", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "11 files" in said and "golden outputs within" in said and "measured again on the 36 test rows" in said
    assert f'"{SMALL}": "{sha256(finished / SUMS)}",' in said and "zoo/snn.py" in said
    assert hub.requests == []


def test_the_package_leaves_out_what_publishing_makes_again(hub, finished, unchecked, tmp_path, monkeypatch, capsys):
    """Of model.safetensors the package keeps the sum: what is published is the folder with the file, byte for byte."""
    monkeypatch.setattr("training.folder_files.BUNDLED", tmp_path / "weights")
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / "weights" / SMALL))
    assert rewrite(folder) == sha256(finished / SUMS)
    assert {path.name for path in folder.iterdir()} == {SUMS, *FILES} - {"model.safetensors"}
    assert publish(SMALL, folder=folder).pin == sha256(finished / SUMS)
    _, published = hub.repositories[f"keras-mpelu/{SMALL}"]["commits"][-1]
    assert {file: published[file] for file in published if file != ".gitattributes"} == contents(finished)
    # What a check says of the copy is to be mended in the folder.
    with pytest.raises(ValueError, match=re.escape(f"{folder}/README.md lacks")), completed(folder) as copy:
        assert copy != folder
        raise ValueError(f"{copy}/README.md lacks '## Limits'; run `python -m training card {copy}`")
    with pytest.raises(ValueError, match="utf-8"), completed(folder):
        b"\xff".decode()  # an error whose kind takes five arguments
    monkeypatch.chdir(folder)
    assert publish(SMALL, folder=".", dry_run=True).pin == sha256(finished / SUMS)
    # Another version of the library might lay the file out otherwise.
    monkeypatch.setattr("training.publishing.safetensors_bytes", lambda model: b"laid out otherwise")
    assert main(["publish", SMALL, "--dry-run", "--folder", str(folder)]) == 1
    assert "is not that of its SHA256SUMS; run `python -m training card" in capsys.readouterr().err


@pytest.mark.parametrize("name", SAMPLE)
def test_every_bundled_folder_may_be_published(name, monkeypatch):
    """But for the accuracy on images and UCI tasks, which the tests of pretrained models measure."""

    def load(dataset, *where, **options):
        if dataset.startswith(("cifar", "uci/")):
            raise FileNotFoundError("left out")
        return zoo.load_dataset(dataset, *where, **options)

    monkeypatch.setattr("training.publishing.load_dataset", load)
    with completed(BUNDLED / name) as folder:  # with model.safetensors, of which the package has the sum
        said = "; ".join(check_publishable(name, folder))
    assert "golden outputs within" in said and said.endswith("the card is complete, and its first snippet runs")
    fetched = "cifar" in name or ".uci-" in name
    assert ("accuracy not measured again" if fetched else "measured again on the") in said


def wrong_accuracy(folder):
    details = json.loads((folder / "recipe.json").read_text())
    details["results"] |= {"top1": 0.5, "top1_by_seed": [0.5]}
    (folder / "recipe.json").write_text(json.dumps(details))
    (folder / "README.md").write_text(card_text(details))


def wrong_golden(folder):
    golden = dict(np.load(folder / "golden.npz"))
    golden["outputs"][0, 0] += 0.01
    np.savez_compressed(folder / "golden.npz", **golden)


def wrong_safetensors(folder):
    from safetensors.numpy import load_file
    from safetensors.numpy import save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["hidden1/kernel"] = -tensors["hidden1/kernel"]
    save_file(tensors, folder / "model.safetensors")


def replace_in_card(old, new):
    def change(folder):
        text = (folder / "README.md").read_text()
        assert old in text
        (folder / "README.md").write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong_accuracy, "has top-1 100.00 % on wine, but its recipe.json says 50.00 %"),
        (wrong_golden, "golden outputs are off by 0.01"),
        (wrong_safetensors, "does not hold the weights"),
        (replace_in_card("license: apache-2.0", "license: mit"), "has the licence 'mit'"),
        (replace_in_card("value: 1.0", "value: 0.5"), "another model-index"),
        (replace_in_card("## Limits", "##"), "lacks '## Limits'"),
        (replace_in_card("import numpy as np", "import nunpy as np"), "does not begin with the snippet"),
        (lambda folder: (folder / "curves.png").unlink(), "has no curves.png"),
        (lambda folder: (folder / "notes.txt").write_text(""), "further files notes.txt"),
    ],
)
def test_a_folder_that_is_not_sound_is_not_published(folder, spoil, words):
    spoil(folder)
    write_sums(folder)
    with pytest.raises(ValueError, match=words):
        list(check_publishable(SMALL, folder))


def test_code_in_a_card_is_never_run(folder, tmp_path):
    """The process that publishes can read the token."""
    marker = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nimport numpy as np"
    replace_in_card("import numpy as np", code)(folder)
    write_sums(folder)
    with pytest.raises(ValueError, match="does not begin with the snippet"):
        list(check_publishable(SMALL, folder))
    assert not marker.exists()


def test_our_own_snippet_that_fails_is_said(folder, monkeypatch):
    monkeypatch.setattr("zoo.load_model", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="its snippet fails .division by zero"):
        list(check_publishable(SMALL, folder))


# Anyone's own model


@pytest.fixture
def own(tmp_path):
    """A folder as `zoo.save_model` makes it."""
    details = {"base_model": SMALL, "license": "mit", "class_names": ["a", "b", "c"]}
    return zoo.save_model(zoo.load_model(SMALL), tmp_path / "mine", details=details)


def test_a_model_of_ones_own_is_published_after_the_mend_that_is_named(hub, own, capsys):
    assert main(["publish", "mine", "--folder", str(own), "--namespace", "me"]) == 1
    said = capsys.readouterr().err
    assert "has no model.safetensors; run `python -m training card" in said
    weights = (own / "model.weights.h5").read_bytes()
    assert main(["card", str(own)]) == 0
    assert (own / "model.weights.h5").read_bytes() == weights
    assert ModelCard.load(own / "README.md").data.base_model == f"keras-mpelu/{SMALL}"
    capsys.readouterr()
    assert main(["publish", "mine", "--folder", str(own), "--namespace", "me"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert all(line.startswith(("checked: ", "published ", "load it with ")) for line in lines)  # no progress bar
    address = lines[-1].split('"')[1]
    assert address == f"hf://me/mine@{tag_of(sha256(own / SUMS))}"
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(address).predict(x, verbose=0), y, atol=1e-4)


def test_numbers_of_no_axis_and_large_outputs_may_be_published(tmp_path, capsys):
    """A weight that is one number, and prices, which have no digit at the tolerance of probabilities."""
    inputs = keras.Input((4,), name="x")
    x = MPELU(axis=None, name="mpelu")(keras.layers.Dense(3, name="hidden")(inputs))
    x = keras.layers.Dense(1, name="number")(x)
    model = keras.Model(inputs, keras.layers.Rescaling(1e5, 3e5, name="target")(x), name="houses")
    folder = zoo.save_model(model, tmp_path / "houses")
    rewrite(folder)
    golden = dict(np.load(folder / "golden.npz"))
    golden["outputs"] *= np.float32(1 + 3e-6)  # some units of the last digit, as another processor may give
    np.savez_compressed(folder / "golden.npz", **golden)
    write_sums(folder)
    said = "; ".join(check_publishable("houses", folder))
    assert re.search(r"golden outputs within \de-06 of [\d.]+e\+05", said)
    golden["outputs"] *= np.float32(1.001)
    np.savez_compressed(folder / "golden.npz", **golden)
    write_sums(folder)
    with pytest.raises(ValueError, match=r"off by 0.001 of .* try the backend that trained it, or save it again"):
        list(check_publishable("houses", folder))


def test_a_model_of_ones_own_that_is_called_like_ours_gets_no_pin(hub, own, capsys):
    named = own.rename(own.with_name("snn_mlp2.own_wine"))
    (named / "README.md").write_text((named / "README.md").read_text().replace("./mine", "./snn_mlp2.own_wine"))
    further = {"recipe": {"of": "mine"}, "data": {"name": "mine", "source": "a survey"}, "results": {"top1": 0.9}}
    further["versions"] = {"keras": keras.__version__}
    details = {**json.loads((named / "recipe.json").read_text()), **further}
    (named / "recipe.json").write_text(json.dumps(details))
    write_sums(named)
    rewrite(named)
    assert main(["publish", named.name, "--folder", str(named), "--namespace", "me"]) == 0
    said = capsys.readouterr().out
    assert f'load it with zoo.load_model("hf://me/{named.name}@' in said and "WEIGHTS" not in said


def of_another_split(folder):
    details = json.loads((folder / "recipe.json").read_text())
    details["data"]["sha256"] = "0" * 64
    (folder / "recipe.json").write_text(json.dumps(details))
    write_sums(folder)


@pytest.mark.parametrize(
    "arguments",
    [["publish", SMALL, "--dry-run", "--folder"], ["compact"], ["train", SMALL, "--seeds", "9", "--add-to"]],
    ids=" ".join,
)
def test_no_command_measures_on_rows_that_may_have_been_trained_on(finished, tmp_path, capsys, arguments):
    folder = pathlib.Path(shutil.copytree(finished, tmp_path / SMALL))
    of_another_split(folder)
    assert main([*arguments, str(folder)]) == 1
    assert "its test rows may hold training rows" in capsys.readouterr().err
    assert zoo.__main__.main(["evaluate", str(folder)]) == 1
    assert "its test rows may hold training rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (wrong_golden, "golden outputs are off by 0.01"),
        (replace_in_card("license: mit", "license: gpl"), "has the licence 'gpl', expected 'mit'"),
        (replace_in_card("./mine", "./other"), "does not begin with the snippet"),
        (lambda folder: (folder / "golden.npz").unlink(), "has no golden.npz; save it again by zoo.save_model"),
        (lambda folder: (folder / "notes.txt").write_text(""), "further files notes.txt"),
    ],
)
def test_a_model_of_ones_own_that_is_not_sound_is_not_published(own, spoil, words):
    rewrite(own)
    spoil(own)
    write_sums(own)
    with pytest.raises(ValueError, match=words):
        list(check_publishable("mine", own))


def test_card_of_what_is_no_folder_is_one_line(tmp_path, capsys):
    assert main(["card", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: no folder")


def test_without_sums_that_fit_nothing_is_published(folder):
    (folder / "history.csv").write_text("")
    with pytest.raises(ValueError, match="history.csv is damaged or altered"):
        publish(SMALL, folder=folder, dry_run=True)


# Publication


@pytest.mark.parametrize("hub", [False, True], ids=["in the commit", "by LFS"], indirect=True)
def test_publish_then_load_by_name_from_an_empty_cache(hub, finished, tmp_path, monkeypatch, capsys):
    """The whole way: check, upload in one commit, tag; then the pinned load in a package that bundles nothing."""
    assert main(["publish", SMALL, "--folder", str(finished)]) == 0
    said = capsys.readouterr().out
    repository = f"keras-mpelu/{SMALL}"
    kept = hub.repositories[repository]
    pin = sha256(finished / SUMS)
    assert len(kept["commits"]) == 2  # the Hub's own first one, and ours
    commit, files = kept["commits"][-1]
    assert {file: files[file] for file in files if file != ".gitattributes"} == contents(finished)
    assert kept["tags"] == {tag_of(pin): commit} and commit in said and f'"{pin}"' in said

    monkeypatch.setattr("zoo.folders.BUNDLED", tmp_path / "nothing")
    monkeypatch.setattr("zoo.folders.published_weights", lambda: {SMALL: pin})
    x, y = golden(SMALL)
    np.testing.assert_allclose(zoo.load_model(SMALL).predict(x, verbose=0), y, atol=1e-4)
    assert find_folder(SMALL)[0].name == commit


FRESH = '''
import sys
from importlib.machinery import PathFinder

class Absent(PathFinder):
    """As where TensorFlow is not installed."""

    @classmethod
    def find_spec(cls, name, *place):
        return None if name.partition(".")[0] == "tensorflow" else super().find_spec(name, *place)

if sys.argv[1] != "tensorflow":
    sys.meta_path[sys.meta_path.index(PathFinder)] = Absent
import numpy as np
import zoo, zoo.folders
zoo.folders.BUNDLED = zoo.folders.BUNDLED / "nothing"
x = np.load(sys.argv[2])["inputs"]
for number, name in enumerate(sys.argv[4:]):
    np.save(f"{sys.argv[3]}{number}.npy", zoo.load_model(name).predict(x, verbose=0))
'''


OWN = keras.backend.backend()


@pytest.mark.parametrize(
    "backend",
    [OWN, *(pytest.param(name, marks=pytest.mark.slow) for name in ("tensorflow", "jax", "torch") if name != OWN)],
)
def test_what_was_published_loads_in_a_fresh_process_online_and_then_offline(hub, backend, unchecked, tmp_path):
    """Two processes with one cache, empty at first: by name and pin, and by address, as anyone's model."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    publish(SMALL, folder=BUNDLED / SMALL)
    hub.requests.clear()
    x, y = golden(SMALL)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "KERAS_BACKEND": backend,
        "HF_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.address,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for offline in ("0", "1"):
        command = [sys.executable, "-c", FRESH, backend, str(BUNDLED / SMALL / "golden.npz"), str(tmp_path / offline)]
        command += [SMALL, f"hf://keras-mpelu/{SMALL}"]
        done = subprocess.run(command, env={**environment, "HF_HUB_OFFLINE": offline}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        if offline == "0":
            assert hub.requests
            hub.requests.clear()
    assert hub.requests == []
    outputs = [np.load(tmp_path / f"{offline}{number}.npy") for offline in "01" for number in range(2)]
    np.testing.assert_allclose(outputs[0], y, atol=1e-5)
    for other in outputs[1:]:
        np.testing.assert_array_equal(other, outputs[0])


def test_publishing_again_changes_nothing(hub, folder, unchecked):
    first = publish(SMALL, folder=folder)
    hub.requests.clear()
    again = publish(SMALL, folder=folder)
    assert (first.changed, again.changed) == (True, False) and first.commit == again.commit
    assert not any("/commit/" in request or "/tag/" in request for request in hub.requests)


def test_a_new_version_keeps_the_old_tag_and_removes_stale_files(hub, folder, unchecked):
    first = publish(SMALL, folder=folder, private=True)
    repository = hub.repositories[first.repository]
    assert repository["private"]
    hub.commit(first.repository, {"stale.txt": b"x"}, replace=False)
    (folder / "history.csv").write_text("epoch\n")
    write_sums(folder)
    second = publish(SMALL, folder=folder)
    assert repository["tags"] == {first.tag: first.commit, second.tag: second.commit}
    files = hub.find(second.repository, second.tag)[1]
    assert set(files) == FILES | {SUMS, ".gitattributes"} and files["history.csv"] == b"epoch\n"


def test_an_interrupted_publication_can_be_run_again(hub, folder, unchecked):
    def interrupted(step):
        def fault(request):
            if step in request.route and "batch" not in request.route and left:
                left.pop()
                request.refuse(403, "", "interrupted")
                return True

        return fault

    for step in ("repos/create", "preupload", "lfs/", "commit/main", "revision", "tag/", "refs"):
        left, namespace = [1], f"me-{step.strip('/').replace('/', '-')}"
        hub.fault = interrupted(step)
        hub.objects.clear()
        with pytest.raises(OSError, match="cannot publish .*run the same command again"):
            publish(SMALL, folder=folder, namespace=namespace)
        done = publish(SMALL, folder=folder, namespace=namespace)
        assert not left
        assert contents(folder).items() <= hub.find(done.repository, done.tag)[1].items()
        assert len(hub.repositories[done.repository]["commits"]) == 2


def test_in_another_namespace_a_card_loads_the_model_from_there(hub, folder, monkeypatch):
    """By its name readers would load the zoo's; what is the zoo's is so in a mirror of it, too."""
    mirrored = publish(SMALL, folder=folder, namespace="mirror")
    assert hub.find("mirror/snn_mlp2.wine", mirrored.tag)[1]["README.md"] == (folder / "README.md").read_bytes()
    assert mirrored.of_the_zoo and mirrored.pin == published_weights()[SMALL]
    rewrite(folder, details=json.loads((folder / "recipe.json").read_text()) | {"remarks": ["Trained elsewhere."]})
    planned = publish(SMALL, folder=folder, namespace="me", dry_run=True)
    done = publish(SMALL, folder=folder, namespace="me")
    published = hub.find("me/snn_mlp2.wine", done.tag)[1]
    card = published["README.md"].decode()
    assert f'zoo.load_model("hf://me/{SMALL}")' in card and f'load_model("{SMALL}")' not in card
    assert "hf://keras-mpelu" not in card and f"`python -m zoo evaluate hf://me/{SMALL}`" in card
    assert (planned.tag, planned.pin) == (done.tag, done.pin) and planned.commit is None
    ours = (folder / "README.md").read_text()
    assert ours.split("## Training")[1] == card.split("## Training")[1] and f'load_model("{SMALL}")' in ours
    assert hashlib.sha256(published["README.md"]).hexdigest() in published[SUMS].decode()
    assert 'load it with zoo.load_model("hf://me/snn_mlp2.wine@' in describe(done, None) and not done.of_the_zoo
    monkeypatch.delenv("HF_TOKEN")
    model = zoo.load_model(f"hf://me/{SMALL}@{done.tag}")
    np.testing.assert_array_equal(model.get_weights()[-1], zoo.load_model(folder).get_weights()[-1])


def test_a_refusal_of_the_card_stops_with_the_hubs_words_and_makes_nothing(hub, folder, unchecked, capsys):
    hub.refusal = "license must be one of the known ones"
    assert main(["publish", SMALL, "--folder", str(folder)]) == 1
    said = capsys.readouterr().err
    assert hub.refusal in said and "nothing was published" in said and "Traceback" not in said
    assert hub.repositories == {}


def test_without_a_token_that_may_write_it_says_so(hub, folder, unchecked, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "read")
    with pytest.raises(OSError, match="cannot publish me/.*answer 403 .*HF_TOKEN to a token") as error:
        publish(SMALL, folder=folder, namespace="me")
    assert "\n" not in str(error.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(OSError, match="cannot publish me/.*answer 401 .*hf auth login"):
        publish(SMALL, folder=folder, namespace="me")


def test_a_folder_under_another_name_is_not_published(folder):
    with pytest.raises(ValueError, match="holds 'snn_mlp2.wine', not 'snn_mlp4.digits'"):
        publish("snn_mlp4.digits", folder=folder, dry_run=True)
    with pytest.raises(FileNotFoundError, match="train the model, or give --folder"):
        publish("snn_mlp8.wine")


def test_the_card_gives_the_command_with_its_options_and_claims_no_more_than_is_recorded():
    from training import get_recipe
    from training.run import command_of

    details = details_of(IMAGES)
    recipe = get_recipe(IMAGES)
    assert command_of(recipe, recipe, (0,), 1) == {}
    assert f"`python -m training train {IMAGES}`" in card_text(details)
    assert "No choice was made on the test rows but whether the kernels are rounded (below)." in card_text(details)
    in_float32 = details | {"results": {k: v for k, v in details["results"].items() if k != "top1_in_float32"}}
    assert "No choice was made on the test rows.\n" in card_text(in_float32)
    # What a machine can do decides on the dtype; how long to train might have been seen on the test rows.
    text = card_text(details | command_of(recipe, dataclasses.replace(recipe, dtype="float32"), (0,), 2))
    assert "--dtype float32 --devices 2`" in text and "No choice was made on the test rows" in text
    for changed, seeds in ((dataclasses.replace(recipe, average=0.9, publish="average"), (0,)), (recipe, (7,))):
        text = card_text(details | command_of(recipe, changed, seeds, 1))
        assert ("--publish average`" in text or "--seeds 7`" in text) and "No choice" not in text
    uci = get_recipe("batchnorm_mlp.uci-iris")  # of which the name alone stands for `uci-export`
    assert command_of(uci, uci, (0,), 1) == {"command": "python -m training train batchnorm_mlp.uci-iris"}
    details |= command_of(recipe, recipe.rescaled(7), (3, 4), 2)
    text = card_text(details)
    assert f"`python -m training train {IMAGES} --epochs 7 --seeds 3 4 --devices 2`" in text
    assert "No choice" not in text
