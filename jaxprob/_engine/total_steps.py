"""Learners whose optimisers are built for the length of a run, one for each length."""

from .._training.learner import AbstractLearner
from .._training.total_steps import build_optimizers, needs_total_steps
from .per_object import PerObject


def with_total_steps(learner: AbstractLearner, total_steps: int) -> AbstractLearner:
    """Return the learner with its optimisers built for a number of steps.

    It is the learner itself if none was made by `jaxprob.from_total_steps`, and the
    same object whenever learner and number are the same, so that nothing is compiled
    twice.

    ```python
    learner = jaxprob.with_total_steps(learner, total_steps=1000)
    ```

    **Arguments:**

    - `learner`: as for `jaxprob.fit`.
    - `total_steps`: updates of the whole run.
    """
    if not needs_total_steps(learner):
        return learner
    if isinstance(total_steps, bool) or not total_steps >= 1:
        raise ValueError(f"total_steps={total_steps}: a whole number, at least 1")
    return _BUILT.get(
        learner, total_steps, lambda: build_optimizers(learner, total_steps)
    )


_BUILT: PerObject[AbstractLearner] = PerObject()
