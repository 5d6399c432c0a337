"""The networks written a second time in PyTorch, from the paper's description, with the same weights: equal logits."""

import re

import keras
import numpy as np
import pytest

from keras_mpelu import MPELU
from zoo.registry import create_model

torch = pytest.importorskip("torch", reason="the transcriptions need torch")
nn = torch.nn

CIFAR100_MEAN, CIFAR100_STD = (129.304, 124.070, 112.434), (68.170, 65.392, 70.418)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.280, 103.530), (58.395, 57.120, 57.375)


class TorchMPELU(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.ones(channels))

    def forward(self, x):
        shape = (-1,) + (1,) * (x.ndim - 2)
        alpha, beta = self.alpha.reshape(shape), self.beta.reshape(shape)
        return torch.clamp(x, min=0) + alpha * (torch.exp(beta * torch.clamp(x, max=0)) - 1)


ACTIVATIONS = {
    "relu": lambda channels: nn.ReLU(),
    "elu": lambda channels: nn.ELU(),
    "prelu": nn.PReLU,
    "mpelu": TorchMPELU,
}


def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class OptionA(nn.Module):
    def forward(self, x):
        x = x[:, :, ::2, ::2]
        return torch.cat([x, torch.zeros_like(x)], 1)


class Residual(nn.Module):
    """after(branch(common(x)) + shortcut(x)); a shortcut convolution takes common(x)."""

    def __init__(self, branch, shortcut=None, common=None, after=None):
        super().__init__()
        self.common = common or nn.Identity()
        self.branch = branch
        self.shortcut = shortcut
        self.after = after or nn.Identity()

    def forward(self, x):
        common = self.common(x)
        return self.after(self.branch(common) + (self.shortcut(common) if self.shortcut else x))


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def stages(count):
    """(input channels, base width, stride) of every unit, for units whose output is as wide as their base."""
    inputs = 16
    for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
        for unit in range(count):
            yield inputs, channels, 1 if unit else first_stride
            inputs = channels


