"""MPELU on PyTorch: few passes over the data, in parts that stay in a CPU's cache."""

import torch

from keras_mpelu.kernels import shared_axes
from keras_mpelu.layers import plain_mpelu

PART = 2**19  # numbers: 2 MiB in float32, so that what a part needs stays in the caches


def mpelu(x, alpha, beta):
    # What is traced, often for a file, must be of PyTorch's own operations: of a function of ours there only a call of
    # Python is kept. Compiled, they also fuse better than a fixed sequence of passes.
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return _in_onnx(x, alpha, beta) if torch.onnx.is_in_onnx_export() else plain_mpelu(x, alpha, beta)
    # The parts below are along the first axis, and sums are over the axes that alpha and beta are shared along, so the
    # first must be one of these.
    if 0 not in shared_axes(beta.shape, x.ndim):
        return plain_mpelu(x, alpha, beta)
    return _MPELU.apply(x, alpha, beta)


def _in_onnx(x, alpha, beta):
    """`plain_mpelu` for ONNX, which has no `expm1`.

    That of z is tanh(z / 2) * (exp(z) + 1). Near 0, exp(z) - 1 would lose the
    digits that the large alpha beside a small beta brings forth.
    """
    wide = x.to(alpha.dtype)
    exponent = torch.clamp(wide, max=0) * beta
    bent = torch.tanh(exponent / 2) * (torch.exp(exponent) + 1)
    return torch.where(wide > 0, wide, alpha * bent).to(x.dtype)


class _MPELU(torch.autograd.Function):
    @staticmethod
    def forward(x, alpha, beta):
        return _by_parts(_forward, (x,), (_without_denormals(alpha, beta), beta))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, upstream):
        x, alpha, beta = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted
            wanted = [tensor for tensor in ctx.saved_tensors if tensor.requires_grad]
            found = iter(torch.autograd.grad(plain_mpelu(x, alpha, beta), wanted, upstream, create_graph=True))
            return tuple(next(found) if tensor.requires_grad else None for tensor in ctx.saved_tensors)
        sums = torch.zeros((2, *alpha.shape), dtype=alpha.dtype, device=x.device)
        by_x = _by_parts(_backward, (x, upstream), (beta, _without_denormals(alpha, beta) * beta, sums))
        return by_x, sums[0], sums[1].mul_(alpha)


def _by_parts(function, tensors, others):
    """The function of tensors of one shape, in parts along the first axis; on a GPU in one, as each costs launches."""
    x = tensors[0]
    if x.numel() <= PART or x.device.type != "cpu":
        return function(*tensors, *others).to(x.dtype)
    outputs = torch.empty_like(x)
    rows = max(1, PART * len(x) // x.numel())
    for *parts, output in zip(*(tensor.split(rows) for tensor in (*tensors, outputs)), strict=True):
        output.copy_(function(*parts, *others))
    return outputs


def _forward(x, alpha, beta):
    x = x.to(alpha.dtype)
    bent = torch.clamp(x, max=0).mul_(beta).expm1_()
    return torch.relu(x).addcmul_(bent, alpha)


def _backward(x, upstream, beta, slope, sums):
    """The gradient of x; adds to the sums of alpha, and of beta but for a factor of alpha."""
    x, upstream = x.to(beta.dtype), upstream.to(beta.dtype)
    # Not `where`, which takes five times as long as these two.
    passed = torch.ops.aten.threshold_backward(upstream, x, 0)
    held = upstream - passed
    negative = torch.clamp(x, max=0)
    grown = torch.mul(negative, beta).exp_().mul_(held)
    axes = shared_axes(beta.shape, x.ndim)
    sums[0] += (grown.sum(axes) - held.sum(axes)).reshape(beta.shape)
    sums[1] += negative.mul_(grown).sum(axes).reshape(beta.shape)
    return passed.addcmul_(grown, slope)


def _without_denormals(alpha, beta):
    """Alpha, but 0 where the negative side is nothing: less than 1e-30 times the input.

    Weight decay takes alpha and beta there, and PyTorch, unlike the others, lets
    a CPU compute with denormal numbers: the bundled MPELU ResNet-20 took twice
    the time for them.
    """
    vanishing = ((alpha * beta).abs() < 1e-30) & (beta > -1e-6)  # below, the negative side may grow
    return alpha.masked_fill(vanishing, 0)
