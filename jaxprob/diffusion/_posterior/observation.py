"""A measurement of what a diffusion model describes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._denoiser.units import Units
from .._types import Scalar
from .noise import log_prob
from .observation_checks import (
    as_measured,
    as_noises,
    check_adjoint,
    check_linear,
    check_prediction,
)


class Observation(eqx.Module):
    r"""A measurement $y = A(x_0) + n$ of one example.

    ```python
    observation = Observation(y[0, :1], lambda x: x[:1], noise=0.1)
    posterior = condition(denoiser, observation)
    observation.log_likelihood(jnp.zeros(2))
    ```

    x is in the units of the data. Entries of y are independent given x. Several
    measurements of one example are a tree of arrays.

    **Arguments:**

    - `y`: the measurement, an array or a tree of arrays. `Measured` has one for each
        sample.
    - `operator`: A, from x to a prediction of y: a differentiable function of JAX, a
        lineax operator, whose input may be x as a vector, or `None` for the identity.
    - `noise`: the standard deviation of Gaussian noise: a number, or an array that
        broadcasts to y. Or a function from the prediction to a distribution of numpyro
        with one entry for each of y, such as `lambda rate: dist.Poisson(rate)`. For a
        tree y, one for all or a tree of them. 0 is for methods that take exact
        measurements, `Replacement` and `RePaint`.
    - `missing`: entries of y that were not measured: Booleans of the shape of y, or
        `True` for those that are NaN.
    - `linear`: asserts that a function is linear, up to a constant. `Replacement`
        requires it. None and lineax operators always are.
    - `shape`: of x. With it, a function's output and its linearity are checked here
        and not at the first use.

    **Raises:** `ValueError` for NaN in y that are not declared missing, a prediction of
    another shape than y, noise that is negative, an operator that is not linear where
    this is asserted, or one whose transpose is not its adjoint.
    """

    y: PyTree[Array]
    missing: PyTree[Array]
    operator: Callable | lx.AbstractLinearOperator | None
    noises: tuple[Any, ...]
    units: Units
    is_linear: bool = eqx.field(static=True)
    nan_is_missing: bool = eqx.field(static=True)

    def __init__(
        self,
        y: PyTree,
        operator: Any = None,
        *,
        noise: Any,
        missing: Any = False,
        linear: bool = False,
        shape: tuple[int, ...] | None = None,
    ):
        self.y, self.missing = as_measured(y, missing)
        self.nan_is_missing = missing is True
        matrix = isinstance(operator, lx.AbstractLinearOperator)
        if not (operator is None or callable(operator) or matrix):
            raise TypeError(
                f"operator is a {type(operator).__name__}: give a function of x, a "
                "lineax operator such as lineax.MatrixLinearOperator(matrix), or "
                "None for the identity"
            )
        self.operator = operator
        self.noises = as_noises(noise, self.y)
        self.units = Units()
        self.is_linear = linear or matrix or operator is None
        if matrix:
            check_adjoint(operator)
            shape = operator.in_structure().shape if shape is None else shape
        if operator is None and shape is None and isinstance(self.y, jax.Array):
            shape = self.y.shape
        if shape is not None:
            jax.eval_shape(self.predict, jax.ShapeDtypeStruct(shape, _dtype(self.y)))
            if linear and not matrix:
                check_linear(self.predict, shape, _dtype(self.y))
        elif linear and not matrix:
            raise ValueError(
                "linear=True without shape: give shape=x.shape, so that the operator "
                "can be checked"
            )

    @property
    def is_gaussian(self) -> bool:
        """True if all noise is Gaussian with a known standard deviation."""
        return not any(callable(noise) for noise in self.noises)

    @property
    def is_exact(self) -> bool:
        """True if the standard deviation of some Gaussian noise is known to be 0."""
        known = [
            n for n in self.noises if not callable(n) and not isinstance(n, Tracer)
        ]
        return any(bool((np.asarray(noise) == 0.0).any()) for noise in known)

    def predict(self, x: Float[Array, "..."]) -> PyTree[Float[Array, "..."]]:
        """Return A(x), with the structure and the shapes of y.

        **Arguments:**

        - `x`: one example, in the units of the data; for `in_units`, standardised.
        """
        data = self.units.to_data(x)
        if isinstance(self.operator, lx.AbstractLinearOperator):
            inside = self.operator.in_structure()
            if data.size != inside.size:
                raise ValueError(
                    f"operator takes x of shape {inside.shape}, and x has shape "
                    f"{x.shape}: give an operator with {data.size} columns"
                )
            found = self.operator.mv(data.reshape(inside.shape))
        else:
            found = data if self.operator is None else self.operator(data)
        check_prediction(found, self.y, x.shape)
        return found

    def log_likelihood(self, x: Float[Array, "..."]) -> Scalar:
        r"""Return $\log p(y \mid x)$ of the entries that were measured.

        **Arguments:**

        - `x`: one example without noise, $x_0$, as in `predict`.
        """
        rows = zip(*self.rows(self.predict(x)), strict=True)
        return jnp.sum(jnp.stack([log_prob(*row) for row in rows]))

    def in_units(self, units: Units) -> "Observation":
        """Return the same measurement of an x in standardised units.

        **Arguments:**

        - `units`: the map from those units to the ones of this observation.
        """
        if units.is_identity:
            return self
        if not self.units.is_identity:
            # m + S (m' + S' z), where all are numbers or one for each leading index.
            mean, scale = jnp.asarray(self.units.mean), jnp.asarray(self.units.scale)
            inner_mean, inner_scale = jnp.asarray(units.mean), jnp.asarray(units.scale)
            units = Units(mean + scale * inner_mean, scale * inner_scale)
        return eqx.tree_at(lambda o: o.units, self, units)

    def with_y(self, y: PyTree) -> "Observation":
        """Return the same measurement with other values, which may be traced.

        **Arguments:**

        - `y`: of the structure and the shapes of the first. If NaN are missing there,
            they are here.
        """
        check_prediction(y, self.y, None)
        missing = True if self.nan_is_missing else self.missing
        y, missing = as_measured(y, missing)
        return eqx.tree_at(lambda o: (o.y, o.missing), self, (y, missing))

    def rows(self, prediction: PyTree[Float[Array, "..."]]) -> tuple[Any, ...]:
        """Return noises, values, predictions and what is missing, leaf by leaf.

        **Arguments:**

        - `prediction`: of `predict`.
        """
        leaves = jax.tree.leaves
        y, missing = leaves(self.y), leaves(self.missing)
        return self.noises, y, leaves(prediction), missing


class Measured(eqx.Module):
    """Measurements of several examples, as a sampler's condition: a y for each sample.

    ```python
    posterior = condition(denoiser, Observation(y[0], noise=0.1))
    draws = sample(
        posterior, ExpAB(8), key=key, num_samples=3, shape=(2,), cond=Measured(y[:3])
    )
    ```

    **Arguments:**

    - `y`: measurements along a leading axis, instead of the one in `Observation`, which
        gives their shape, operator and noise.
    - `cond`: conditions of the denoiser for each sample, if it has any.
    """

    y: PyTree[Array]
    cond: PyTree

    def __init__(self, y: PyTree, cond: PyTree = None):
        self.y = jax.tree.map(jnp.asarray, y)
        self.cond = cond


def _dtype(y):
    found = [leaf.dtype for leaf in jax.tree.leaves(y)]
    floats = [dtype for dtype in found if jnp.issubdtype(dtype, jnp.floating)]
    return floats[0] if floats else jnp.result_type(float)