def basic_resnet(depth, classes, activation, post_activation=True, shortcut="A"):
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16), activation(16)]
    for inputs, channels, stride in stages((depth - 2) // 6):
        branch = nn.Sequential(
            conv(inputs, channels, 3, stride),
            nn.BatchNorm2d(channels),
            activation(channels),
            conv(channels, channels, 3),
            nn.BatchNorm2d(channels),
        )
        projection = None
        if stride == 2:
            option_b = nn.Sequential(conv(inputs, channels, 1, 2), nn.BatchNorm2d(channels))
            projection = option_b if shortcut == "B" else OptionA()
        layers.append(Residual(branch, projection, after=activation(channels) if post_activation else None))
    return nn.Sequential(*layers, Pool(), nn.Linear(64, classes))


def shah_resnet(depth, classes, final):
    layers = [conv(3, 16, 3), nn.ELU()]
    for inputs, channels, stride in stages((depth - 2) // 6):
        branch = nn.Sequential(
            conv(inputs, channels, 3, stride), nn.ELU(), conv(channels, channels, 3), nn.BatchNorm2d(channels)
        )
        layers.append(Residual(branch, OptionA() if stride == 2 else None))
    return nn.Sequential(*layers, nn.ELU() if final else nn.Identity(), Pool(), nn.Linear(64, classes))


def bottlenecks(depth):
    """(inputs, base width, stride, whether first) of every unit, whose output is four times its base."""
    inputs = 16
    for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
        for unit in range((depth - 2) // 9):
            yield inputs, channels, 1 if unit else first_stride, not unit
            inputs = 4 * channels


def nopre_resnet(depth, classes, bn1=True, branch_bn=True, end_bn=False, bn_end=True):
    def bn(channels, wanted):
        return nn.BatchNorm2d(channels) if wanted else nn.Identity()

    layers = [conv(3, 16, 3), bn(16, bn1), TorchMPELU(16)]
    for inputs, channels, stride, first in bottlenecks(depth):
        branch = nn.Sequential(
            conv(inputs, channels, 1, stride),
            bn(channels, branch_bn),
            TorchMPELU(channels),
            conv(channels, channels, 3),
            bn(channels, branch_bn),
            TorchMPELU(channels),
            conv(channels, 4 * channels, 1),
            bn(4 * channels, end_bn),
        )
        layers.append(Residual(branch, conv(inputs, 4 * channels, 1, stride) if first else None))
    return nn.Sequential(*layers, bn(256, bn_end), TorchMPELU(256), Pool(), nn.Linear(256, classes))


def preact_resnet(depth, classes, activation, first_bn=True, end_bn=False):
    layers = [conv(3, 16, 3)]
    for inputs, channels, stride, first in bottlenecks(depth):
        branch = nn.Sequential(
            conv(inputs, channels, 1, stride),
            nn.BatchNorm2d(channels),
            activation(channels),
            conv(channels, channels, 3),
            nn.BatchNorm2d(channels),
            activation(channels),
            conv(channels, 4 * channels, 1),
            nn.BatchNorm2d(4 * channels) if end_bn else nn.Identity(),
        )
        common = nn.Sequential(nn.BatchNorm2d(inputs) if first_bn else nn.Identity(), activation(inputs))
        layers.append(Residual(branch, conv(inputs, 4 * channels, 1, stride) if first else None, common))
    return nn.Sequential(*layers, nn.BatchNorm2d(256), activation(256), Pool(), nn.Linear(256, classes))


def same_conv(inputs, outputs, size, stride=1):
    """TensorFlow's "same" on maps that the stride divides: of size - stride zeros the smaller half comes first."""
    before = (size - stride) // 2
    after = size - stride - before
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(inputs, outputs, size, stride))


def elu_net11(classes):
    layers, inputs = [], 3
    stacks = "192x5", "192x1 240x3", "240x1 260x2", "260x1 280x2", "280x1 300x2", "300x1"
    for number, stack in enumerate(stacks):
        for channels, size in (map(int, word.split("x")) for word in stack.split()):
            layers += [same_conv(inputs, channels, size), nn.ELU()]
            inputs = channels
        layers += [nn.MaxPool2d(2)] if number < 5 else []
    return nn.Sequential(*layers, nn.Conv2d(300, classes, 1), Pool())  # the paper's classifier, a convolution


class Pyramid(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, x):
        pooled = [nn.functional.adaptive_max_pool2d(x, 2**level) for level in range(self.levels)]
        return torch.cat([maps.permute(0, 2, 3, 1).flatten(1) for maps in pooled], 1)


def elu_net15(classes):
    layers, inputs = [], 3
    for count, channels, size in ((1, 96, 6), (3, 512, 3), (5, 768, 3), (3, 1024, 3)):
        for _ in range(count):
            layers += [same_conv(inputs, channels, size, stride=2 if inputs == 3 else 1), nn.ELU()]
            inputs = channels
        layers.append(nn.MaxPool2d(2))
    dense = nn.Linear(21 * 1024, 4096), nn.ELU(), nn.Linear(4096, 4096), nn.ELU(), nn.Linear(4096, classes)
    return nn.Sequential(*layers, Pyramid(3), *dense)


class CaffePool(nn.Module):
    """Windows of 3, stride 2, sizes rounded up; an average counts the pixels inside only."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == "max":
            return nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
        ones = torch.ones_like(x)
        total = nn.functional.avg_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, 2)
        return total / nn.functional.avg_pool2d(nn.functional.pad(ones, (0, 1, 0, 1)), 3, 2)


def nin(classes, activation):
    layers, inputs = [], 3
    for stack, pool in (("192x5 160x1 96x1", "max"), ("192x5 192x1 192x1", "avg"), (f"192x3 192x1 {classes}x1", None)):
        for channels, size in (map(int, word.split("x")) for word in stack.split()):
            layers += [nn.Conv2d(inputs, channels, size, padding=size // 2), activation(channels)]
            inputs = channels
        layers += [CaffePool(pool)] if pool else []
    return nn.Sequential(*layers, Pool())


def plain_net(depth, classes, activation, norm, small):
    widths = (32, 64, 128) if small else (64, 128, 256)

    def bn(channels, kind):
        return kind(channels, affine=False) if norm else nn.Identity()

    def block(layer, channels):
        kind = nn.BatchNorm1d if isinstance(layer, nn.Linear) else nn.BatchNorm2d
        return [layer, bn(channels, kind), activation(channels)]

    if small:
        layers = block(nn.Conv2d(3, 32, 3, padding=1), 32) + [nn.MaxPool2d(2)]
    else:  # 109 pixels: windows of 3 with a pixel of padding on each side
        layers = block(nn.Conv2d(3, 64, 7, stride=2), 64) + [nn.MaxPool2d(3, 3, padding=1)]
    inputs = widths[0]
    paddings = "01010101011"[: 4 + 7] + "1" * 37
    paddings = "01" * 30 if small else paddings
    for number in range(depth - 4):
        outputs = widths[1] if number < 4 else widths[2]
        layers += block(nn.Conv2d(inputs, outputs, 2, padding=int(paddings[number])), outputs)
        layers += [nn.MaxPool2d(2, ceil_mode=True)] if number == 3 else []
        inputs = outputs
    bins, units = (21, 512) if small else (85, 4096)
    layers += [Pyramid(3 if small else 4), *block(nn.Linear(bins * widths[2], units), units)]
    return nn.Sequential(*layers, *block(nn.Linear(units, units), units), nn.Linear(units, classes))


def randomise(model, seed=0):
    """Gives every weight but the kernels a value away from its default."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance", "alpha", "g") or "_act" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))


