"""Problems of four sizes for the training steps of `benchmarks.bridge`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """A model, its data and its loss.

    **Arguments:**

    - `title`: what it is called in the report.
    - `batch`, `steps`: rows in a batch, and batches in an epoch, which is a round.
    - `widths`: layers of an MLP from inputs to outputs; `None` for the Mixer.
    """

    title: str
    batch: int
    steps: int
    widths: tuple[int, ...] | None

    def data(self) -> Any:
        """Rows `(x, y)`, or images."""
        rng = np.random.default_rng(0)
        rows = self.batch * self.steps
        if self.widths is None:
            return rng.normal(size=(rows, 1, 28, 28)).astype(np.float32)
        x = rng.normal(size=(rows, self.widths[0])).astype(np.float32)
        y = np.sin(3 * x[:, :1]) * np.ones((1, self.widths[-1]), np.float32)
        return x, y

    def model(self) -> Any:
        import jax

        key = jax.random.key(0)
        if self.widths is None:
            from jaxprob.diffusion import kidger_mixer

            return kidger_mixer(
                (1, 28, 28), mix_patch_size=128, mix_hidden_size=128, key=key
            )
        import equinox as eqx

        first, *hidden, last = self.widths
        return eqx.nn.MLP(first, last, hidden[0], len(hidden), key=key)

    def batch_loss(self) -> Callable[..., Any]:
        """Return the loss of a plain loop, `loss(model, batch, key)`."""
        import jax
        import jax.numpy as jnp

        if self.widths is None:
            from jaxprob.diffusion import DenoisingLoss

            denoising = DenoisingLoss()
            return lambda model, x, key: denoising(model, x, key=key)[0]

        def squared_error(model, batch, key):
            x, y = batch
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        return squared_error

    def learner(self) -> Any:
        """Return the learner that a user of jaxprob writes."""
        import jax.numpy as jnp
        import optax

        import jaxprob

        if self.widths is None:
            from jaxprob.diffusion import DenoisingLoss

            return jaxprob.GradientDescent(DenoisingLoss(), optax.adam(1e-3))

        @jaxprob.mean_loss
        def loss(model, example, *, key):
            x, y = example
            return jnp.mean((model(x) - y) ** 2), {}

        return jaxprob.GradientDescent(loss, optax.adam(1e-3))


PROBLEMS = {
    "tiny": Problem("1-64-64-1 MLP, batch 32", 32, 1000, (1, 64, 64, 1)),
    "middle": Problem("64-256-256-8 MLP, batch 128", 128, 320, (64, 256, 256, 8)),
    "large": Problem("784-1024-1024-10 MLP, batch 256", 256, 40, (784, 1024, 1024, 10)),
    "mixer": Problem("Mixer2d on 28x28, batch 32", 32, 30, None),
}
