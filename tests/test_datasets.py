"""Data sets: their content against published facts, their sources against a local server and broken files."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hub_server import hub_server

from zoo import datasets

PREPARED = pathlib.Path("~/tensorflow_datasets/cifar100/3.0.2").expanduser()
# A port that is never listened on: a connection is refused at once.
CLOSED = "http://127.0.0.1:9"


def sha256(*contents):
    return hashlib.sha256(b"".join(contents)).hexdigest()


def tiny_cifar(seed=0):
    """Thirty images of ten classes, and the facts that describe them."""
    random = np.random.default_rng(seed)
    arrays = {}
    for split, per_class in (("train", 2), ("test", 1)):
        labels = random.permutation(np.repeat(np.arange(10), per_class)).astype(np.uint8)
        arrays[f"x_{split}"] = random.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
        arrays[f"y_{split}"] = labels
    facts = {
        "class_names": [f"class{label}" for label in range(10)],
        "counts": {"train": 20, "test": 10},
        "sums": {s: [sha256(arrays[f"{k}_{s}"].tobytes()) for k in "xy"] for s in ("train", "test")},
    }
    return arrays, facts


@pytest.fixture
def tiny(monkeypatch):
    arrays, facts = tiny_cifar()
    monkeypatch.setitem(datasets.CIFAR, "cifar100", dataclasses.replace(datasets.CIFAR["cifar100"], **facts))
    return arrays


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No source but `data_dir`: an empty home, no client, no server."""
    for variable in ("ZOO_DATA_DIR", "TFDS_DATA_DIR", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.setattr(datasets, "TFDS_SERVER", CLOSED)


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


# Names, the shape of the answer, imports


def test_names():
    names = datasets.list_datasets()
    assert len(names) == len(set(names)) == 2 + 3 + 121
    assert {"cifar10", "cifar100", "digits", "wine", "breast_cancer", "uci/iris", "uci/miniboone"} <= set(names)


def test_unknown_name_lists_close_ones():
    with pytest.raises(ValueError, match="uci/iris") as error:
        datasets.load_dataset("uci/irs")
    assert "uci/irs" in one_line(error)


def test_import_costs_no_backend():
    heavy = "keras tensorflow jax torch sklearn pyarrow PIL huggingface_hub tensorflow_datasets"
    code = f"import sys, zoo.datasets; print([m for m in '{heavy}'.split() if m in sys.modules])"
    root = pathlib.Path(__file__).parent.parent
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "[]"


def test_class_names():
    # Sum of the names in data.md's order: fine_label_names.txt of the official archive, without the last newline.
    names = "\n".join(datasets.CIFAR["cifar100"].class_names)
    assert sha256(names.encode()) == "fbe8ad23bbaf24969898a386833b49c3aaf6ad1119d43f7b41cdea1b3416d578"
    assert [len(fine) for fine in datasets.CIFAR100_SUPERCLASSES.values()] == [5] * 20
    assert datasets.CIFAR["cifar10"].class_names[:4] == ("airplane", "automobile", "bird", "cat")


# The bundled sets

BUNDLED = [
    # The sums are those of the split of record: a published model's test set must not move with scikit-learn.
    ("digits", 1437, 360, 64, 10, "7369f9e0338d52aa5af14678f2e64c1a2805464da4740b7b99ad11102a806b61"),
    ("wine", 142, 36, 13, 3, "37ce3453f6dd47580b56f48bbc7937b8cd4b8e8bdbf7b381664d1d5bfe5a61bf"),
    ("breast_cancer", 455, 114, 30, 2, "83518a3783c66efed30dbb5541f9acfa39b00ecd13a831d7caf91cda18883cfc"),
]


@pytest.mark.parametrize("name, train, test, features, classes, recorded", BUNDLED)
def test_bundled(name, train, test, features, classes, recorded):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_dataset(name)
    assert (data.x_train.shape, data.x_test.shape) == ((train, features), (test, features))
    assert (data.y_train.shape, data.y_test.shape) == ((train,), (test,))
    assert (data.x_train.dtype, data.x_test.dtype) == (np.float32, np.float32)
    assert (data.y_train.dtype, data.y_test.dtype) == (np.int64, np.int64)
    assert (len(data.feature_names), len(data.class_names)) == (features, classes)
    assert {type(text) for text in data.feature_names + data.class_names} == {str}
    # Every row of the original is there once, with its label.
    x, y = getattr(sklearn_datasets, f"load_{name}")(return_X_y=True)
    original = np.column_stack([x.astype(np.float32), y])
    ours = np.column_stack([np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], original[np.lexsort(original.T)])
    assert np.abs(np.bincount(data.y_test) - np.bincount(y) / 5).max() <= 1
    content = sha256(*(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in dataclasses.astuple(data)[1:5]))
    assert data.sha256 == content == recorded


def test_bundled_without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError) as error:
        datasets.load_dataset("digits")
    assert one_line(error) == "digits needs scikit-learn; pip install 'keras-mpelu[data]'"