def in_torch_order(layers):
    """Unit by unit: its branch, its shortcut, what follows its addition (Keras lists branch and shortcut mixed)."""
    start, added, keys = {}, set(), {}
    for number, layer in enumerate(layers):
        unit = (re.match(r"stage\d_unit\d+", layer.name) or [layer.name])[0]
        start.setdefault(unit, number)
        added |= {unit} if layer.name.endswith("_add") else set()
        part = 2 if unit in added else 1 if "shortcut" in layer.name else 0
        keys[layer.name] = (start[unit], part, number)
    return sorted(layers, key=lambda layer: keys[layer.name])


@torch.no_grad()
def copy_weights(source, target, names=None):
    """Copies a Keras model into a torch one, layer by layer in order; torch's state has the same order per layer."""
    ordered = [source.get_layer(name) for name in names] if names else in_torch_order(source.layers)
    layers = [layer for layer in ordered if layer.weights]
    assert sum(len(layer.weights) for layer in layers) == sum(len(layer.weights) for layer in source.layers)
    modules = [module for module in target.modules() if own_state(module)]
    for layer, module in zip(layers, modules, strict=True):
        for tensor, array in zip(own_state(module), layer.get_weights(), strict=True):
            if array.ndim == 4 and tensor.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            elif tensor.ndim == 4:  # a Dense classifier that is a convolution in the paper
                array = array.T[:, :, None, None]
            elif array.ndim == 3:  # PReLU
                array = array[0, 0]
            array = array.T if array.ndim == 2 else array
            assert tensor.shape == array.shape, layer.name
            tensor.copy_(torch.tensor(array.copy()))


def own_state(module):
    named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [tensor for name, tensor in named if name != "num_batches_tracked"]


def assert_equal_logits(model, transcription, x, torch_x, names=None):
    copy_weights(model, transcription, names)
    with torch.no_grad():
        expected = transcription.eval()(torch_x).numpy()
    logits = model.predict(x, verbose=0)
    scale = np.abs(expected).max()
    assert expected.std(0).max() > 0.01 * scale  # the rows differ, so the comparison says something
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * scale)


