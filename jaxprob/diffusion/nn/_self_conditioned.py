"""Self-conditioning: a network that is given its own estimate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond
from ._condition import AbstractConditioned, AbstractReader, reader_of


class SelfConditioned(AbstractConditioned):
    r"""A network whose second half of channels is its own first answer.

    In training (with a `key`) the answer of a first pass, without gradient, is given to
    half of the examples, and zeros to the others. Otherwise every evaluation makes two
    passes, so that the denoiser stays a function of its input: densities and adaptive
    solvers need that. In the paper a sampler passes on the estimate of the step before.

    Reference: *Analog Bits: Generating Discrete Data using Diffusion Models with
    Self-Conditioning*, Chen et al., 2022, algorithm 1; their network predicts the data.

    ```python
    net = nn.SelfConditioned(nn.UNet((2, 8, 8), out_channels=1, key=key))
    denoiser = Preconditioned(net, VP.linear(), predict="x0")
    ```

    **Arguments:**

    - `net`: takes twice as many channels as an example has, the estimate last, and
        gives back as many as an example has: `UNet` and `DiT` with `out_channels`,
        `ResidualMLP` with `out_dim`.
    """

    net: Callable[..., Float[Array, "..."]]
    inference: bool

    def __init__(self, net: Callable, *, inference: bool = False):
        self.net = net
        self.inference = inference

    @property
    def reader(self) -> AbstractReader | None:
        return reader_of(self.net)

    def __call__(
        self,
        x: Float[Array, "*shape"],
        c: Float[Array, ""],
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        """Return the answer of the pass that knows the estimate."""
        first_key, second_key, choice_key = (
            (None,) * 3 if key is None else jax.random.split(key, 3)
        )

        def answer(estimate, key):
            out = self.net(jnp.concatenate([x, estimate]), c, cond, key=key)
            if out.shape != x.shape:
                raise ValueError(
                    f"the network of SelfConditioned turned {x.shape} and its estimate "
                    f"into {out.shape}: build it for {2 * x.shape[0]} channels, with "
                    f"out_channels={x.shape[0]} (out_dim in ResidualMLP)"
                )
            return out

        nothing = jnp.zeros_like(x)
        estimate = jax.lax.stop_gradient(answer(nothing, first_key))
        if choice_key is not None and not self.inference:
            given = jax.random.bernoulli(choice_key)
            estimate = jnp.where(given, estimate, nothing)
        return answer(estimate, second_key)