# CIFAR as an npz file


def test_npz(tiny, tmp_path, nowhere, monkeypatch):
    np.savez(tmp_path / "cifar100.npz", **tiny, coarse_train=np.zeros(20))
    data = datasets.load_dataset("cifar100", tmp_path)
    for key, array in tiny.items():
        np.testing.assert_array_equal(getattr(data, key), array)
    assert (data.x_test.dtype, data.y_test.dtype) == (np.uint8, np.int64)
    assert (data.feature_names, data.class_names[9]) == ((), "class9")
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    assert datasets.load_dataset("cifar100").sha256 == data.sha256


def test_npz_with_the_label_column_of_keras(tiny, tmp_path, nowhere):
    tiny |= {"y_train": tiny["y_train"][:, None].astype(np.int64), "y_test": tiny["y_test"][:, None]}
    np.savez_compressed(tmp_path / "cifar100.npz", **tiny)
    assert datasets.load_dataset("cifar100", tmp_path).y_train.shape == (20,)


def altered(arrays, key, index, value):
    array = arrays[key].astype(np.int64 if value > 255 else arrays[key].dtype)
    array[index] = value
    return {**arrays, key: array}


DAMAGE = {
    "no x_test": (lambda a: {k: v for k, v in a.items() if k != "x_test"}, "no array 'x_test'"),
    "float images": (lambda a: {**a, "x_train": a["x_train"] / 255}, "x_train is float64"),
    "channels first": (lambda a: {**a, "x_test": a["x_test"].transpose(0, 3, 1, 2)}, r"\(10, 3, 32, 32\)"),
    "too few labels": (lambda a: {**a, "y_test": a["y_test"][1:]}, r"y_test is uint8 \(9,\)"),
    "float labels": (lambda a: {**a, "y_test": a["y_test"] * 1.0}, "y_test is float64"),
    "a pixel": (lambda a: altered(a, "x_test", (3, 4, 5, 0), a["x_test"][3, 4, 5, 0] ^ 1), "test images have sha256"),
    "a label": (lambda a: {**a, "y_train": a["y_train"][::-1]}, "train labels have sha256"),
    # 256 becomes 0 as uint8, so the sum alone would not see it.
    "label 256": (lambda a: altered(a, "y_test", a["y_test"] == 0, 256), "labels 1 to 256, expected 0 to 9"),
    "objects": (lambda a: {**a, "y_test": a["y_test"].astype(object)}, "cannot read y_test"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_npz_of_another_content(damage, tiny, tmp_path, nowhere):
    alter, expected = DAMAGE[damage]
    path = tmp_path / "cifar100.npz"
    np.savez(path, **alter(tiny))
    with pytest.raises(ValueError, match=expected) as error:
        datasets.load_dataset("cifar100", tmp_path)
    assert f"delete {path} and run again" in one_line(error)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_npz_damaged(damage, tiny, tmp_path, nowhere):
    path = tmp_path / "cifar100.npz"
    np.savez(path, **tiny)
    content = bytearray(path.read_bytes())
    content[40000] ^= 1
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:50000], "flipped": content, "empty": b"", "text": b"<html>"}[damage])
    with pytest.raises(ValueError) as error:
        datasets.load_dataset("cifar100", tmp_path)
    assert f"delete {path} and run again" in one_line(error)


def test_cifar10_without_sums_must_be_balanced(tiny, tmp_path, nowhere, monkeypatch):
    facts = {"class_names": tuple("0123456789"), "counts": {"train": 20, "test": 10}}
    monkeypatch.setitem(datasets.CIFAR, "cifar10", dataclasses.replace(datasets.CIFAR["cifar10"], **facts))
    np.savez(tmp_path / "cifar10.npz", **tiny)
    assert datasets.load_dataset("cifar10", tmp_path).x_train.shape == (20, 32, 32, 3)
    np.savez(tmp_path / "cifar10.npz", **{**tiny, "y_test": tiny["y_train"][:10]})
    with pytest.raises(ValueError, match="expected 1 each") as error:
        datasets.load_dataset("cifar10", tmp_path)
    one_line(error)


