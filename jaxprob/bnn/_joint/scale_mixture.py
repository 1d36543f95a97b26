"""A spike-and-slab prior."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._weights.scale import is_traced, positive


class ScaleMixtureNormal(eqx.Module):
    r"""A spike and a slab: a mixture of a narrow and a wide Gaussian.

    $$w \sim \pi \mathcal N(0, s_1^2) + (1 - \pi) \mathcal N(0, s_2^2)$$

    Most weights are near zero and some far from it. There is no closed-form divergence
    from a Gaussian, so `MeanFieldVI` estimates it. At the edge of the spike the log
    density is not concave, and `Laplace` rejects a mode there.

    Reference: *Weight uncertainty in neural networks*, Blundell, Cornebise, Kavukcuoglu
    and Wierstra, 2015; the defaults are from the ranges given there.

    **Arguments:**

    - `mixing_weight`: $\pi$ in (0, 1), the probability of the slab.
    - `slab_scale`: $s_1$.
    - `spike_scale`: $s_2$.
    """

    mixing_weight: Float[Array, ""]
    slab_scale: Float[Array, ""]
    spike_scale: Float[Array, ""]

    def __init__(
        self,
        mixing_weight: float | Float[Array, ""] = 0.5,
        slab_scale: float | Float[Array, ""] = 1.0,
        spike_scale: float | Float[Array, ""] = math.exp(-6.0),
    ):
        self.mixing_weight = positive("mixing_weight", mixing_weight)
        if not is_traced(self.mixing_weight) and not bool(self.mixing_weight < 1):
            raise ValueError(f"mixing_weight={mixing_weight}: it lies inside (0, 1)")
        self.slab_scale = positive("slab_scale", slab_scale)
        self.spike_scale = positive("spike_scale", spike_scale)

    def __call__(self, path: str, leaf: Any) -> dist.Distribution:
        slab, *scales = (
            jnp.asarray(a, leaf.dtype)
            for a in (self.mixing_weight, self.slab_scale, self.spike_scale)
        )
        probs = jnp.stack([slab, 1.0 - slab])
        scale = jnp.stack(scales)
        components = dist.Normal(jnp.zeros_like(scale), scale)
        return dist.MixtureSameFamily(dist.CategoricalProbs(probs), components)
