"""Another method for each part of a model."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._random.keys import check_key, example_keys
from ..._training.batch import unpack
from ..._types import Model, PRNGKey, State, Where
from .._joint.likelihood import Likelihood
from .._laplace.laplace import Laplace
from .._mcmc.chains import AbstractChains
from .._mcmc.run_chains import run_chains
from .._posterior.posterior import (
    AbstractPosterior,
    first_known,
    part_linearisation_point,
)
from .inference import AbstractInference
from .run_steps import run_steps
from .training_batches import TrainingBatches
from .wrapper import AbstractPostHoc


class BlocksPosterior(AbstractPosterior):
    r"""$\prod_b q_b(w_b)$, and one value for all other leaves.

    **Arguments:**

    - `model`: the trained model.
    - `chosen`: for each block the tree of bools that says which leaves are its.
    - `parts`: for each block its posterior over whole models, whose other leaves are
        those of `model`.
    """

    model: Model
    chosen: tuple[PyTree, ...]
    parts: tuple[AbstractPosterior, ...]

    def sample(self, *, key: PRNGKey) -> Model:
        keys = example_keys(key, len(self.parts))
        drawn = [part.sample(key=k) for part, k in zip(self.parts, keys, strict=True)]
        return self._joined(drawn)

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """A draw; and the mean at leaves of blocks that are linearised, the draw itself
        at those of the others.
        """
        keys = example_keys(key, len(self.parts))
        pairs = [
            part_linearisation_point(self, part, key=k)
            for part, k in zip(self.parts, keys, strict=True)
        ]
        draws, centres = zip(*pairs, strict=True)
        return self._joined(draws), self._joined(centres)

    def factorised(self) -> "BlocksPosterior":
        parts = tuple(part.factorised() for part in self.parts)
        return BlocksPosterior(self.model, self.chosen, parts)

    def mean(self) -> Model:
        return self._joined([part.mean() for part in self.parts])

    def log_prob(self, model: Model) -> Float[Array, ""]:
        """The sum over the blocks, for those that have a density."""
        return jnp.asarray(sum((part.log_prob(model) for part in self.parts), 0.0))

    @property
    def linearized(self) -> bool:
        """Where any block asks for it: in its own leaves alone."""
        return any(part.linearized for part in self.parts)

    @property
    def output_likelihood(self) -> Likelihood | None:
        return first_known(part.output_likelihood for part in self.parts)

    def _joined(self, models):
        out = self.model
        for chosen, model in zip(self.chosen, models, strict=True):
            out = eqx.combine(eqx.filter(model, chosen), out)
        return out


class Blocks(AbstractPostHoc):
    r"""Trains the whole model, then infers some of its parts, each by its own method.

    $$q(w) = \delta(w_0 - \hat w_0) \prod_b q_b(w_b), \qquad q_b(w_b) \approx
      p(w_b \mid \mathcal D, w_{-b} = \hat w_{-b})$$

    Each block's posterior is the **conditional** one: all other leaves stand at the
    trained value $\hat w$, those of the other blocks too, and blocks are independent.
    What is left out is the uncertainty of leaves in no block, and every correlation
    between blocks: with one block over the last layer this is Bayesian regression on
    learned features, exact given the features.

    Fitting trains with `method`. The blocks run in `posterior(state, batches)`, which
    needs the training data again.

    ```python
    method = Blocks(
        MAP(log_joint, optax.adam(1e-3)),
        {"layers.2": NUTS(log_joint)},
    )
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=100)
    posterior = method.posterior(state, [(x, y)], key=key)
    ```

    **Arguments:**

    - `method`: trains all leaves, such as `MAP`.
    - `blocks`: for each path, type or predicate (see `jaxprob.tree`) the method of the
        leaves it means. Their `random` is set to it, and all other leaves are frozen;
        chains start at the trained model. `Laplace` takes that as its mode; other
        methods are run from there.
    - `num_steps`: updates of blocks that do not know their own number, on all the data.
    """

    method: AbstractInference
    where: tuple[Where, ...] = eqx.field(static=True)
    blocks: tuple[AbstractInference, ...]
    num_steps: int

    def __init__(
        self,
        method: AbstractInference,
        blocks: Mapping[Where, AbstractInference],
        *,
        num_steps: int = 1000,
    ):
        if not isinstance(blocks, Mapping):
            raise TypeError(
                f"blocks is a {type(blocks).__name__}: give a dict from leaves to "
                "methods, such as {'layers.2': NUTS(log_joint)}"
            )
        if not blocks:
            raise ValueError("blocks is empty: then this is the method alone")
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps}: at least one update")
        self.method = method
        self.where = tuple(blocks)
        self.blocks = tuple(_restricted(*pair) for pair in blocks.items())
        self.num_steps = num_steps

    def init(self, model: Model, *, key: PRNGKey) -> State:
        """The state of `method`.

        **Raises:** `ValueError` when two blocks mean the same leaf; and what a block's
        method says of the model, before anything is trained.
        """
        self._chosen(model)
        for block in self.blocks:
            eqx.filter_eval_shape(block.init, eqx.nn.inference_mode(model), key=key)
        return self.method.init(model, key=key)

    def posterior(
        self,
        state: State,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> BlocksPosterior:
        """Runs the blocks' methods.

        **Raises:** `ValueError` without batches or key.
        """
        if batches is None or key is None:
            raise ValueError(
                "the blocks are inferred here: give the training data and a key, "
                "posterior(state, [(x, y)], key=key)"
            )
        check_key(key)
        model = eqx.nn.inference_mode(self.model(state))
        data = _joined_rows(TrainingBatches(self, model, batches))
        chosen = self._chosen(model)
        parts = tuple(
            self._infer(block, model, data, jax.random.fold_in(key, index))
            for index, block in enumerate(self.blocks)
        )
        return BlocksPosterior(model, chosen, parts)

    def _infer(self, block, model, data, key):
        init_key, run_key, posterior_key = jax.random.split(key, 3)
        if isinstance(block, AbstractChains):
            return run_chains(block, model, data, key=run_key, progress=False)
        state = block.init(model, key=init_key)
        if not isinstance(block, Laplace):
            state = run_steps(block, state, data, key=run_key, num=self.num_steps)
        return block.posterior(state, [data], key=posterior_key)

    def _chosen(self, model):
        chosen = tuple(tree.select(model, where) for where in self.where)
        taken: dict[str, Where] = {}
        for where, flags in zip(self.where, chosen, strict=True):
            for path, flag in tree.paths(flags).items():
                if flag and path in taken:
                    raise ValueError(
                        f"the blocks {taken[path]!r} and {where!r} both mean {path}: "
                        "a leaf has one posterior"
                    )
                if flag:
                    taken[path] = where
        return chosen


def _restricted(where: Where, block: Any) -> Any:
    """The method over the leaves of its block, all others frozen."""
    names = {field.name for field in dataclasses.fields(block)}
    if isinstance(block, Laplace):
        return dataclasses.replace(
            block, method=_restricted(where, block.method), where=None
        )
    if "random" not in names:
        raise TypeError(
            f"{type(block).__name__} has no leaves of its own to choose (`random`), so "
            "it cannot be a block: give a sampler, Laplace(MAP(...)) or a variational "
            "method"
        )
    changes: dict[str, Any] = {"random": where}
    if "point" in names:
        changes["point"] = False
    if isinstance(block, AbstractChains) and block.initial == "prior":
        changes["initial"] = "model"
    return dataclasses.replace(block, **changes)


def _joined_rows(batches):
    """All rows that count, as one batch."""
    parts = []
    for batch in batches:
        data, mask = unpack(batch)
        keep = np.asarray(mask)
        parts.append(jax.tree.map(lambda a, keep=keep: np.asarray(a)[keep], data))
    if not parts:
        raise ValueError("batches is empty: the blocks need the training data")
    return jax.tree.map(lambda *a: jnp.asarray(np.concatenate(a)), *parts)
