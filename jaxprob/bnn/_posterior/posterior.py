"""What inference gives: a distribution over models of the user's own class."""

import abc
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
from jaxtyping import Array, Float, Integer, PyTree

from ..._types import Model, PRNGKey
from .._joint.likelihood import Likelihood
from .linearized import LinearizedModel


class AbstractPosterior(eqx.Module):
    """A distribution over models. A draw is a model: all of the user's code runs on it.

    A posterior of finitely many models (a point, an ensemble, the draws of a chain)
    says how many in `num_atoms` and gives the i-th by `atom(i)`; `predict` then uses
    each once instead of drawing.
    """

    @abc.abstractmethod
    def sample(self, *, key: PRNGKey) -> Model:
        """One model."""

    @abc.abstractmethod
    def mean(self) -> Model:
        """The model whose random leaves are their posterior means."""

    def log_prob(self, model: Model) -> Float[Array, ""]:
        """Log-density of the random leaves of a model, in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no density")

    @property
    def linearized(self) -> bool:
        """Return whether `predict` linearises the model by default."""
        return False

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw and the model around which `predict` linearises it.

        The second is the mean, but each component of a mixture has its own.
        """
        return self.sample(key=key), self.mean()

    @property
    def output_likelihood(self) -> Likelihood | None:
        """The likelihood that a linearised posterior was made for, if it knows it."""
        return None

    def sample_function(self, *, key: PRNGKey) -> Callable[..., PyTree]:
        """Draw one function x -> output, as `predict` uses it.

        It is the model that `sample` draws, or its linearisation where `predict`
        linearises by default (Laplace): there the drawn weights alone are much wider as
        functions than the posterior is. Use it for Thompson sampling.

        **Arguments:**

        - `key`: of the draw.

        **Returns:** a function for one example, in inference mode: `jax.vmap(f)(x)`.
        """
        if not self.linearized:
            return eqx.nn.inference_mode(self.sample(key=key))
        draw, mean = eqx.nn.inference_mode(self.linearisation_point(key=key))
        return LinearizedModel(mean, draw, self.output_likelihood)

    def factorised(self) -> "AbstractPosterior":
        """The same distribution, with what all draws share computed once.

        `predict` draws in many calls, and asks for this before the first.
        """
        return self

    @property
    def num_atoms(self) -> int | None:
        """How many models this is a distribution over; `None` if infinitely many."""
        return None

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        """The model of this number, for a posterior of finitely many."""
        raise NotImplementedError(f"{type(self).__name__} has no finite support")


def first_known(likelihoods: Iterable[Likelihood | None]) -> Likelihood | None:
    """Return the likelihood of the first part that knows one: all parts share it."""
    return next((known for known in likelihoods if known is not None), None)


def part_linearisation_point(
    whole: AbstractPosterior, part: AbstractPosterior, *, key: PRNGKey
) -> tuple[Model, Model]:
    """Return the draw and the linearisation point of one part of several.

    Where others are linearised and this one is not, the linearised network at the draw
    itself is the network.
    """
    if whole.linearized and not part.linearized:
        draw = part.sample(key=key)
        return draw, draw
    return part.linearisation_point(key=key)


def chosen(params: PyTree, model: Model) -> PyTree:
    """The leaves of a model that `params` holds; `None` elsewhere, as there."""
    flags = jax.tree.map(
        lambda leaf: leaf is not None, params, is_leaf=lambda leaf: leaf is None
    )
    return eqx.filter(model, flags)
