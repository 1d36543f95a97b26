"""Scaling of predicted standard deviations by one number."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..metrics._inputs import check_positive, check_same_shape, floats
from ..metrics._near_zero import near_zero


class VarianceScaling(eqx.Module):
    r"""Multiplication of all variances by $s^2 = \frac 1 n \sum_i (y_i - \mu_i)^2 /
    \sigma_i^2$.

    $s$ maximises the Gaussian likelihood in closed form. Heavy tails increase it:
    compare with the median of $|y - \mu| / \sigma$, which is .6745 for a Gaussian.

    Reference: *Evaluating and calibrating uncertainty prediction in regression tasks*,
    Levi, Gispan, Giladi and Fetaya, 2019, https://arxiv.org/abs/1905.11659, section 4.

    **Arguments:**

    - `scale`: s > 0.
    """

    scale: Float[Array, ""]

    @classmethod
    def fit(
        cls,
        y: Float[Array | np.ndarray, "*shape"],
        mean: Float[Array | np.ndarray, "*shape"],
        std: Float[Array | np.ndarray, "*shape"],
    ) -> "VarianceScaling":
        """Fit the scale by maximum likelihood.

        **Arguments:**

        - `y`: outcomes of rows that were not trained on.
        - `mean`, `std`: their predictions.

        **Raises:** `ValueError` for NaN, different shapes, scales not above zero, or
        outcomes that all equal their predictions.
        """
        y, mean, std = floats(**near_zero(y=y, mean=mean), std=std)
        check_same_shape(y=y, mean=mean, std=std)
        check_positive("std", std)
        scale = jnp.sqrt(jnp.mean(((y - mean) / std) ** 2))
        if not scale > 0:
            raise ValueError(
                "y equals mean in every row, so the likelihood has no maximum: it "
                "rises as the scale falls to zero. Give rows that were not trained on"
            )
        return cls(scale)

    def __call__(
        self, std: Float[Array | np.ndarray, "*shape"]
    ) -> Float[Array, "*shape"]:
        """Return the scaled standard deviations."""
        (std,) = floats(std=std)
        return self.scale.astype(std.dtype) * std
