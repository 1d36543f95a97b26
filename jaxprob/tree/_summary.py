"""A card of a model: parameters of its parts by role."""

from .._types import Model, Where
from ._model_card import ModelCard, model_card
from ._paths import paths
from ._select import select


def summary(
    tree: Model,
    *,
    random: Where = False,
    frozen: Where = False,
    depth: int | None = 2,
) -> ModelCard:
    """Return a card of a model: its parts, their parameters by role, their memory.

    ```python
    print(jaxprob.tree.summary(model, random="layers.*.weight"))
    ```

    **Arguments:**

    - `tree`: any pytree.
    - `random`: leaves with a posterior; `bnn.Gaussian` means those of `bayesianize`.
    - `frozen`: leaves that are not trained. All others are points, to be optimised.
    - `depth`: levels of parts to list; `None` for all.

    **Returns:** a `ModelCard`, which prints as a table.
    """
    chosen = {"random": random, "frozen": frozen, "point": True}
    flags = {name: paths(select(tree, where)) for name, where in chosen.items()}
    both = [
        path for path, flag in flags["random"].items() if flag and flags["frozen"][path]
    ]
    if both:
        raise ValueError(f"random and frozen both mean the leaf {both[0]}")

    def role(path):
        return next((name for name in chosen if flags[name][path]), None)

    return model_card(tree, role, depth)
