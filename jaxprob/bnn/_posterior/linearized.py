"""A network replaced by its tangent in the weights."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._types import Model, PRNGKey
from .._joint.likelihood import Likelihood
from .._joint.output_link import LinkedApply, output_link
from .._weights.apply import call_model

Output: TypeAlias = Callable[[Model], PyTree]


class LinearizedModel(eqx.Module):
    r"""The function $f(x) = f_{\bar w}(x) + J_{\bar w}(x) (w - \bar w)$.

    It is called like the network. A draw of Laplace's method is such a function:
    `posterior.sample_function(key=key)`.

    Reference: *Improving predictions of Bayesian neural nets via local linearization*,
    Immer, Korzepa and Bauer, 2021, https://arxiv.org/abs/2008.08400.

    **Arguments:**

    - `mean`: the model with the weights $\bar w$, around which it is linearised.
    - `draw`: the model with the weights $w$.
    - `likelihood`: that of the outputs. Outputs that it uses as probabilities, rates or
        scales are linearised as logits or logarithms, as in `predict`.
    """

    mean: Model
    draw: Model
    likelihood: Likelihood | None = None

    def __call__(self, x: PyTree, *, key: PRNGKey | None = None) -> PyTree:
        """Return the linearised output for one input, shaped as that of `mean`."""
        apply, link = call_model, None
        if self.likelihood is not None:
            shapes = jax.eval_shape(lambda x: call_model(self.mean, x, key=key), x)
            link = output_link(self.likelihood, shapes)
        if link is not None:
            apply = LinkedApply(link, call_model)

        def by(rule, x):
            out = rule(lambda m: apply(m, x, key=key), self.mean, self.draw)
            return out if link is None else link.forward(out)

        # JAX reports a missing rule of derivatives when it batches; under jit without
        # vmap it would do so after this function has returned. So this is a batch of
        # one.
        row = jax.tree.map(lambda a: jnp.asarray(a)[None], x)
        try:
            out = jax.vmap(functools.partial(by, forwards))(row)
        except TypeError as error:
            if not lacks_forward_rule(error):
                raise
            return by(backwards, x)
        return jax.tree.map(lambda a: a[0], out)


def forwards(output: Output, mean: Model, draw: Model) -> PyTree:
    """Return the linearised output of a model by one forward-mode derivative.

    **Arguments:**

    - `output`: the output of a model for one example.
    - `mean`, `draw`: as in `LinearizedModel`.

    **Raises:** a `TypeError` that `lacks_forward_rule` recognises for a model whose
    derivative exists in reverse mode only, as of an ODE that diffrax solves.
    """
    combined, params, delta = _tangent(mean, draw)
    out, tangent = jax.jvp(lambda p: output(combined(p)), (params,), (delta,))
    return jax.tree.map(_moved, out, tangent)


def backwards(output: Output, mean: Model, draw: Model) -> PyTree:
    """Return the linearised output by the Jacobian of one example, in reverse mode."""
    combined, params, delta = _tangent(mean, draw)
    real, whole = eqx.partition(output(combined(params)), eqx.is_inexact_array)
    jacobian = jax.jacrev(
        lambda p: eqx.filter(output(combined(p)), eqx.is_inexact_array)
    )(params)
    real = jax.tree.map(lambda out, j: out + _contract(j, delta), real, jacobian)
    return eqx.combine(real, whole)


def lacks_forward_rule(error: TypeError) -> bool:
    """Return whether JAX's error is about a function with reverse mode only."""
    return "custom_vjp" in str(error)


def _tangent(mean, draw):
    """The mean's weights, the step to the draw, and the way back to a model.

    A leaf that the draw shares with the mean is a constant: where only the last layer
    is random, the layers before it are computed once for all draws.
    """
    moves = jax.tree.map(
        lambda a, b: eqx.is_inexact_array(a) and a is not b, mean, draw
    )
    params, rest = eqx.partition(mean, moves)
    delta = jax.tree.map(jnp.subtract, eqx.filter(draw, moves), params)
    return functools.partial(eqx.combine, rest), params, delta


def _moved(out, tangent):
    """The sum; integers, such as a number of trials, do not depend on the weights."""
    return out + tangent if jnp.issubdtype(out.dtype, jnp.inexact) else out


def _contract(jacobian, delta):
    """Product of a Jacobian and a direction, both trees."""
    pairs = zip(jax.tree.leaves(jacobian), jax.tree.leaves(delta), strict=True)
    return sum(jnp.tensordot(j, move, move.ndim) for j, move in pairs)
