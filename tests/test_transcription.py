"""The networks written a second time in PyTorch, from the paper's description, with the same weights: equal logits."""

import keras
import numpy as np
import pytest

from zoo.registry import create_model

torch = pytest.importorskip("torch", reason="the transcriptions need torch")
nn = torch.nn

CIFAR100_MEAN, CIFAR100_STD = (129.304, 124.070, 112.434), (68.170, 65.392, 70.418)


class TorchMPELU(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(self, x):
        alpha, beta = self.alpha[:, None, None], self.beta[:, None, None]
        return torch.clamp(x, min=0) + alpha * (torch.exp(beta * torch.clamp(x, max=0)) - 1)


ACTIVATIONS = {"relu": lambda channels: nn.ReLU(), "elu": lambda channels: nn.ELU(), "mpelu": TorchMPELU}


def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicUnit(nn.Module):
    def __init__(self, inputs, channels, stride, activation):
        super().__init__()
        self.branch = nn.Sequential(
            conv(inputs, channels, 3, stride),
            nn.BatchNorm2d(channels),
            activation(channels),
            conv(channels, channels, 3),
            nn.BatchNorm2d(channels),
        )
        self.stride = stride
        self.after = activation(channels)

    def forward(self, x):
        shortcut = x
        if self.stride == 2:  # option A
            shortcut = x[:, :, ::2, ::2]
            shortcut = torch.cat([shortcut, torch.zeros_like(shortcut)], 1)
        return self.after(self.branch(x) + shortcut)


class BottleneckUnit(nn.Module):
    def __init__(self, inputs, channels, stride, first):
        super().__init__()
        self.branch = nn.Sequential(
            conv(inputs, channels, 1, stride),
            nn.BatchNorm2d(channels),
            TorchMPELU(channels),
            conv(channels, channels, 3),
            nn.BatchNorm2d(channels),
            TorchMPELU(channels),
            conv(channels, 4 * channels, 1),
        )
        self.shortcut = conv(inputs, 4 * channels, 1, stride) if first else nn.Identity()

    def forward(self, x):
        return self.branch(x) + self.shortcut(x)


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def basic_resnet(depth, classes, activation):
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16), activation(16)]
    inputs = 16
    for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in [first_stride] + [1] * ((depth - 2) // 6 - 1):
            layers.append(BasicUnit(inputs, channels, stride, activation))
            inputs = channels
    return nn.Sequential(*layers, Pool(), nn.Linear(64, classes))


def bottleneck_nopre_resnet(depth, classes):
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16), TorchMPELU(16)]
    inputs = 16
    for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
        for unit in range((depth - 2) // 9):
            layers.append(BottleneckUnit(inputs, channels, 1 if unit else first_stride, first=not unit))
            inputs = 4 * channels
    return nn.Sequential(*layers, nn.BatchNorm2d(256), TorchMPELU(256), Pool(), nn.Linear(256, classes))


def randomise(model, seed=0):
    """Gives every weight but the kernels a value away from its default."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance", "alpha") or "_act" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))


@torch.no_grad()
def copy_weights(source, target):
    """Copies a Keras model into a torch one, layer by layer in order; torch's state has the same order per layer."""
    layers = [layer for layer in source.layers if layer.weights]
    modules = [module for module in target.modules() if list(module.parameters(recurse=False))]
    for layer, module in zip(layers, modules, strict=True):
        state = [tensor for name, tensor in module.state_dict().items() if name != "num_batches_tracked"]
        for tensor, array in zip(state, layer.get_weights(), strict=True):
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            array = array.T if array.ndim == 2 else array
            assert tensor.shape == array.shape, layer.name
            tensor.copy_(torch.tensor(array.copy()))


def assert_equal_logits(model, transcription, x, torch_x):
    copy_weights(model, transcription)
    with torch.no_grad():
        expected = transcription.eval()(torch_x).numpy()
    logits = model.predict(x, verbose=0)
    scale = np.abs(expected).max()
    assert expected.std(0).max() > 0.01 * scale  # the rows differ, so the comparison says something
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "arch, options, shape",
    [
        ("relu_resnet20", {}, (32, 32, 3)),
        ("elu_resnet20", {}, (32, 32, 3)),
        ("mpelu_resnet20", {}, (32, 32, 3)),
        ("mpelu_resnet20", {}, (15, 18, 3)),  # odd sizes tell left from right padding
        ("mpelu_nopre_resnet164", {"depth": 20}, (32, 32, 3)),
        ("mpelu_nopre_resnet164", {}, (32, 32, 3)),
    ],
)
def test_image_networks(arch, options, shape):
    model = create_model(arch, num_classes=7, classifier_activation=None, input_shape=shape, **options)
    randomise(model)
    if "nopre" in arch:
        transcription = bottleneck_nopre_resnet(options.get("depth", 164), 7)
    else:
        transcription = basic_resnet(20, 7, ACTIVATIONS[arch.partition("_")[0]])
    brightest = np.array([256, 30, 256, 120, 200, 60]).reshape(6, 1, 1, 1)
    x = np.random.default_rng(1).integers(0, brightest, (6, *shape)).astype("uint8")
    x[::2, :7] //= 4
    standardised = (torch.tensor(x).float() - torch.tensor(CIFAR100_MEAN)) / torch.tensor(CIFAR100_STD)
    assert_equal_logits(model, transcription, x, standardised.permute(0, 3, 1, 2))


@pytest.mark.parametrize("options, units", [({}, [256] * 8), ({"form": "conic", "depth": 4}, [256, 100, 39, 15])])
def test_snn(options, units):
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(0, 3, 9), rng.uniform(0.2, 9, 9)
    table = {"num_features": 9, "num_classes": 6, "mean": mean, "variance": variance}
    model = create_model("snn_mlp8", classifier_activation=None, **table, **options)
    randomise(model)
    x = (mean + variance**0.5 * rng.standard_normal((20, 9))).astype("float32")
    layers = []
    for inputs, outputs in zip([9, *units], units, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.SELU()]
    transcription = nn.Sequential(*layers, nn.Linear(units[-1], 6))
    assert_equal_logits(model, transcription, x, torch.tensor((x - mean) / variance**0.5).float())


@pytest.mark.parametrize(
    "arch, depth, scale",
    [("relu_resnet20", 8, 1.41421), ("mpelu_resnet20", 8, 1), ("mpelu025_nopre_resnet164", 11, 1.37199)],
)
def test_what_the_copied_weights_hide(arch, depth, scale):
    """The epsilon and momentum of batch norm, and the initial kernels and activations."""
    model = create_model(arch, depth=depth)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
    kernel = keras.ops.convert_to_numpy(model.get_layer("stage3_unit1_conv1").kernel)
    fan_out = kernel.size / kernel.shape[2]
    assert kernel.std() * fan_out**0.5 == pytest.approx(scale, rel=5 / (2 * kernel.size) ** 0.5)
    starts = [keras.ops.convert_to_numpy(weight) for weight in model.weights if weight.name == "alpha"]
    assert all(np.all(alpha == (0.25 if "025" in arch else 1)) for alpha in starts)
    assert len(starts) == {"relu": 0, "mpelu": 7, "mpelu025": 8}[arch.partition("_")[0]]
