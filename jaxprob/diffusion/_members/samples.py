"""The same noise, turned into samples by each of several denoisers."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._types import PRNGKey
from .._denoiser.averaged import Averaged
from .._sampler.sample import sample
from .._sampler.sampler import AbstractSampler
from .._types import Level, Numbers
from .each import each, members_of


class MemberSamples(eqx.Module):
    """Samples of K denoisers from the same noise.

    **Fields:**

    - `x_0`: sample i of member k, `x_0[k, i]`.
    - `scale`: standard deviation of the data, by which `doubt` is divided.
    """

    x_0: Float[Array, "members num ..."]
    scale: Float[Array, "..."]

    @property
    def std(self) -> Float[Array, "num ..."]:
        """Standard deviation over the members, of each coordinate of each sample."""
        return jnp.std(self.x_0, axis=0, ddof=1)

    @property
    def mean(self) -> Float[Array, "num ..."]:
        """Mean over the members. It is no sample: where they disagree it is blurred."""
        return jnp.mean(self.x_0, axis=0)

    @property
    def doubt(self) -> Float[Array, " num"]:
        """Root mean square of `std` over a sample, in standard deviations of the data.

        Near 0 the weights do not matter for the sample, and 1 is as far apart as two
        examples of the data are.
        """
        squares = (self.std / self.scale[None]) ** 2
        return jnp.sqrt(jnp.mean(squares.reshape(len(squares), -1), axis=1))

    def least_doubtful(self, fraction: float) -> Int[np.ndarray, " kept"]:
        """Return the indices of the least doubtful samples, in increasing doubt.

        ```python
        draws = sample_members(averaged, ExpAB(4), key=key, num_samples=8, shape=(2,))
        certain = draws.x_0[0, draws.least_doubtful(0.9)]
        ```

        **Arguments:**

        - `fraction`: of the samples, in (0, 1]; at least one is kept, and 1 ranks all.
        """
        if not 0.0 < fraction <= 1.0:
            raise ValueError(
                f"fraction={fraction}: the fraction of samples to keep is in (0, 1]"
            )
        doubt = np.asarray(self.doubt)
        number = max(1, math.floor(fraction * len(doubt) + 1e-9))
        return np.argsort(doubt, kind="stable")[:number]


def sample_members(
    averaged: Averaged,
    sampler: AbstractSampler,
    *,
    key: PRNGKey,
    num_samples: int,
    shape: tuple[int, ...],
    cond: PyTree = None,
    start: tuple[Numbers, Level] | None = None,
    batch_size: int | None = None,
) -> MemberSamples:
    """Draw samples with each member of an average, from the same noise.

    What differs between members at one noise is what the data did not decide, for each
    sample and each of its pixels. `sample(denoiser, sampler, key=key, ...)` with any
    one denoiser and the same key begins at the same noise, so `doubt` is that of its
    samples too. It costs K times what `sample` does.

    Reference: *BayesDiff: Estimating Pixel-wise Uncertainty in Diffusion via Bayesian
    Inference*, Kou et al., 2024, https://arxiv.org/abs/2310.11142, which propagates
    variances through the steps instead.

    ```python
    averaged = Averaged.of([denoiser_1, denoiser_2, denoiser_3])
    draws = sample_members(averaged, ExpAB(4), key=key, num_samples=8, shape=(2,))
    most_doubtful = draws.least_doubtful(1.0)[-1]
    ```

    **Arguments:**

    - `averaged`: the members, at least two.
    - the others: as in `sample`, which runs once for each member.

    **Raises:** as `sample`, with the member in a note; `ValueError` for one member.
    """
    members = members_of(averaged)

    def draws(member):
        return sample(
            member,
            sampler,
            key=key,
            num_samples=num_samples,
            shape=shape,
            cond=cond,
            start=start,
            batch_size=batch_size,
        ).x_0

    x_0 = jnp.stack(each(draws, members))
    units = members[0].standardised()[1]
    scale = units.to_data(jnp.ones(shape, x_0.dtype)) - units.to_data(
        jnp.zeros(shape, x_0.dtype)
    )
    return MemberSamples(x_0, jax.lax.stop_gradient(scale))