# arch -> (overrides, its transcription at those, with 7 classes). Depths are small where the unit is the same.
IMAGE_NETWORKS = {
    "relu_resnet20": ({}, lambda: basic_resnet(20, 7, ACTIVATIONS["relu"])),
    "elu_resnet20": ({"depth": 8}, lambda: basic_resnet(8, 7, ACTIVATIONS["elu"])),
    "mpelu_resnet20": ({}, lambda: basic_resnet(20, 7, TorchMPELU)),
    "mpelu_b_resnet20": ({"depth": 14, "shortcut": "B"}, lambda: basic_resnet(14, 7, TorchMPELU, shortcut="B")),
    "mpelu_nonbottleneck_resnet20": ({"depth": 14}, lambda: basic_resnet(14, 7, TorchMPELU, post_activation=False)),
    "shah_elu_resnet20": ({"depth": 14}, lambda: shah_resnet(14, 7, final=False)),
    "shah_elu_final_resnet20": ({"depth": 14}, lambda: shah_resnet(14, 7, final=True)),
    "mpelu_nopre_resnet164": ({"depth": 20}, lambda: nopre_resnet(20, 7)),
    "mpelu_nopre_endbn_resnet164": ({"depth": 20}, lambda: nopre_resnet(20, 7, end_bn=True)),
    "mpelu_nopre_nobranchbn_resnet164": ({"depth": 11}, lambda: nopre_resnet(11, 7, branch_bn=False)),
    "mpelu_nopre_nobn1_nobnend_resnet164": ({"depth": 11}, lambda: nopre_resnet(11, 7, bn1=False, bn_end=False)),
    "relu_preact_resnet164": ({"depth": 20}, lambda: preact_resnet(20, 7, ACTIVATIONS["relu"])),
    "mpelu_preact_resnet164": ({"depth": 20}, lambda: preact_resnet(20, 7, TorchMPELU)),
    "mpelu_onlypreact_bn_resnet164": (
        {"depth": 20},
        lambda: preact_resnet(20, 7, TorchMPELU, first_bn=False, end_bn=True),
    ),
    "mpelu_onlypreact_resnet164": ({"depth": 20}, lambda: preact_resnet(20, 7, TorchMPELU, first_bn=False)),
    "elu_net11": ({}, lambda: elu_net11(7)),
    "prelu_nin": ({}, lambda: nin(7, nn.PReLU)),
    "mpelu_nin": ({"input_shape": (28, 30, 3)}, lambda: nin(7, TorchMPELU)),
    "prelu_small_plain15": ({}, lambda: plain_net(15, 7, nn.PReLU, norm=True, small=True)),
    "mpelu_small_plain30": (
        {"depth": 18, "initializer": "he"},
        lambda: plain_net(18, 7, TorchMPELU, norm=False, small=True),
    ),
}
LARGE_NETWORKS = {
    "mpelu_nopre_resnet164": ({}, lambda: nopre_resnet(164, 7)),
    "elu_net15": ({"input_shape": (128, 128, 3)}, lambda: elu_net15(7)),
    "mpelu_plain15": ({"input_shape": (112, 112, 3)}, lambda: plain_net(15, 7, TorchMPELU, norm=True, small=False)),
    "elu_plain30": (
        {"input_shape": (83, 83, 3)},
        lambda: plain_net(30, 7, ACTIVATIONS["elu"], norm=False, small=False),
    ),
}


@pytest.mark.parametrize("arch", IMAGE_NETWORKS)
def test_image_networks(arch):
    options, transcription = IMAGE_NETWORKS[arch]
    compare_on_images(arch, options, transcription())


@pytest.mark.slow
@pytest.mark.parametrize("arch", LARGE_NETWORKS)
def test_large_image_networks(arch):
    options, transcription = LARGE_NETWORKS[arch]
    compare_on_images(arch, options, transcription())


@pytest.mark.parametrize("arch", ["mpelu_resnet20", "shah_elu_resnet20"])
def test_odd_sizes_tell_left_from_right_padding(arch):
    transcription = basic_resnet(8, 7, TorchMPELU) if arch.startswith("mpelu") else shah_resnet(8, 7, final=False)
    compare_on_images(arch, {"depth": 8, "input_shape": (15, 18, 3)}, transcription)


def compare_on_images(arch, options, transcription):
    model = create_model(arch, num_classes=7, classifier_activation=None, **options)
    randomise(model)
    brightest = np.array([256, 30, 256, 120, 200, 60]).reshape(6, 1, 1, 1)
    x = np.random.default_rng(1).integers(0, brightest, (6, *model.input_shape[1:])).astype("uint8")
    x[::2, :7] //= 4
    imagenet = arch == "elu_net15" or "_plain" in arch and "small" not in arch
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (CIFAR100_MEAN, CIFAR100_STD)
    standardised = (torch.tensor(x).float() - torch.tensor(mean)) / torch.tensor(std)
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


