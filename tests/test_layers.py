"""MPELU against a float64 NumPy reference, on the backend that KERAS_BACKEND selects."""

import inspect
import json

import keras
import numpy as np
import pytest

from keras_mpelu import MPELU
from keras_mpelu import kernels
from keras_mpelu import mpelu
from keras_mpelu.layers import plain_mpelu

BACKEND = keras.backend.backend()
MODES = ["eager"] if BACKEND == "torch" else ["eager", "jit"]
of_torch = pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch alone")


def outputs_and_gradients(function, arrays, upstream, mode="eager"):
    """`function(*arrays)` and the gradients of `sum(upstream * function(*arrays))`, as NumPy arrays."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def run(*tensors):
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                outputs = function(*tensors)
            return outputs, tape.gradient(outputs, tensors, tf.cast(upstream, outputs.dtype))

        run = tf.function(run, jit_compile=True) if mode == "jit" else run
        outputs, gradients = run(*(tf.constant(array) for array in arrays))
    elif BACKEND == "jax":
        import jax

        def run(*tensors):
            outputs, pullback = jax.vjp(function, *tensors)
            return outputs, pullback(jax.numpy.asarray(upstream, outputs.dtype))

        run = jax.jit(run) if mode == "jit" else run
        outputs, gradients = run(*(jax.numpy.asarray(array) for array in arrays))
    else:
        import torch

        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        outputs = function(*tensors)
        gradients = torch.autograd.grad(outputs, tensors, torch.tensor(upstream).to(outputs.dtype))
        outputs = outputs.detach()
    return to_numpy(outputs), [to_numpy(gradient) for gradient in gradients]


def to_numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")), "float64")


def reference(x, alpha, beta, upstream=1.0):
    """The formulas of the paper in float64: output and the gradients of x, alpha and beta.

    `alpha` and `beta` have the rank of `x`, with size 1 on every axis along which they are shared.
    """
    x, alpha, beta = (np.asarray(array, "float64") for array in (x, alpha, beta))
    growth = np.exp(beta * np.minimum(x, 0))
    shared = tuple(axis for axis in range(x.ndim) if alpha.shape[axis] == 1)
    return (
        np.where(x > 0, x, alpha * (growth - 1)),
        upstream * np.where(x > 0, 1, alpha * beta * growth),
        np.sum(upstream * np.where(x > 0, 0, growth - 1), shared),
        np.sum(upstream * np.where(x > 0, 0, alpha * x * growth), shared),
    )


def data(*shape, channels, seed=0):
    """Inputs and upstream gradients, and distinct alpha and beta for each channel."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal(shape)
    alpha, beta = rng.uniform(0.2, 2, channels), rng.uniform(0.2, 2, channels)
    return [array.astype("float32") for array in (x, alpha, beta, rng.standard_normal(shape))]


def assert_close(actual, expected, tolerance=1e-5):
    """Equal to `tolerance`, relative to the largest expected value."""
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.max(np.abs(expected)))


def with_weights(layer):
    """The layer as a function of its input, alpha and beta."""
    return lambda x, alpha, beta: layer.stateless_call([alpha, beta], [], x)[0]


