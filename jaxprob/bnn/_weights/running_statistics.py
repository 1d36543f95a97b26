"""Modules with running statistics, such as batch normalisation."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._types import Model, PRNGKey
from .apply import takes_key


class Stateful(eqx.Module):
    """A module and its `eqx.nn.State` as one model that any method here can train.

    ```python
    net, state = eqx.nn.make_with_state(Net)(key=key)      # holds eqx.nn.BatchNorm
    model = Stateful(net, state)
    method = MAP(log_joint, optax.adam(1e-3))
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=20)
    ```

    In training a batch is normalised by its own statistics, and each step updates the
    running ones. They are neither random nor optimised, and the parameters of
    normalisation layers are points by default. In inference mode, which `predict`,
    `Laplace` and `NUTS` use, the running statistics are constants, so that the network
    is a function of one input.

    In training an output depends on the whole batch, so the likelihood has no factor
    for each row. A loader fills its ragged last batch with other rows of the set, which
    count in the statistics and not in the loss; a torch `DataLoader` needs
    `drop_last=True`. For a posterior to be trusted, prefer `eqx.nn.GroupNorm` or
    `LayerNorm`.

    **Arguments:**

    - `net`: called as `net(x, state)` or `net(x, state, key=key)`; returns
        `(output, state)`.
    - `state`: from `eqx.nn.make_with_state`.
    - `axis_name`: of the batch, as given to the layers.
    """

    net: Any
    state: eqx.nn.State
    fresh: eqx.nn.State
    axis_name: str = eqx.field(static=True)
    inference: bool

    def __init__(
        self,
        net: Any,
        state: eqx.nn.State,
        *,
        axis_name: str = "batch",
        inference: bool = False,
    ):
        self.net = net
        self.state = state
        # `refresh_statistics` starts from it. It is a copy, because `State.set` makes
        # the object that it is called on unusable.
        self.fresh = copied(state)
        self.axis_name = axis_name
        self.inference = inference

    def __call__(self, x: Any, *, key: PRNGKey | None = None) -> Any:
        """Return the output for one input, in inference mode."""
        if not self.inference:
            raise ValueError(
                "this model normalises by statistics of the batch, so it has no output "
                "for one input: call eqx.nn.inference_mode(model), or train with MAP, "
                "an ensemble of it, SWAG, SGLD or SGHMC. Variational methods and "
                "Laplace's curvature need a function of one input: use GroupNorm, or "
                "train the statistics first and continue in inference mode."
            )
        return self.advance(x, key=key)[0]

    def advance(
        self, x: Any, *, key: PRNGKey | None = None
    ) -> tuple[Any, eqx.nn.State]:
        """Return output and next state, inside a vmap over the batch axis."""
        state = copied(self.state)
        if takes_key(self.net):
            return self.net(x, state, key=key)
        return self.net(x, state)


def statistics(model: Model) -> PyTree:
    """Return the running statistics of a model, `None` elsewhere."""
    flags = jax.tree.map(
        lambda node: jax.tree.map(lambda _: _is_state(node), node),
        model,
        is_leaf=_is_state,
    )
    return eqx.filter(model, flags)


def trains_statistics(model: Model) -> bool:
    """Return whether the model is `Stateful` and not in inference mode."""
    return isinstance(model, Stateful) and not model.inference


def copied(state: eqx.nn.State) -> eqx.nn.State:
    """Return another object of the same numbers.

    `State.set` makes the object that it is called on unusable.
    """
    return jax.tree.map(lambda a: a, state)


def _is_state(node):
    return isinstance(node, eqx.nn.State)
