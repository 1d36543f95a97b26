"""Likelihood of targets of several kinds, from one model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpyro.distributions as dist
from jaxtyping import PyTree

from .joint_distribution import JointDistribution, check_names
from .likelihood import AbstractLikelihood, Likelihood, check_likelihood


class JointLikelihood(AbstractLikelihood):
    r"""Likelihood of several targets, $p(y \mid f) = \prod_k p_k(y_k \mid f_k)$.

    The model returns a dict with an output for each name, and y is a dict of targets
    with the same names, each with its own shape and dtype. They are independent given
    the weights; what they share in the posterior comes from the weights they share.
    `LogJoint` and `predict` take a dict of likelihoods and make this of it.

    ```python
    likelihood = {"price": NormalLikelihood(0.3), "kind": CategoricalLikelihood()}
    log_joint = LogJoint(likelihood, FanInNormal(), num_data=len(x))
    outputs = {"price": jnp.zeros((5, 8)), "kind": jnp.zeros((5, 8, 3))}
    predictive = Predictive(outputs, log_joint.likelihood)  # as `predict` makes it
    predictive["price"].interval(0.9), predictive["kind"].probs
    ```

    **Arguments:**

    - `parts`: the likelihoods by name.
    """

    parts: dict[str, Likelihood]

    def __init__(self, parts: Mapping[Any, Any]):
        if not parts:
            raise ValueError("parts is empty: give a likelihood for each target")
        for name, part in parts.items():
            if not isinstance(name, str):
                raise TypeError(f"the name {name!r} of a target is no string")
            try:
                check_likelihood(part)
            except TypeError as error:
                raise TypeError(f"of target {name!r}: {error}") from None
        # JAX sorts the keys of a dict wherever it is flattened.
        self.parts = {name: parts[name] for name in sorted(parts)}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the targets."""
        return tuple(self.parts)

    @property
    def accepts_any_output(self) -> bool:  # pyright: ignore
        return all(
            isinstance(part, AbstractLikelihood) and part.accepts_any_output
            for part in self.parts.values()
        )

    def __call__(self, output: Any) -> dist.Distribution:
        check_names(output, self.names, "the output of the model")
        parts = tuple(part(output[name]) for name, part in self.parts.items())
        return JointDistribution(self.names, parts)


class PartLikelihood(eqx.Module):
    """The likelihood of one of several targets, from the output for all.

    **Arguments:**

    - `whole`: the likelihood of all targets.
    - `name`: of the target.
    """

    whole: Likelihood
    name: str = eqx.field(static=True)

    @property
    def part(self) -> Likelihood | None:
        """The likelihood of this target alone, from its own output, where known."""
        whole = self.whole
        return whole.parts[self.name] if isinstance(whole, JointLikelihood) else None

    def __call__(self, output: PyTree) -> dist.Distribution:
        p = self.whole(output)
        assert isinstance(p, JointDistribution)
        return p.part(self.name)


def as_likelihood(likelihood: Any) -> Likelihood:
    """Return a likelihood; of a dict of likelihoods the joint one.

    **Raises:** as `check_likelihood`.
    """
    if isinstance(likelihood, Mapping):
        return JointLikelihood(likelihood)
    check_likelihood(likelihood)
    return likelihood