@pytest.mark.parametrize("mode", MODES)
def test_function_and_gradients(mode):
    x, alpha, beta, upstream = data(5, 6, 7, 8, channels=8)
    alpha[:4] = [0, 1, -0.5, 98]
    beta[:4] = [1, 1, 0.5, 0.01]
    outputs, gradients = outputs_and_gradients(mpelu, (x, alpha, beta), upstream, mode)
    expected = reference(x, alpha.reshape(1, 1, 1, 8), beta.reshape(1, 1, 1, 8), upstream)
    for actual, value in zip((outputs, *gradients), expected, strict=True):
        assert_close(actual, value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("axis, shape", [(-1, (64, 6)), (-1, (4, 5, 7, 6)), (1, (4, 6, 5, 7)), (None, (4, 5, 7, 6))])
def test_layer_and_gradients(axis, shape, mode):
    x, alpha, beta, upstream = data(*shape, channels=() if axis is None else 6)
    layer = MPELU(axis=axis)
    layer.build(shape)
    assert [weight.shape for weight in layer.weights] == [alpha.shape, beta.shape]
    outputs, gradients = outputs_and_gradients(with_weights(layer), (x, alpha, beta), upstream, mode)
    aligned = [1] * len(shape)
    if axis is not None:
        aligned[axis] = 6
    expected = reference(x, alpha.reshape(aligned), beta.reshape(aligned), upstream)
    for actual, value in zip((outputs, *gradients), expected, strict=True):
        assert_close(actual, value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha, beta", [(0.5, 2.0), (0.0, 1.0)])
def test_large_inputs_are_finite(alpha, beta, mode):
    x = np.array([-1e4, 1e4], "float32")
    arrays = (x, np.float32(alpha), np.float32(beta))
    outputs, gradients = outputs_and_gradients(mpelu, arrays, np.ones(2, "float32"), mode)
    np.testing.assert_allclose(outputs, [-alpha, 1e4])
    np.testing.assert_allclose(gradients[0], [0, 1])
    np.testing.assert_allclose(gradients[1:], [-1, 0])


@pytest.mark.parametrize("mode", MODES)
def test_zero_belongs_to_the_negative_branch(mode):
    arrays = (np.zeros(3, "float32"), np.float32(0.5), np.float32(3))
    outputs, gradients = outputs_and_gradients(mpelu, arrays, np.ones(3, "float32"), mode)
    np.testing.assert_array_equal(outputs, [0, 0, 0])
    np.testing.assert_allclose(gradients[0], [1.5, 1.5, 1.5])
    assert gradients[1] == gradients[2] == 0


@pytest.mark.parametrize("mode", MODES)
def test_alpha_zero_is_relu(mode):
    x, _, _, upstream = data(50, channels=())
    outputs, gradients = outputs_and_gradients(mpelu, (x, np.float32(0), np.float32(1)), upstream, mode)
    np.testing.assert_array_equal(outputs, np.maximum(x, 0))
    np.testing.assert_array_equal(gradients[0], upstream * (x > 0))
    assert np.isfinite(gradients[1]) and gradients[1] != 0  # alpha can leave 0
    assert gradients[2] == 0


@pytest.mark.parametrize("axis", [-1, 1, None])
def test_more_numbers_than_a_kernel_takes_at_once(axis):
    x, alpha, beta, upstream = data(7, 64, 20, 70, channels=() if axis is None else {-1: 70, 1: 64}[axis])
    shape = {-1: (1, 1, 1, 70), 1: (1, 64, 1, 1), None: (1, 1, 1, 1)}[axis]
    arrays = x, alpha.reshape(shape), beta.reshape(shape)
    outputs, gradients = outputs_and_gradients(mpelu, arrays, upstream)
    for actual, value in zip((outputs, *gradients), reference(*arrays, upstream), strict=True):
        assert_close(actual.squeeze(), value.squeeze())


@pytest.mark.parametrize(
    "x, alpha, beta",
    [
        *(((5, 3, 4), *shapes) for shapes in [((), (4,)), ((4,), ()), ((3, 1), (4,)), ((1, 4), (4,))]),
        ((4,), (4,), (4,)),  # shared along no axis
        ((5, 3, 4), (5, 1, 4), ()),
        ((1100, 1000), (1100, 1), (1100, 1)),  # not along the first axis, and more than a kernel takes at once
    ],
)
def test_alpha_and_beta_of_other_shapes(x, alpha, beta):
    rng = np.random.default_rng(0)
    shapes = x, alpha, beta
    x, alpha, beta = (np.asarray(rng.uniform(-2, 1, shape), "float32") for shape in shapes)
    outputs, gradients = outputs_and_gradients(mpelu, (x, alpha, beta), np.ones_like(x))
    expected, expected_gradients = outputs_and_gradients(plain_mpelu, (x, alpha, beta), np.ones_like(x))
    for actual, value in zip((outputs, *gradients), (expected, *expected_gradients), strict=True):
        assert_close(actual, value)


@pytest.mark.parametrize("shape", [(), (7,), (0, 3)])
def test_few_numbers(shape):
    x, alpha, beta = np.full(shape, -0.5, "float32"), np.float32(1.5), np.float32(0.5)
    outputs, gradients = outputs_and_gradients(mpelu, (x, alpha, beta), np.ones_like(x))
    expected, expected_gradients = outputs_and_gradients(plain_mpelu, (x, alpha, beta), np.ones_like(x))
    for actual, value in zip((outputs, *gradients), (expected, *expected_gradients), strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-5)


def test_gradient_of_the_gradient():
    """Of x alone: `alpha * beta**2 * exp(beta * x)` where x is negative."""
    x, alpha, beta = np.array([-1.5, -0.2, 0.7], "float32"), np.float32(0.5), np.float32(2)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x_ = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x_)
            with tf.GradientTape() as inner:
                inner.watch(x_)
                outputs = mpelu(x_, alpha, beta)
            first = inner.gradient(outputs, x_)
        second = outer.gradient(first, x_)
    elif BACKEND == "jax":
        import jax

        second = jax.grad(lambda x: jax.grad(lambda x: mpelu(x, alpha, beta).sum())(x).sum())(x)
    else:
        import torch

        x_ = torch.tensor(x, requires_grad=True)
        (first,) = torch.autograd.grad(mpelu(x_, alpha, beta).sum(), x_, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x_)
    np.testing.assert_allclose(to_numpy(second), np.where(x > 0, 0, 2 * np.exp(2 * x)), rtol=1e-5)


def differentiated(test):
    """Marks tests of forward mode, which TensorFlow has of the kernel too."""
    # 2026-11, PyTorch 2.13, of its own when it is first used
    test = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")(test)
    return pytest.mark.skipif(BACKEND == "tensorflow", reason="of JAX and PyTorch alone")(test)


def differentiate(function, arrays):
    """Second derivatives of `function(*arrays)`, a number, and its derivative along the arrays: by forward mode."""
    if BACKEND == "jax":
        from jax import hessian
        from jax import jvp
        from jax.numpy import asarray
    else:
        from torch import tensor as asarray
        from torch.func import hessian
        from torch.func import jvp
    tensors = tuple(asarray(array) for array in arrays)
    second = hessian(function, tuple(range(len(tensors))))(*tensors)
    return [[to_numpy(part) for part in row] for row in second], to_numpy(jvp(function, tensors, tensors)[1])


@differentiated
def test_every_mode_of_differentiation_takes_the_plain_version():
    x, alpha, beta, upstream = data(5, 3, channels=3)
    wide_x, wide_alpha, wide_beta, wide_upstream = (a.astype("float64") for a in (x, alpha, beta, upstream))
    growth = wide_upstream * np.where(x > 0, 0, np.exp(wide_beta * np.minimum(wide_x, 0)))
    # Two alphas, or two numbers of x, never meet in a term; an alpha or a beta of a channel is in all of its rows.
    by_x_and = [wide_alpha * wide_beta**2 * growth, wide_beta * growth, wide_alpha * (1 + wide_beta * wide_x) * growth]
    by_alpha_and_beta = (wide_x * growth).sum(0)
    by_beta_twice = (wide_alpha * wide_x**2 * growth).sum(0)
    same_row, same_channel = np.eye(5)[:, None, :, None], np.eye(3)

    def total(x, alpha, beta):
        return keras.ops.sum(plain_mpelu(x, alpha, beta) * keras.ops.convert_to_tensor(upstream))

    second, along = differentiate(total, (x, alpha, beta))
    assert_close(second[0][0], by_x_and[0][:, :, None, None] * same_row * same_channel[None, :, None])
    for place in (1, 2):
        assert_close(second[0][place], by_x_and[place][:, :, None] * same_channel)
        assert_close(second[place][0], np.moveaxis(by_x_and[place][:, :, None] * same_channel, 2, 0))
    np.testing.assert_array_equal(second[1][1], np.zeros((3, 3)))
    assert_close(second[1][2], by_alpha_and_beta * same_channel)
    assert_close(second[2][1], by_alpha_and_beta * same_channel)
    assert_close(second[2][2], by_beta_twice * same_channel)
    first = reference(x, alpha[None], beta[None], upstream)[1:]
    assert_close(along, sum(np.sum(f * a) for f, a in zip(first, (wide_x, wide_alpha, wide_beta), strict=True)))

    def of_the_kernel(x):
        return keras.ops.sum(mpelu(x, alpha, beta))

    with pytest.raises((TypeError, RuntimeError), match="custom_vjp|_MPELU"):  # as its docstring says
        differentiate(of_the_kernel, (x,))


@differentiated
def test_every_mode_of_differentiation_takes_the_layer_that_the_docstring_describes():
    class Plain(MPELU):
        def call(self, inputs):
            return plain_mpelu(inputs, self.alpha, self.beta)

    x, alpha, beta, _ = data(4, 3, channels=3)
    model = keras.Sequential([keras.Input((3,)), Plain()])
    model.set_weights([alpha, beta])
    (((second,),), along) = differentiate(lambda x: keras.ops.sum(model(x)), (x,))
    expected = np.where(x > 0, 0, alpha.astype("float64") * beta**2 * np.exp(beta * np.minimum(x, 0)))
    assert_close(second.reshape(12, 12), np.diag(expected.ravel()))
    assert_close(along, np.sum(x * reference(x, alpha[None], beta[None])[1]))


@of_torch
def test_torch_vmap_of_the_gradient_of_the_plain_version():
    import torch

    x, alpha, beta, upstream = data(4, 2, 3, channels=3)
    tensors = [torch.tensor(array) for array in (x, alpha, beta, upstream)]

    def total(x, alpha, beta, upstream):
        return (plain_mpelu(x, alpha, beta) * upstream).sum()

    def of_the_kernel(x, alpha, beta, upstream):
        return (mpelu(x, alpha, beta) * upstream).sum()

    for_each = {"in_dims": (0, None, None, 0)}
    found = torch.func.vmap(torch.func.grad(total, (0, 1, 2)), **for_each)(*tensors)
    for row in range(4):
        expected = reference(x[row], alpha[None], beta[None], upstream[row])[1:]
        for actual, value in zip(found, expected, strict=True):
            assert_close(to_numpy(actual[row]), value)
    with pytest.raises(RuntimeError, match="_MPELU"):  # as the docstring of `mpelu` says
        torch.func.vmap(torch.func.grad(of_the_kernel, (0, 1, 2)), **for_each)(*tensors)


def mpelu_model():
    """Two MPELUs of known weights behind a convolution, and what they are given and return by float64."""
    x, alpha, beta, _ = data(4, 6, 6, 5, channels=5)
    alpha[0], beta[0] = 1e3, 1e-3  # as in place of a LeakyReLU, which leaves exp(z) - 1 in float32 four digits
    model = keras.Sequential([keras.Input((6, 6, 5)), MPELU(), MPELU(axis=1)])
    model.set_weights([alpha, beta, np.full(6, 0.3), np.full(6, 2.0)])
    between = reference(x, alpha.reshape(1, 1, 1, 5), beta.reshape(1, 1, 1, 5))[0]
    return model, x, reference(between, np.full((1, 6, 1, 1), 0.3), np.full((1, 6, 1, 1), 2.0))[0]


@of_torch
@pytest.mark.filterwarnings("ignore")  # of PyTorch's tracers and of Keras's layers under them
@pytest.mark.parametrize("way", ["jit.trace", "export", "strict export", "compile"])
def test_what_pytorch_traces_is_of_its_own_operations(way, tmp_path):
    import torch

    model, x, expected = mpelu_model()
    path, example = tmp_path / "model.pt2", torch.tensor(x[:2])
    if way == "jit.trace":
        torch.jit.save(torch.jit.trace(model, (example,)), path)
        loaded = torch.jit.load(path)
    elif way == "compile":
        loaded = torch.compile(model, backend="eager", fullgraph=True)
    else:
        batch = torch.export.Dim("batch", min=1, max=99)
        strict = way == "strict export"
        model.export(path, format="torch", strict=strict, dynamic_shapes={0: batch}, verbose=False)
        loaded = torch.export.load(path).module()
    assert_close(to_numpy(loaded(torch.tensor(x))), expected, 1e-6)


@of_torch
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_traces_for_onnx_has_operations_that_onnx_has(monkeypatch):
    """Without the packages that write such a file; `aten::expm1` is what ONNX lacks of the plain version."""
    import torch

    model, x, expected = mpelu_model()
    kinds = {}
    for within in (False, True):
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda within=within: within)
        traced = torch.jit.trace(model, (torch.tensor(x[:2]),))
        assert_close(to_numpy(traced(torch.tensor(x))), expected, 1e-6)
        kinds[within] = {node.kind() for node in traced.inlined_graph.nodes()}
    assert "aten::expm1" in kinds[False] - kinds[True] and "prim::PythonOp" not in kinds[True]
    x, alpha, beta = (torch.tensor(values) for values in ([-1e4, -1e-30, 0.0, 1e4], 0.5, 2.0))
    given = x.to(torch.bfloat16).requires_grad_()
    returned = torch.jit.trace(mpelu, (given, alpha, beta))(given, alpha, beta)
    assert returned.dtype == torch.bfloat16
    np.testing.assert_allclose(to_numpy(returned.detach()), [-0.5, -1e-30, 0, 1e4], rtol=2**-8)
    returned.sum().backward()
    np.testing.assert_allclose(to_numpy(given.grad), [0, 1, 1, 1])