class WeightNorm(nn.Module):
    """Salimans and Kingma, equation 2: each row of the matrix is g v / ||v||."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.g = nn.Parameter(torch.empty(outputs))
        self.v = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return nn.functional.linear(x, self.g[:, None] * nn.functional.normalize(self.v, dim=1), self.bias)


class Highway(nn.Module):
    """Srivastava et al., equation 3: H(x) T(x) + x (1 - T(x))."""

    def __init__(self, width):
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        return torch.relu(self.change(x)) * gate + x * (1 - gate)


def rival(method, units, classes, inner=()):
    """One of the SNN paper's rivals, and the names of the Keras layers with its weights, in the order of its modules.

    The epsilon of both norms is that of Keras (and of the authors' TensorFlow), not torch's.
    """
    layers, names, inputs = [], [], 9
    for number, outputs in enumerate(units, start=1):
        name = f"hidden{number}"
        if method == "residual":
            sizes = [inputs, *inner, outputs]
            branch = []
            for part, (narrow, wide) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
                branch += [nn.Linear(narrow, wide, bias=False), nn.BatchNorm1d(wide, eps=1e-3), nn.ReLU()]
                names += [f"{name}_dense{part}", f"{name}_bn{part}"]
            projection = nn.Linear(inputs, outputs) if number == 1 else None
            names += [f"{name}_shortcut"] if projection else []
            layers.append(Residual(nn.Sequential(*branch[:-1]), projection, after=nn.ReLU()))
        elif method == "highway" and number > 1:
            layers.append(Highway(outputs))
            names += [name, f"{name}_gate"]
        elif method == "weightnorm":
            layers += [WeightNorm(inputs, outputs), nn.ReLU()]
            names.append(name)
        else:
            after = {
                "batchnorm": [nn.ReLU(), nn.BatchNorm1d(outputs, eps=1e-3)],
                "layernorm": [nn.LayerNorm(outputs, eps=1e-3), nn.ReLU()],
            }.get(method, [nn.ReLU()])
            layers += [nn.Linear(inputs, outputs), *after]
            names += [name, *{"batchnorm": [f"{name}_bn"], "layernorm": [f"{name}_ln"]}.get(method, [])]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, classes)), [*names, "classifier"]


CONIC = [40, 25, 15, 10]  # from 40 units towards 6 classes in four steps


@pytest.mark.parametrize(
    "method, options, units, inner",
    [
        ("relu", {}, [40] * 4, ()),
        ("relu", {"form": "conic"}, CONIC, ()),
        ("batchnorm", {"form": "conic"}, CONIC, ()),
        ("layernorm", {"form": "conic"}, CONIC, ()),
        ("weightnorm", {"form": "conic"}, CONIC, ()),
        ("highway", {}, [40] * 4, ()),
        ("residual", {}, [40] * 4, (40,)),
        ("residual", {"form": "diavolo", "block_layers": 3, "bottleneck": 0.25}, [40] * 4, (10, 10)),
    ],
)
def test_rivals(method, options, units, inner):
    model = create_model(
        f"{method}_mlp", depth=4, width=40, num_features=9, num_classes=6, classifier_activation=None, **options
    )
    randomise(model)
    x = np.random.default_rng(0).standard_normal((20, 9)).astype("float32")
    transcription, names = rival(method, units, 6, inner)
    assert_equal_logits(model, transcription, x, torch.tensor(x), names)


@pytest.mark.parametrize(
    "arch, depth, scale, alphas",
    [
        ("relu_resnet20", 8, 1.41421, []),
        ("mpelu_resnet20", 8, 1, [1] * 7),
        ("mpelu_b_resnet20", 8, 1, [1] + [1, 98] * 3),
        ("mpelu_nonbottleneck_resnet20", 8, 1, [1] * 4),
        ("mpelu025_nopre_resnet164", 11, 1.37199, [0.25] * 8),
        ("relu_preact_resnet164", 11, 1.41421, []),
        ("mpelu_preact_resnet164", 11, 1, [1] * 10),
        ("shah_elu_resnet20", 8, 1.41421, []),
    ],
)
def test_what_the_copied_weights_hide(arch, depth, scale, alphas):
    """The epsilon and momentum of batch norm, and the initial kernels and activations."""
    model = create_model(arch, depth=depth)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
    kernel = keras.ops.convert_to_numpy(model.get_layer("stage3_unit1_conv1").kernel)
    assert_deviation(kernel, scale / (kernel.size / kernel.shape[2]) ** 0.5)  # fan out
    starts = [keras.ops.convert_to_numpy(weight) for weight in model.weights if weight.name == "alpha"]
    assert [np.unique(alpha).tolist() for alpha in starts] == [[alpha] for alpha in alphas]
    mpelus = [layer for layer in model.layers if isinstance(layer, MPELU)]
    starts = [np.unique(keras.ops.convert_to_numpy(layer.beta)) for layer in mpelus]
    np.testing.assert_allclose(starts, [[0.01 if alpha == 98 else 1] for alpha in alphas])


@pytest.mark.parametrize(
    "arch, options, layer, deviation",
    [
        ("mpelu_nin", {}, "stack2_conv2", 0.05),
        ("elu_net11", {}, "stack2_conv2", (2 / (9 * 192)) ** 0.5),
        ("mpelu_small_plain15", {}, "conv9", (1 / (4 * 128)) ** 0.5),
        ("mpelu_small_plain15", {"alpha": 0.25}, "conv9", 1.37199 / (4 * 128) ** 0.5),
        ("prelu_small_plain15", {}, "conv6", 1.37199 / (4 * 64) ** 0.5),
        ("elu_small_plain15", {"initializer": "he", "fan_mode": "fan_out"}, "conv6", (2 / (4 * 128)) ** 0.5),
        ("elu_small_plain15", {"initializer": "taylor", "fan_mode": "fan_avg"}, "conv6", (1 / (4 * 96)) ** 0.5),
        ("relu_small_plain15", {"initializer": "gaussian"}, "conv9", 0.01),
        ("relu_small_plain15", {}, "fc2", (2 / 512) ** 0.5),
        ("relu_small_plain15", {}, "classifier", 0.01),
        ("relu_resnet20", {}, "classifier", (1 / (3 * 64)) ** 0.5),  # of a uniform distribution in +-1 / sqrt(64)
    ],
)
def test_initial_kernels(arch, options, layer, deviation):
    model = create_model(arch, **options)
    assert_deviation(keras.ops.convert_to_numpy(model.get_layer(layer).kernel), deviation)


@pytest.mark.parametrize("depth, wide", [(15, 0.01), (30, 0.005), (52, 0.005)])
def test_initial_dense_kernels_of_the_plain_networks_for_imagenet(depth, wide, monkeypatch):
    deviations = {}

    def zeros(self, shape, dtype=None):  # instead of a hundred million random numbers
        deviations[tuple(shape)] = self.stddev
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.RandomNormal, "__call__", zeros)
    create_model("relu_plain15", depth=depth)
    assert deviations == {(85 * 256, 4096): wide, (4096, 4096): wide, (4096, 1000): 0.01}


def test_initial_alphas_of_the_network_in_network():
    mpelus = [layer for layer in create_model("mpelu_nin").layers if isinstance(layer, MPELU)]
    assert len(mpelus) == 9
    for layer in mpelus:
        assert np.unique(keras.ops.convert_to_numpy(layer.alpha)).tolist() == [0.25]
        assert np.unique(keras.ops.convert_to_numpy(layer.beta)).tolist() == [1]


@pytest.mark.parametrize("depth, batch_norm, norms, drops", [(15, None, 14, 0), (30, None, 0, 2), (20, True, 19, 0)])
def test_batch_norm_and_dropout_of_the_plain_networks(depth, batch_norm, norms, drops):
    model = create_model("elu_small_plain15", depth=depth, batch_norm=batch_norm)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert (kinds.count("BatchNormalization"), kinds.count("Dropout"), kinds.count("ELU")) == (norms, drops, depth - 1)
    assert kinds.count("Conv2D") + kinds.count("Dense") == depth
    assert all(layer.use_bias for layer in model.layers if hasattr(layer, "kernel"))


def assert_deviation(kernel, expected):
    assert kernel.std() == pytest.approx(expected, rel=5 / (2 * kernel.size) ** 0.5)
    assert abs(kernel.mean()) < 5 * expected / kernel.size**0.5
