"""Residuals of a linear regression of parameters on the observation."""

import equinox as eqx
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jaxtyping import Array, Float

_RIDGES = np.logspace(-8.0, 2.0, 21)
_FLOOR = 1e-4


class LinearResidual(eqx.Module):
    r"""Coordinates in which every posterior is near a standard normal distribution.

    $$u = A f + b + L v$$

    for features f of an observation. A and b are those of a ridge regression, whose
    penalty has the least error of generalised cross-validation, and $L L^\top$ is the
    covariance of what it leaves. A posterior may be a thousandth of the prior wide, and
    v has unit variance all the same; where the model is linear and Gaussian v is
    exactly standard normal, and a network has nothing to learn.

    **Fields:**

    - `weight`, `offset`, `root`: A, b and L.
    """

    weight: np.ndarray
    offset: np.ndarray
    root: np.ndarray

    @classmethod
    def fitted(
        cls,
        u: Float[Array | np.ndarray, "rows size"],
        features: Float[Array | np.ndarray, "rows features"],
    ) -> "LinearResidual":
        """Return the regression of coordinates on the features of observations."""
        u, f = np.asarray(u, np.float64), np.asarray(features, np.float64)
        mean, spread = u.mean(axis=0), u.std(axis=0)
        centre = f.mean(axis=0)
        weight = _ridge(f - centre, u - mean)
        left = u - mean - (f - centre) @ weight.T
        floor = np.diag((_FLOOR * np.where(spread > 0.0, spread, 1.0)) ** 2)
        root = np.linalg.cholesky(left.T @ left / len(u) + floor)
        return cls(weight, mean - weight @ centre, root)

    def residual(
        self, u: Float[Array, "rows size"], features: Float[Array, "each features"]
    ) -> Float[Array, "rows size"]:
        """Return v of the coordinates u, given features of each row or one for all."""
        left = u - self._mean(features)
        root = jnp.asarray(self.root, left.dtype)
        return jsp.linalg.solve_triangular(root, left.T, lower=True).T

    def coordinates(
        self, v: Float[Array, "rows size"], features: Float[Array, "each features"]
    ) -> Float[Array, "rows size"]:
        """Return u of the residuals v, likewise."""
        return self._mean(features) + v @ jnp.asarray(self.root.T, v.dtype)

    @property
    def log_volume(self) -> float:
        r"""$\log |\partial u/\partial v|$."""
        return float(np.log(np.diag(self.root)).sum())

    def _mean(self, features):
        dtype = features.dtype
        weight, offset = (jnp.asarray(a, dtype) for a in (self.weight, self.offset))
        return features @ weight.T + offset[None]


def _ridge(f, u):
    """Return the weights of the ridge regression with the least GCV error."""
    num, size = f.shape
    if size == 0 or not f.any():
        return np.zeros((u.shape[1], size))
    left, values, right = np.linalg.svd(f, full_matrices=False)
    scores = left.T @ u
    spread = np.maximum(u.var(axis=0), np.finfo(float).tiny)
    best, weight = np.inf, np.zeros((u.shape[1], size))
    for ridge in _RIDGES * values[0] ** 2:
        shrink = values**2 / (values**2 + ridge)
        error = np.mean((u - left @ (shrink[:, None] * scores)) ** 2, axis=0) / spread
        # *Generalized cross-validation*, Golub, Heath and Wahba, 1979, equation 1.4.
        value = error.mean() / (1.0 - min(1.0 + shrink.sum(), num - 1) / num) ** 2
        if value < best:
            best = value
            ratio = np.where(values > 0.0, shrink / np.maximum(values, 1e-300), 0.0)
            weight = (scores.T * ratio) @ right
    return weight
