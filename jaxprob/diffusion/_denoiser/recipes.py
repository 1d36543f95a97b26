"""Known systems, assembled from parts."""

from collections.abc import Sequence

import jax.numpy as jnp

from ..._types import PRNGKey
from .._schedule.vp import VP
from ..nn import Mixer2d
from .preconditioned import Preconditioned


def kidger_mixer(
    image_shape: Sequence[int],
    *,
    patch_size: int = 4,
    hidden_size: int = 64,
    mix_patch_size: int = 512,
    mix_hidden_size: int = 512,
    num_blocks: int = 4,
    predict: str = "score",
    condition_on: str = "time",
    key: PRNGKey,
) -> Preconditioned:
    r"""Return the model of Equinox's score-based diffusion example.

    VP with $B(t) = t$ up to $T = 10$; a `Mixer2d` that is given the time and predicts
    the score. Its loss, weight $1 - e^{-t}$ on the error of the score at stratified
    uniform times, is that of eps, so `DenoisingLoss()`; its optimiser is
    `optax.adabelief(3e-4)` with batches of 256.

    Reference: *On Neural Differential Equations*, Kidger, 2021, and the example
    "Score-based diffusion" in Equinox's documentation.

    ```python
    denoiser = kidger_mixer((1, 28, 28), key=key)
    learner = jaxprob.GradientDescent(DenoisingLoss(), optax.adabelief(3e-4))
    ```

    **Arguments:**

    - `image_shape`: channels, height, width; images are standardised.
    - `patch_size`, ..., `num_blocks`: as in `Mixer2d`, with the example's values.
    - `predict`, `condition_on`: as in `Preconditioned`. With `"edm"` and `"noise"` the
        same network learns several times faster: digits are decided in the first tenth
        of the example's time, but over a large part of the range of $\log s$.
    - `key`: of the initial weights.
    """
    schedule = VP(_identity, t_max=10.0, inverse=_identity)
    net = Mixer2d(
        image_shape,
        patch_size,
        hidden_size,
        mix_patch_size,
        mix_hidden_size,
        num_blocks,
        t_max=schedule.t_max if condition_on == "time" else 1.0,
        key=key,
    )
    return Preconditioned(net, schedule, predict, condition_on=condition_on)


def _identity(t):
    return jnp.asarray(t)
