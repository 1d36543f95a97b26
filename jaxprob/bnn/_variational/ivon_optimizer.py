"""IVON as an optax transformation: variational inference at the cost of Adam."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ..._random.keys import leaf_keys
from ..._random.standard_normal import standard_normal
from ..._types import PRNGKey
from ...tree._single import single


class IVONState(NamedTuple):
    r"""The state of `ivon`.

    **Fields:**

    - `count`: steps made.
    - `momentum`: $g$, the running mean of gradients.
    - `hess`: $h$, the running estimate of the diagonal Hessian of the mean loss.
    - `scale`: $\sigma$, the standard deviations of the posterior.
    - `squares`: running means, over some hundred steps, of the squared Newton steps in
        units of $\sigma$, by g and by $\hat g$. Where g is noise the first is a small
        part of the second; where m is far from the optimum they are alike.
    """

    count: Int[Array, ""]
    momentum: PyTree
    hess: PyTree
    scale: PyTree
    squares: Float[Array, "2"]


_MEMORY = 0.99
"""Decay of `IVONState.squares`."""


def ivon(
    learning_rate: float | Callable[[Any], Any],
    num_data: float | int,
    *,
    hess_init: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.99999,
    weight_decay: float | PyTree = 1e-4,
    center: float | PyTree = 0.0,
    clip_radius: float = float("inf"),
    trust_radius: float = 3.0,
    rescale: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Return the improved variational online Newton method as an optimiser.

    The posterior is $\mathcal N(m, \mathrm{diag}(\sigma^2))$, where m are the `params`
    of optax. For a draw $\theta$ from it with the gradient $\hat g$ of the mean loss at
    $\theta$ (algorithm 1 of the reference):

    $$\hat h = \hat g\, (\theta - m) / \sigma^2, \qquad
      g \leftarrow \beta_1 g + (1 - \beta_1) \hat g$$

    $$h \leftarrow \beta_2 h + (1 - \beta_2) \hat h +
      \tfrac 1 2 (1 - \beta_2)^2 (h - \hat h)^2 / (h + \delta)$$

    $$m \leftarrow m - \alpha \frac{g / (1 - \beta_1^t) + \delta m}{h + \delta},
      \qquad \sigma \leftarrow 1 / \sqrt{\lambda (h + \delta)}$$

    The third term of h keeps $h + \delta$ positive without a constraint. At the fixed
    point $\lambda (h + \delta)$ is the mean of the diagonal of the Hessian of the
    negative log joint: the precisions of the best factorised Gaussian.

    Until h has reached the curvature of the loss the Newton step is too long. Where the
    loss is steep (small noise, targets that are not standardised) it would overshoot
    further in every step, and the large gradients there would then drive h up and
    $\sigma$ down until nothing moves: a narrow posterior far from the data. So no step
    is longer than `trust_radius` standard deviations of the posterior, which follow h
    as well. This bound is not in the reference.

    Reference: *Variational learning is effective for large deep networks*, Shen,
    Daheim, Cong, Nickl, Marconi, Bazan, Yokota, Gurevych, Cremers, Khan and Möllenhoff,
    2024, https://arxiv.org/abs/2402.17641.

    ```python
    optimizer = ivon(0.1, num_data=len(x), weight_decay=1.0 / len(x))
    opt_state = optimizer.init(params)
    drawn = sample_ivon(params, opt_state, key=key)
    grads = jax.grad(loss)(drawn)                       # of the mean loss per row
    updates, opt_state = optimizer.update(grads, opt_state, params, drawn=drawn)
    params = optax.apply_updates(params, updates)
    ```

    **Arguments:**

    - `learning_rate`: $\alpha$, a number or a schedule.
    - `num_data`: $\lambda$, the effective sample size: rows of the training set over
        the temperature.
    - `hess_init`: $h_0 > 0$. With small values the first draws are far from the mean;
        the reference takes 0.1 to 1 for networks that start at an initialisation.
    - `beta1`, `beta2`: as above. The second is close to one because $\hat h$ is noisy.
    - `weight_decay`: $\delta$, the precision of the prior over $\lambda$; a number, or
        a tree like the parameters.
    - `center`: mean of the prior, a number or a tree; the equation above has 0.
    - `clip_radius`: bound on each entry of the step before $\alpha$.
    - `trust_radius`: bound on each entry of the step in units of its $\sigma$; infinity
        for the algorithm of the reference.
    - `rescale`: multiplies $\alpha$ by $h_0 + \delta$, so that the first steps are
        those of SGD with this learning rate, as in the reference.

    **Returns:** a transformation whose `update` takes, besides optax's arguments,
    `drawn`: the weights at which the gradient was taken. With a leading axis of draws
    on `drawn` and on the gradients their estimates are averaged.
    """
    for name, value in (("num_data", num_data), ("hess_init", hess_init)):
        if not value > 0:
            raise ValueError(f"{name}={value}: it is positive")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value}: it lies in [0, 1)")
    for name, value in (("clip_radius", clip_radius), ("trust_radius", trust_radius)):
        if not value > 0:
            raise ValueError(f"{name}={value}: it is positive")

    def scales(hess, delta):
        return jax.tree.map(
            lambda h, d: jax.lax.rsqrt(jnp.asarray(num_data, h.dtype) * (h + d)),
            hess,
            delta,
        )

    def init(params):
        # In half precision 0.99999 is one, and nothing would ever be averaged.
        params = jax.tree.map(single, params)
        hess = jax.tree.map(lambda p: jnp.full_like(p, hess_init), params)
        momentum = jax.tree.map(jnp.zeros_like, params)
        count = jnp.zeros((), jnp.int32)
        scale = scales(hess, _as_tree(weight_decay, params))
        return IVONState(count, momentum, hess, scale, jnp.zeros(2, jnp.float32))

    def update(updates, state, params=None, *, drawn=None, **extra):
        del extra
        if params is None or drawn is None:
            raise ValueError(
                "ivon needs the mean and the draw where the gradient was taken: "
                "update(grads, state, params, drawn=drawn)"
            )
        delta = _as_tree(weight_decay, params)
        prior_mean = _as_tree(center, params)
        count = jnp.asarray(optax.safe_increment(state.count))
        alpha = learning_rate(state.count) if callable(learning_rate) else learning_rate

        both = jax.tree.map(_estimate, updates, drawn, params, state.scale)
        grads, hats = _unzip(both, params)

        def curve(h, hat, d):
            correction = 0.5 * (1 - beta2) ** 2 * (h - hat) ** 2 / (h + d)
            return beta2 * h + (1 - beta2) * hat + correction

        momentum = jax.tree.map(
            lambda g, new: beta1 * g + (1 - beta1) * new, state.momentum, grads
        )
        hess = jax.tree.map(curve, state.hess, hats, delta)

        scale = scales(hess, delta)

        def newton(param, g, h, d, c):
            return (g + d * (single(param) - c)) / (h + d)

        def debiased(g):
            decay = jnp.asarray(beta1, g.dtype) ** count.astype(g.dtype)
            return g / (1.0 - decay)

        smooth = jax.tree.map(debiased, momentum)
        rest = (hess, delta, prior_mean)
        newtons = jax.tree.map(newton, params, smooth, *rest)
        single_draws = jax.tree.map(newton, params, grads, *rest)
        squares = [_mean_square(n, scale) for n in (newtons, single_draws)]
        squares = _MEMORY * state.squares + (1.0 - _MEMORY) * jnp.stack(squares)

        def step(param, newton, d, sigma):
            newton = jnp.clip(newton, -clip_radius, clip_radius)
            rate = jnp.asarray(alpha, newton.dtype)
            moved = -rate * ((hess_init + d) if rescale else 1.0) * newton
            bound = trust_radius * sigma
            return jnp.clip(moved, -bound, bound).astype(param.dtype)

        steps = jax.tree.map(step, params, newtons, delta, scale)
        return steps, IVONState(count, momentum, hess, scale, squares)

    return optax.GradientTransformationExtraArgs(init, update)


