"""Outputs of a whole batch at once, for rows that lie along no common axis."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._training.batch import Batch
from ..._types import Model, PRNGKey
from .row import Row


class BatchApply(eqx.Module):
    """A model that computes the outputs of all rows of a batch in one call.

    Graphs whose nodes lie in one array, or sequences with the time first, cannot be
    mapped row by row. Their batch is a `jaxprob.Batch`, whose mask counts the rows: N/B
    in `LogJoint` and means over an epoch are those of its rows.

    ```python
    def graph_outputs(model, graphs, *, key):
        nodes = jax.vmap(model)(graphs["nodes"])
        return jax.ops.segment_sum(nodes, graphs["graph"], 2), graphs["target"]


    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3),
        bnn.FanInNormal(),
        num_data=200,
        apply=bnn.BatchApply(graph_outputs),
    )
    graphs = {"nodes": np.ones((5, 2)), "graph": np.array([0, 0, 0, 1, 1])}
    graphs = jax.tree.map(jnp.asarray, graphs | {"target": np.ones((2, 1))})
    log_density = log_joint(model, jaxprob.Batch(graphs, np.ones(2, bool)))
    ```

    Methods that need the log density alone take it: `MAP`, variational inference, SWAG,
    ensembles, samplers. `predict` and `Laplace` need single rows and raise an error.

    **Arguments:**

    - `function`: `function(model, data, *, key) -> (outputs, y)`, both with one entry
        along the leading axis for each entry of the mask, finite also where it is
        padding.
    """

    function: Callable[..., Any]

    def __call__(self, model: Model, x: PyTree, *, key: PRNGKey | None = None) -> Any:
        """Raise `TypeError`: the model has no output for a single row."""
        raise TypeError(
            "apply=BatchApply(...) gives the outputs of a whole batch, and those of "
            "single rows are needed here: use a method of the log density alone (MAP, "
            "MeanFieldVI, SWAG, a sampler), and call each model of "
            "posterior.sample(key=key) on a batch in place of predict"
        )

    def rows(self, model: Model, batch: PyTree, *, key: PRNGKey | None) -> Row:
        """Return outputs in place of inputs, and targets of the rows of a batch.

        **Raises:** `TypeError` for a batch without a mask; `ValueError` for
        outputs or targets of another number.
        """
        if not isinstance(batch, Batch):
            raise TypeError(
                f"a batch for apply=BatchApply(...) is a {type(batch).__name__}: give "
                "jaxprob.Batch(data, mask), with one entry of the mask for each row"
            )
        outputs, y = self.function(model, batch.data, key=key)
        for name, tree in (("outputs", outputs), ("y", y)):
            for leaf in jax.tree.leaves(tree):
                if leaf.shape[:1] != batch.mask.shape:
                    raise ValueError(
                        f"BatchApply: {name} have shape {leaf.shape}, and the mask of "
                        f"the batch has {batch.mask.shape[0]} rows: the leading axis "
                        "is that of the rows"
                    )
        return Row(outputs, y)