def test_found_nowhere_names_every_source(tmp_path, nowhere):
    # A prepared copy that cannot be read for want of TensorFlow is named, not loaded.
    prepared = tmp_path / "data" / "cifar100" / "3.0.2"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as error:
        datasets.load_dataset("cifar100", tmp_path / "data")
    message = one_line(error)
    assert str(tmp_path / "data" / "cifar100.npz") in message
    assert f"{prepared} needs tensorflow" in message
    assert "needs huggingface_hub; pip install 'keras-mpelu[data]'" in message
    assert CLOSED in message
    assert "ZOO_DATA_DIR" in message


def test_found_nowhere_without_a_folder(nowhere, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="ZOO_DATA_DIR is not set.*HF_HUB_OFFLINE is set") as error:
        datasets.load_dataset("cifar10")
    one_line(error)


# CIFAR from the Hub, with the real client

CLIENT = """
import dataclasses, json, sys
sys.modules["tensorflow"] = None  # no other source
from zoo import datasets
name, facts, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
datasets.TFDS_SERVER = "http://127.0.0.1:9"
datasets.CIFAR[name] = dataclasses.replace(datasets.CIFAR[name], **facts)
try:
    data = datasets.load_dataset(name)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
else:
    import numpy
    numpy.savez(out, x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)
    print(json.dumps(["loaded", data.sha256]))
"""


