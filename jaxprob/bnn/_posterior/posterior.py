"""Base class of posteriors: distributions over models of the user's class."""

import abc
from collections.abc import Callable, Iterable

import equinox as eqx
from jaxtyping import Array, Float, Integer, PyTree

from ..._types import Model, PRNGKey
from .._joint.gaussian_prior import GaussianPrior
from .._joint.likelihood import Likelihood
from .linearized import LinearizedModel


class AbstractPosterior(eqx.Module):
    """Base class of distributions over models.

    A draw is a model of the user's class. A posterior of finitely many models (a point,
    an ensemble, the draws of a chain) has their number as `num_atoms` and returns the
    i-th by `atom(i)`; `predict` then uses each once instead of drawing.
    """

    @abc.abstractmethod
    def sample(self, *, key: PRNGKey) -> Model:
        """Draw one model."""

    @abc.abstractmethod
    def mean(self) -> Model:
        """Return the model whose random leaves are their posterior means.

        Of a Gaussian over unconstrained coordinates it is the model at the mean of
        these: the median of a positive or bounded number. Of finitely many models it is
        their average.
        """

    def log_prob(self, model: Model) -> Float[Array, ""]:
        """Return the log-density of the random leaves of a model, in nats.

        It is a density of the constrained values, and so contains the Jacobian of a
        leaf that the posterior holds in unconstrained coordinates.
        """
        raise NotImplementedError(f"{type(self).__name__} has no density")

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        """Return a Gaussian posterior as the prior of further data, for any method.

        ```python
        prior = posterior.as_prior()
        next_joint = bnn.LogJoint(likelihood, prior, num_data=len(x))
        ```

        **Arguments:**

        - `temperature`: T of the `LogJoint` that has this prior, which raises it to
            1/T. The covariance is divided by T before, so that a stream of data sets
            at one temperature gives the posterior of all of them.

        **Raises:** `NotImplementedError` where the posterior is no Gaussian.
        """
        raise NotImplementedError(
            f"{type(self).__name__} is no Gaussian, and only a Gaussian becomes the "
            "prior of other data: take Laplace, SWAG or variational inference"
        )

    @property
    def linearized(self) -> bool:
        """True if `predict` linearises the model by default."""
        return False

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw and the model around which `predict` linearises it.

        The second is the mean, but each component of a mixture has its own.
        """
        return self.sample(key=key), self.mean()

    @property
    def output_likelihood(self) -> Likelihood | None:
        """Likelihood of a linearised posterior; `None` if it is not known."""
        return None

    def sample_function(self, *, key: PRNGKey) -> Callable[..., PyTree]:
        """Draw one function x -> output, as `predict` uses it.

        It is the model that `sample` draws, or its linearisation where `predict`
        linearises by default (Laplace): there a network with the drawn weights varies
        much more than the posterior does. Use it for Thompson sampling.

        **Arguments:**

        - `key`: of the draw.

        **Returns:** a function for one example, in inference mode: `jax.vmap(f)(x)`.
        """
        if not self.linearized:
            return eqx.nn.inference_mode(self.sample(key=key))
        draw, mean = eqx.nn.inference_mode(self.linearisation_point(key=key))
        return LinearizedModel(mean, draw, self.output_likelihood)

    def factorised(self) -> "AbstractPosterior":
        """Return the same distribution, with the common part of all draws computed.

        `predict` draws in many calls and uses this, e.g. with a Cholesky factor.
        """
        return self

    @property
    def num_atoms(self) -> int | None:
        """Number of models with positive probability; `None` if infinitely many."""
        return None

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        """Return the model of this index, for a posterior of finitely many."""
        raise NotImplementedError(f"{type(self).__name__} has no finite support")

    def atom_linearisation_point(
        self, index: int | Integer[Array, ""]
    ) -> tuple[Model, Model]:
        """Return the model of this index and the model around which it is linearised.

        See `linearisation_point`.
        """
        return self.atom(index), self.mean()


def first_known(likelihoods: Iterable[Likelihood | None]) -> Likelihood | None:
    """Return the first known likelihood of several parts, which share it."""
    return next((known for known in likelihoods if known is not None), None)


def part_linearisation_point(
    whole: AbstractPosterior, part: AbstractPosterior, *, key: PRNGKey
) -> tuple[Model, Model]:
    """Return the draw and the linearisation point of one part of several.

    Where other parts are linearised and this one is not, its linearisation point is the
    draw itself, at which the linearised network is the network.
    """
    if whole.linearized and not part.linearized:
        draw = part.sample(key=key)
        return draw, draw
    return part.linearisation_point(key=key)


def part_atom_linearisation_point(
    whole: AbstractPosterior,
    part: AbstractPosterior,
    index: int | Integer[Array, ""],
) -> tuple[Model, Model]:
    """Return an atom of one part of several, and its linearisation point.

    As in `part_linearisation_point`.
    """
    if whole.linearized and not part.linearized:
        model = part.atom(index)
        return model, model
    return part.atom_linearisation_point(index)
