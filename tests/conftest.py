"""Fixtures that the tests share."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the commands have it
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # PyTorch's threads wait for one another without rest: two workers of two threads on two cores took over ten times
    # as long as two of one thread.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--update-snapshots", action="store_true", help="write tests/snapshots anew instead of comparing")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long: give --slow"))


@pytest.fixture(scope="session")
def data_dir():
    """The folder of the real data, or a skip that says why (a failure where ZOO_REQUIRE_DATA is set, as in CI)."""
    folder = os.environ.get("ZOO_DATA_DIR")
    if folder and pathlib.Path(folder, "cifar100.npz").is_file():
        return folder
    reason = "real data: set ZOO_DATA_DIR to a folder with cifar100.npz and uci/"
    if os.environ.get("ZOO_REQUIRE_DATA"):
        pytest.fail(f"ZOO_REQUIRE_DATA is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def float32():
    """Every test starts from Keras's own policy."""
    yield
    import keras

    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def seed():
    """Each test's own draws are the same each time, alone too: one that passes by chance would fail by chance."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def keras_state():
    """Every file starts from a clear session (each test would spend some tenths of a second on collecting garbage)."""
    yield
    import keras

    keras.utils.clear_session()


@pytest.fixture
def no_cross_validation(monkeypatch):
    """For whole runs on tables, each of which would train five more networks and five forests.

    test_tabular.py and one run in test_recipes.py do.
    """
    figures = {"folds": 2, "rows": 9, "accuracy": {"x": [1, 0]}}
    monkeypatch.setattr("training.tabular.cross_validate", lambda *_: figures)


@pytest.fixture
def run_onnx():
    """Computes the outputs of an ONNX file of one input and one output; skips where the packages are not installed."""
    for package in ("onnx", "onnxscript"):  # which write such a file
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")

    def run(path, x):
        session = runtime.InferenceSession(path)
        (given,) = session.get_inputs()
        (outputs,) = session.run(None, {given.name: x})
        return outputs

    return run


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that compile much and run it a few times: JAX optimises little, here and in processes of theirs."""
    import keras

    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    name = "jax_disable_most_optimizations"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name.upper(), "1")
        jax.config.update(name, True)
        yield
        jax.config.update(name, False)