def parquet(images, labels, label):
    """A file as the Hub has them: PNG in a struct, beside the label."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image_module = pytest.importorskip("PIL.Image")
    records = []
    for image in images:
        png = io.BytesIO()
        image_module.fromarray(image).save(png, "PNG")
        records.append({"bytes": png.getvalue(), "path": None})
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"img": records, label: labels.astype(np.int64)}), file)
    return file.getvalue()


class Hub:
    """Files for a server, the facts that pin them, and a client in a process of its own."""

    def __init__(self, name, folder):
        pytest.importorskip("huggingface_hub")
        self.name, self.folder = name, folder
        self.arrays, self.facts = tiny_cifar()
        known = datasets.CIFAR[name]
        self.revision = known.revision
        self.files = {}
        for split in ("train", "test"):
            content = parquet(self.arrays[f"x_{split}"], self.arrays[f"y_{split}"], known.label)
            self.files[f"datasets/{known.repo}/resolve/{known.revision}/{known.files[split]}"] = content
        self.train, self.test = self.files
        if known.sums:
            sums = {split: sha256(self.files[url]) for split, url in (("train", self.train), ("test", self.test))}
            self.facts["file_sums"] = sums
        else:
            self.facts["sums"] = {}

    def load(self, endpoint):
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        command = [sys.executable, "-c", CLIENT, self.name, json.dumps(self.facts), str(self.folder / "out.npz")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def blob_named_in(self, message):
        path = pathlib.Path(message.partition("delete ")[2].partition(" and ")[0])
        assert path.is_file() and not path.is_symlink()
        return path


def flip(content):
    """Another content of the same size."""
    return content[:1000] + bytes([content[1000] ^ 255]) + content[1001:]


def test_hub(tmp_path):
    hub = Hub("cifar100", tmp_path)
    with hub_server(hub.files, hub.revision) as (endpoint, requests):
        result = hub.load(endpoint)
        assert result[0] == "loaded", result
        assert f"GET {hub.train}" in requests
        loaded = np.load(tmp_path / "out.npz")
        for key, array in hub.arrays.items():
            np.testing.assert_array_equal(loaded[key], array)
    # The second time no server is needed.
    assert hub.load(CLOSED) == result


def test_hub_with_another_content_of_the_same_size(tmp_path):
    hub = Hub("cifar100", tmp_path)
    good = hub.files[hub.test]
    hub.files[hub.test] = flip(good)
    with hub_server(hub.files, hub.revision) as (endpoint, _):
        kind, message = hub.load(endpoint)
        assert kind == "ValueError" and "\n" not in message
        assert f"sha256 {sha256(flip(good))}, expected {sha256(good)}" in message
        # The message's mend is enough once the server is right.
        hub.files[hub.test] = good
        hub.blob_named_in(message).unlink()
        assert hub.load(endpoint)[0] == "loaded"
    assert hub.load(CLOSED)[0] == "loaded"


def test_hub_without_pins_holds_the_file_to_the_sum_of_the_hub(tmp_path):
    hub = Hub("cifar10", tmp_path)
    good = hub.files[hub.train]
    hub.files[hub.train] = (flip(good), good)
    with hub_server(hub.files, hub.revision) as (endpoint, _):
        kind, message = hub.load(endpoint)
        assert kind == "ValueError" and "\n" not in message
        assert f"expected {sha256(good)}" in message
        hub.blob_named_in(message)
        hub.files[hub.train] = good  # it is fetched anew by itself
        assert hub.load(endpoint)[0] == "loaded"


def test_hub_file_that_is_no_parquet(tmp_path):
    hub = Hub("cifar10", tmp_path)
    hub.files[hub.test] = b"<html>" * 100
    with hub_server(hub.files, hub.revision) as (endpoint, _):
        kind, message = hub.load(endpoint)
    assert kind == "ValueError" and "\n" not in message
    assert "cannot be read" in message
    hub.blob_named_in(message)


def test_hub_lacks_the_file(tmp_path):
    hub = Hub("cifar100", tmp_path)
    del hub.files[hub.test]
    with hub_server(hub.files, hub.revision) as (endpoint, _):
        kind, message = hub.load(endpoint)
    assert kind == "FileNotFoundError" and "\n" not in message
    assert "cifar100/test-00000-of-00001.parquet of uoft-cs/cifar100" in message and "404" in message


def test_hub_is_down(tmp_path):
    kind, message = Hub("cifar100", tmp_path).load(CLOSED)
    assert kind == "FileNotFoundError" and "\n" not in message
    assert f"at {CLOSED}: " in message and "refused" in message


# Real data


@pytest.fixture(scope="module")
def cifar100(data_dir):
    return datasets.load_dataset("cifar100", data_dir)


@pytest.mark.data
def test_real_cifar100(cifar100):
    pixels = cifar100.x_train.reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(0), (129.304, 124.070, 112.434), atol=1e-3)
    assert np.bincount(cifar100.y_train).tolist() == [500] * 100
    assert np.bincount(cifar100.y_test).tolist() == [100] * 100
    # The first training image is a bull: cattle.
    assert cifar100.class_names[cifar100.y_train[0]] == "cattle"


@pytest.mark.data
def test_real_superclasses(cifar100, data_dir):
    with np.load(pathlib.Path(data_dir) / "cifar100.npz") as archive:
        if "coarse_train" not in archive:
            pytest.skip("cifar100.npz has no coarse labels")
        coarse = archive["coarse_train"]
    official = list(datasets.CIFAR100_SUPERCLASSES)
    of_fine = {fine: official.index(name) for name, group in datasets.CIFAR100_SUPERCLASSES.items() for fine in group}
    ours = np.array([of_fine[name] for name in cifar100.class_names])[cifar100.y_train]
    np.testing.assert_array_equal(ours, coarse)


@pytest.mark.data
def test_real_cifar100_with_two_images_swapped(cifar100, tmp_path):
    x_test = cifar100.x_test.copy()
    x_test[[0, 1]] = x_test[[1, 0]]
    arrays = {"x_train": cifar100.x_train, "y_train": cifar100.y_train, "x_test": x_test, "y_test": cifar100.y_test}
    path = tmp_path / "cifar100.npz"
    np.savez(path, **arrays)
    try:
        with pytest.raises(ValueError, match="the test images have sha256 .*, expected 4cb8e5d9309da489"):
            datasets.load_dataset("cifar100", tmp_path)
    finally:
        path.unlink()


@pytest.fixture
def prepared(monkeypatch):
    if not (PREPARED / "dataset_info.json").exists():
        pytest.skip(f"no prepared TensorFlow Datasets copy at {PREPARED}")
    pytest.importorskip("tensorflow")
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    return PREPARED


@pytest.mark.data
def test_real_cifar100_prepared_by_tfds(cifar100, prepared):
    data = datasets.load_dataset("cifar100")
    np.testing.assert_array_equal(data.x_test, cifar100.x_test)
    np.testing.assert_array_equal(data.y_test, cifar100.y_test)
    assert data.sha256 == cifar100.sha256
    assert data.class_names == tuple((prepared / "label.labels.txt").read_text().split())


@pytest.mark.data
def test_real_cifar100_prepared_and_damaged(prepared, tmp_path):
    copy = tmp_path / "cifar100" / "3.0.2"
    copy.mkdir(parents=True)
    for file in prepared.iterdir():
        if "train" in file.name:
            with open(file, "rb") as stream:
                (copy / file.name).write_bytes(stream.read(100_000))
        else:
            (copy / file.name).symlink_to(file)
    with pytest.raises(ValueError) as error:
        datasets.load_dataset("cifar100", tmp_path)
    assert f"delete {copy} and run again" in one_line(error)