@of_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [None, 4])  # for which Keras takes one and the other of PyTorch's exporters
def test_onnx_computes_the_same(rows, tmp_path, run_onnx):
    model, x, expected = mpelu_model()
    model(x)  # else Keras refuses
    signature = [keras.InputSpec(shape=(rows, 6, 6, 5), dtype="float32")]
    model.export(tmp_path / "model.onnx", format="onnx", input_signature=signature, verbose=False)
    assert_close(run_onnx(tmp_path / "model.onnx", x), expected, 1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow alone")
def test_autograph_can_transform_what_finds_the_kernel():
    """Else it warns in every `tf.function` that calls `mpelu`."""
    import tensorflow as tf

    tf.autograph.to_graph(kernels.of_this_backend)


def test_a_symbolic_input():
    """`mpelu` as an operation of a functional model."""
    inputs = keras.Input((3,))
    model = keras.Model(inputs, mpelu(inputs, 0.5, 2.0))
    x = data(4, 3, channels=3)[0]
    assert_close(model.predict(x, verbose=0), reference(x, [[0.5]], [[2.0]])[0])


@pytest.mark.parametrize("alpha, beta", [(1e-20, 1e-20), (-3e-25, 1e-15), (1e-33, 0.5), (1e-20, -1e-20), (1e-33, -2.0)])
def test_what_weight_decay_leaves_is_no_denormal_number(alpha, beta):
    """Which take a CPU many times as long; and alpha can leave 0 all the same."""
    x, _, _, upstream = data(1000, channels=())
    x = 5 * x
    outputs, gradients = outputs_and_gradients(mpelu, (x, np.float32(alpha), np.float32(beta)), upstream)
    expected = reference(x, np.array([alpha]), np.array([beta]), upstream)
    np.testing.assert_allclose(outputs, expected[0], rtol=1e-5, atol=1e-28)
    np.testing.assert_allclose(gradients[0], expected[1], rtol=1e-5, atol=1e-28)
    np.testing.assert_allclose(
        gradients[1], expected[2], rtol=1e-3, atol=1e-3
    )  # exp - 1 of 1e-20 is 0 beside a sum of 1000
    for array in (outputs, gradients[0]):
        assert not np.any((array != 0) & (np.abs(array) < np.finfo("float32").tiny))


def test_new_layer_is_elu():
    x = data(20, 3, channels=3)[0]
    np.testing.assert_allclose(to_numpy(MPELU()(x)), to_numpy(keras.activations.elu(x)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layer, shape", [(keras.layers.Dense(5), (4,)), (keras.layers.Conv2D(5, 3), (8, 8, 2))])
def test_after_dense_and_conv(layer, shape):
    inputs = keras.Input(shape)
    before = layer(inputs)
    after = MPELU(alpha_initializer=keras.initializers.Constant(0.25))(before)
    x = data(16, *shape, channels=5)[0]
    before, after = keras.Model(inputs, [before, after]).predict(x, verbose=0)
    assert before.min() < -0.1
    assert_close(after, np.where(before > 0, before, 0.25 * np.expm1(before.astype("float64"))))


@pytest.mark.parametrize("policy, epsilon", [("float32", 2**-23), ("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)])
def test_dtype_policies(policy, epsilon):
    layer = MPELU(dtype=policy)
    x, alpha, beta, _ = data(400, 3, channels=3)
    layer.build(x.shape)
    layer.set_weights([alpha, beta])
    assert [weight.dtype for weight in layer.weights] == ["float32", "float32"]
    np.testing.assert_array_equal(to_numpy(layer.alpha), alpha)  # the variables are not rounded
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == layer.compute_dtype
    # Rounding of x, alpha, beta, of the product and of the result: half an epsilon each.
    expected = reference(x, alpha[None], beta[None])[0]
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=4 * epsilon)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_of_alpha_and_beta_are_not_rounded_with_the_inputs(dtype):
    """Sums of some thousand numbers, where half precision would keep two or three digits."""
    x, alpha, beta, upstream = (array.astype("float32") for array in data(16, 16, 16, 4, channels=4))
    x, upstream = (to_numpy(keras.ops.cast(array, dtype)).astype("float32") for array in (x, upstream))  # exact there

    def rounded(x, alpha, beta):
        return mpelu(keras.ops.cast(x, dtype), alpha, beta)

    _, gradients = outputs_and_gradients(rounded, (x, alpha, beta), upstream)
    _, _, by_alpha, by_beta = reference(x, alpha.reshape(1, 1, 1, 4), beta.reshape(1, 1, 1, 4), upstream)
    assert_close(gradients[1], by_alpha)
    assert_close(gradients[2], by_beta)


def test_integers_are_numbers():
    x = np.array([[-1, 2]])
    expected = [[np.expm1(-1.0), 2.0]]
    np.testing.assert_allclose(to_numpy(mpelu(x, 1.0, 1.0)), expected, rtol=1e-6)
    outputs = MPELU(dtype="mixed_bfloat16")(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    np.testing.assert_allclose(to_numpy(outputs), expected, rtol=0.01)


def test_another_number_of_channels_than_it_was_built_for_is_refused():
    layer = MPELU(axis=np.int64(-1))
    layer.build((None, 3))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        layer(np.ones((2, 1), "float32"))
    for axis in (3, -3):
        layer = MPELU(axis=axis)
        layer.build((None, 4, 5, 6))
        with pytest.raises(ValueError, match="expected min_ndim"):
            layer(np.ones((2, 4), "float32"))


def example_layer():
    return MPELU(
        alpha_initializer=keras.initializers.Constant(0.25),
        beta_initializer=keras.initializers.RandomUniform(0.5, 1, seed=1),
        alpha_regularizer=keras.regularizers.L2(0.1),
        beta_regularizer=keras.regularizers.L1(0.2),
        alpha_constraint=keras.constraints.MaxNorm(3),
        beta_constraint=keras.constraints.NonNeg(),
        axis=1,
        name="act",
    )


def test_config_round_trip():
    config = example_layer().get_config()
    arguments = set(inspect.signature(MPELU.__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(config)
    restored = MPELU.from_config(json.loads(json.dumps(config)))
    assert restored.get_config() == config
    default = MPELU().get_config()
    assert all(config[argument] != default[argument] for argument in arguments)  # so none is lost unseen
    restored.build((None, 4, 9))
    np.testing.assert_array_equal(to_numpy(restored.alpha), [0.25] * 4)
    beta = to_numpy(restored.beta)
    assert beta.min() >= 0.5 and len(set(beta)) == 4
    assert to_numpy(sum(restored.losses)) == pytest.approx(0.1 * 4 * 0.25**2 + 0.2 * beta.sum(), rel=1e-5)
    assert isinstance(restored.beta.constraint, keras.constraints.NonNeg)
    assert isinstance(restored.alpha.constraint, keras.constraints.MaxNorm)


def test_save_and_load(tmp_path):
    model = keras.Sequential([keras.Input((4, 6)), example_layer(), keras.layers.Flatten(), MPELU(axis=None)])
    x, alpha, beta, _ = data(5, 4, 6, channels=4)
    model.set_weights([alpha, beta, np.float32(0.7), np.float32(1.3)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.get_layer("act").get_config() == model.get_layer("act").get_config()


def test_fit_step():
    x, alpha, beta, target = data(32, 3, channels=3)
    model = keras.Sequential([keras.Input((3,)), MPELU()])
    model.set_weights([alpha, beta])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, target, batch_size=32, verbose=0)
    upstream = 2 * (reference(x, alpha[None], beta[None])[0] - target) / x.size
    _, _, alpha_gradient, beta_gradient = reference(x, alpha[None], beta[None], upstream)
    assert_close(to_numpy(model.layers[0].alpha), alpha - 0.1 * alpha_gradient)
    assert_close(to_numpy(model.layers[0].beta), beta - 0.1 * beta_gradient)


@pytest.mark.parametrize("axis", [0, -2, 2, -3])
def test_axis_out_of_range(axis):
    with pytest.raises(ValueError, match="not a channel axis"):
        MPELU(axis=axis).build((None, 3))


def test_unknown_channel_size():
    with pytest.raises(ValueError, match="known size on axis -1"):
        MPELU()(keras.Input((4, None)))
    assert MPELU(axis=None)(keras.Input((4, None))).shape == (None, 4, None)  # as the message advises


@pytest.mark.parametrize("axis", [1.0, "1", [1, 2], True])
def test_axis_of_wrong_type(axis):
    with pytest.raises(ValueError, match="axis is one integer"):
        MPELU(axis=axis)