def sample_ivon(params: PyTree, state: Any, *, key: PRNGKey) -> PyTree:
    r"""Draw $\theta = m + \sigma \epsilon$ from the posterior of `ivon`.

    **Arguments:**

    - `params`: the means $m$.
    - `state`: of the transformation.
    - `key`: of this draw.
    """

    def one(mean, scale, key):
        noise = standard_normal(key, mean.shape, scale.dtype)
        return (single(mean) + scale * noise).astype(mean.dtype)

    return jax.tree.map(one, params, state.scale, leaf_keys(key, params))


def distance_from_optimum(state: IVONState) -> tuple[float, float]:
    r"""Return how far m is from where its gradient vanishes, and how sure that is.

    **Arguments:**

    - `state`: of the transformation, with at least one step made.

    **Returns:** the root mean square of the last hundred or so Newton steps, in
    standard deviations of the posterior; and the part of their gradients' squares that
    g has kept. Noise that is independent from step to step keeps
    $(1 - \beta_1)/(1 + \beta_1)$, a gradient that does not change 1.
    """
    smooth, single_draw = map(float, state.squares)
    known = 1.0 - _MEMORY ** int(state.count)
    return (smooth / known) ** 0.5, smooth / max(single_draw, 1e-30)


def _as_tree(value, params):
    """Return a number, or a tree, as a tree of arrays that broadcast."""
    if jnp.isscalar(value):
        value = jax.tree.map(lambda _: value, params)
    return jax.tree.map(lambda p, v: jnp.asarray(v, single(p).dtype), params, value)


def _estimate(grad, at, mean, scale):
    """Return the gradient and the curvature of one leaf, averaged over draws."""
    stacked = grad.ndim > mean.ndim
    grad, at, mean = single(grad), single(at), single(mean)
    grad, at = (grad, at) if stacked else (grad[None], at[None])
    hess = grad * (at - mean[None]) / scale[None] ** 2
    return jnp.mean(grad, 0), jnp.mean(hess, 0)


def _mean_square(newtons, scales):
    """The mean over all entries of a tree, in units of its scales."""
    # A first gradient may be of any size, and its square has to be a number.
    terms = jax.tree.map(lambda n, s: jnp.minimum((n / s) ** 2, 1e12), newtons, scales)
    leaves = jax.tree.leaves(terms)
    sums = [jnp.sum(leaf).astype(jnp.float32) for leaf in leaves]
    return jnp.stack(sums).sum() / sum(leaf.size for leaf in leaves)


def _unzip(pairs: PyTree, template: PyTree) -> tuple[PyTree, PyTree]:
    structure = jax.tree.structure(template)
    flat: list[tuple[Float[Array, ...], Float[Array, ...]]] = structure.flatten_up_to(
        pairs
    )
    return (
        jax.tree.unflatten(structure, [a for a, _ in flat]),
        jax.tree.unflatten(structure, [b for _, b in flat]),
    )
