"""MPELU on JAX: the gradients of x, alpha and beta share one exponential."""

import jax
import jax.numpy as jnp

from keras_mpelu.kernels import shared_axes


@jax.custom_vjp
def mpelu(x, alpha, beta):
    wide = x.astype(alpha.dtype)
    return jnp.where(wide > 0, wide, alpha * jnp.expm1(beta * jnp.minimum(wide, 0))).astype(x.dtype)


def _forward(x, alpha, beta):
    return mpelu(x, alpha, beta), (x, alpha, beta)


def _backward(kept, upstream):
    x, alpha, beta = kept
    wide, wide_upstream = x.astype(alpha.dtype), upstream.astype(alpha.dtype)
    negative = jnp.minimum(wide, 0)
    # Else XLA puts it into both sums and computes it anew for each.
    growth = jax.lax.optimization_barrier(jnp.exp(beta * negative))
    axes = shared_axes(alpha.shape, x.ndim)
    by_alpha = jnp.sum(wide_upstream * (growth - 1), axes)  # 0 where x > 0
    by_beta = jnp.sum(wide_upstream * negative * growth, axes)
    return (
        (wide_upstream * jnp.where(wide > 0, 1, alpha * beta * growth)).astype(x.dtype),
        by_alpha.reshape(alpha.shape),
        alpha * by_beta.reshape(alpha.shape),
    )


mpelu.defvjp(_forward, _backward)
