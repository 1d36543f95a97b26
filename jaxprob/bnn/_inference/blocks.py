"""Another method for each part of a model."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._random.keys import check_key, example_keys
from ..._training.batch import unpack
from ..._training.capabilities import AbstractAcceptReject, AbstractOptimized
from ..._training.learner import AbstractCapability, Capability
from ..._training.wrapper import Withheld
from ..._types import Model, PRNGKey, State, Where
from .._joint.likelihood import Likelihood
from .._posterior.mixture import Mixture
from .._posterior.posterior import (
    AbstractPosterior,
    first_known,
    part_linearisation_point,
)
from .capabilities import AbstractConditional, AbstractTrainedModels
from .inference import AbstractInference
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
        """True if any block is linearised, which is in its leaves alone."""
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
    r"""Training of the whole model, then inference of some parts, each by a method.

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

    - `method`: trains all leaves, such as `MAP`. With an ensemble,
        `Blocks(DeepEnsemble(MAP(...), 5), ...)`, the blocks are inferred given each
        member, and the posterior is the mixture.
    - `blocks`: for each path, type or predicate (see `jaxprob.tree`) the method of the
        leaves it means; all other leaves are frozen. Chains start at the trained model.
        `Laplace` takes it as its mode; other methods are run from there.
    - `num_steps`: updates of blocks that do not know their own number, on all the data.
    """

    forwards: ClassVar = {
        AbstractTrainedModels: Withheld("Blocks ends in posteriors of its blocks"),
        AbstractConditional: Withheld("Blocks has blocks itself"),
    }
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
        trained = method.capability(AbstractTrainedModels)
        if trained is None:
            raise TypeError(
                "Blocks needs a trained model, in which other leaves stay as they "
                f"are, and {method.lack(AbstractTrainedModels)}: give MAP, or an "
                "ensemble of it"
            )
        self.method = method
        self.where = tuple(blocks)
        self.blocks = tuple(_restricted(*pair) for pair in blocks.items())
        self.num_steps = num_steps

    def capability(self, kind: type[Capability]) -> Capability | None:
        """Return as of any wrapper, but for two that concern the blocks as well.

        One block that accepts or rejects makes a method that does, and one block
        without an optimiser a method that an option of optimisers would not reach.
        """
        found = [method.capability(kind) for method in (self.method, *self.blocks)]
        if kind is AbstractAcceptReject:
            return next((known for known in found if known is not None), None)
        if kind is AbstractOptimized and None in found:
            return None
        return super().capability(kind)

    def lack(self, kind: type[AbstractCapability]) -> str:
        without = (b for b in self.blocks if b.capability(kind) is None)
        block = next(without, None) if kind is AbstractOptimized else None
        return super().lack(kind) if block is None else block.lack(kind)

    def init(self, model: Model, *, key: PRNGKey) -> State:
        """Return the first state of `method`.

        **Raises:** `ValueError` when two blocks mean the same leaf; and what a block's
        method says of the model, before anything is trained.
        """
        self._chosen(model)
        for block in self.blocks:
            free = block.unconstrained(eqx.nn.inference_mode(model))
            eqx.filter_eval_shape(block.init, free, key=key)
        return self.method.init(model, key=key)

    def needs_batches(self, model: Model) -> bool:
        return True

    def posterior(
        self,
        state: State,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> BlocksPosterior | Mixture:
        """Run the blocks' methods, for each trained model.

        **Raises:** `ValueError` without batches or key.
        """
        if batches is None or key is None:
            raise ValueError(
                "the blocks are inferred here: give the training data and a key, "
                "posterior(state, [(x, y)], key=key)"
            )
        check_key(key)
        trained = self.method.capability(AbstractTrainedModels)
        assert trained is not None  # as the constructor has checked
        models = [eqx.nn.inference_mode(model) for model in trained.models(state)]
        data = _joined_rows(TrainingBatches(self, models[0], batches))
        if len(models) == 1:
            return self._given(models[0], data, key)
        keys = example_keys(key, len(models))
        return Mixture(
            [self._given(m, data, k) for m, k in zip(models, keys, strict=True)]
        )

    def _given(self, model, data, key):
        """The posterior of the blocks given one trained model."""
        parts = []
        for index, block in enumerate(self.blocks):
            conditional = block.capability(AbstractConditional)
            assert conditional is not None  # as the constructor has checked
            part = conditional.infer(
                model,
                data,
                key=jax.random.fold_in(key, index),
                num_steps=self.num_steps,
            )
            parts.append(part)
        return BlocksPosterior(model, self._chosen(model), tuple(parts))

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


def _restricted(where, block):
    """The method over the leaves of its block, all others frozen."""
    conditional = block.capability(AbstractConditional)
    if conditional is None:
        raise TypeError(
            f"{type(block).__name__} cannot be a block, which infers some leaves given "
            f"all others ({block.lack(AbstractConditional)}): give a sampler, "
            "Laplace(MAP(...)) or a variational method"
        )
    return conditional.restricted(where)


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
