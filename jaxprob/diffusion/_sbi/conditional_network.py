"""One network of a conditional density, from a row's features to a table."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._denoiser.denoiser import AbstractDenoiser
from .encoders import AbstractEncoder
from .flow_table import FlowTable
from .observation_scaler import ObservationScaler
from .residual import LinearResidual
from .tabulate import tabulate

Table = tuple[
    Float[Array, "*targets knots"],
    Float[Array, "*targets knots"],
    Float[Array, "*targets knots"],
]


class ConditionalNetwork(eqx.Module):
    r"""A model from the features of one row to the table of $p(y \mid x)$.

    It is a model as `jaxprob.bnn` calls them, whose likelihood is `table_likelihood`.

    **Fields:**

    - `scaler`: standardises features.
    - `linear`: the target, given them, in the coordinates of the denoiser.
    - `encoder`: from standardised features to the condition.
    - `denoiser`: of one network.
    - `mean`, `scale`: of the targets.
    - `num_knots`, `num_steps`: of the table.
    """

    scaler: ObservationScaler
    linear: LinearResidual
    encoder: AbstractEncoder
    denoiser: AbstractDenoiser
    mean: np.ndarray
    scale: np.ndarray
    num_knots: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)

    def __call__(self, x: PyTree, *, key: Any = None) -> Table:
        """Return y, z and the logarithm of dz/dy at the knots of one row."""
        return self.table(*self.condition(x))

    def condition(
        self, x: PyTree
    ) -> tuple[Float[Array, " size"], Float[Array, " features"]]:
        """Return the condition of the denoiser, and the regression's features."""
        rows = self.scaler(jax.tree.map(lambda leaf: leaf[None], x))
        row = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), rows)
        return self.encoder(row), self.encoder.summary(row)

    def table(
        self, cond: Float[Array, " size"], features: Float[Array, " features"]
    ) -> Table:
        """Return the table of a condition, of one target."""
        if self.mean.size != 1:
            raise ValueError(
                f"y has {self.mean.size} columns: a table is of one target. Use sample "
                "and log_prob, or train a density for each column"
            )
        v, latents, log_slopes = tabulate(
            self.denoiser,
            cond,
            num_knots=self.num_knots,
            num_steps=self.num_steps,
            dtype=cond.dtype,
        )
        y = self.targets(v[:, None], features[None])[:, 0]
        log_slopes = log_slopes - self.log_volume(v.dtype)
        lead = (*self.mean.shape, self.num_knots)
        return y.reshape(lead), latents.reshape(lead), log_slopes.reshape(lead)

    def targets(
        self, v: Float[Array, "rows size"], features: Float[Array, "each features"]
    ) -> Float[Array, "rows size"]:
        """Return targets of the denoiser's coordinates."""
        u = self.linear.coordinates(v, features)
        mean, scale = (jnp.asarray(a.ravel(), u.dtype) for a in (self.mean, self.scale))
        return mean[None] + scale[None] * u

    def residuals(
        self, y: Float[np.ndarray, "rows size"], features: Float[Array, "rows features"]
    ) -> Float[Array, "rows size"]:
        """Return the denoiser's coordinates of targets."""
        u = (y - self.mean.ravel()) / self.scale.ravel()
        return self.linear.residual(jnp.asarray(u, features.dtype), features)

    def log_volume(self, dtype: Any) -> Float[Array, ""]:
        r"""$\log |\partial y/\partial v|$."""
        root, scale = jnp.asarray(self.linear.root), jnp.asarray(self.scale)
        both = jnp.concatenate([jnp.diag(root), scale.ravel()])
        return jnp.sum(jnp.log(both.astype(dtype)))


def table_likelihood(output: Table) -> FlowTable:
    """Return the distribution of a table: the likelihood of `ConditionalNetwork`."""
    return FlowTable(*output)
