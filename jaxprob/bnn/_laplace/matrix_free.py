"""Laplace's method for networks whose curvature fits in no form."""

import functools
import warnings
from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._training.gradient_descent import TrainState
from ..._types import PRNGKey, Where
from .._inference.map import MAP
from .._inference.training_batches import TrainingBatches
from .._joint.gaussian_prior import GaussianPrior
from .._joint.prior import Prior, log_prior
from .._weights.scale import is_traced
from .abstract_laplace import AbstractLaplace, check_no_batch_statistics
from .conjugate_gradients import Convergence, conjugate_gradients
from .curvature_covariance import split_precision
from .gauss_newton import GaussNewton, Noise
from .laplace_draws import LaplaceDraws
from .prior_precision import prior_precision

PROBES = 16
"""Draws of N(0, G) whose squares are the preconditioner's diagonal of G."""


class MatrixFreeLaplace(AbstractLaplace):
    r"""A Gaussian at the mode, by draws that need products with its precision only.

    $$z = \Lambda^{-1} b, \qquad b = \sum_i J_i^\top R_i^\top \epsilon_i
      + \mathrm{diag}(\tau)^{1/2} \epsilon_0, \qquad R_i^\top R_i = H_i$$

    b has the covariance $\Lambda = \sum_i J_i^\top H_i J_i + \mathrm{diag}(\tau)$, so z
    has $\Lambda^{-1}$: the posterior of `Laplace(..., structure="full")` without a
    matrix, a Jacobian or a factor. The systems are solved by conjugate gradients, each
    step of which is one pass over the data for `model_batch_size` draws together. The
    preconditioner is the diagonal of the precision, with that of G from 16 draws of
    $\mathcal N(0, G)$.

    Take it where the correlations matter and `Laplace` has no room for them; its
    Kronecker structure is much cheaper. The prior is fixed when the posterior is made:
    tune it on a smaller structure. Memory beside the draws is about 7 vectors of the
    weights for each draw of a batch, 5 more, and what one batch of rows needs.

    Reference: *Sampling-based inference for large linear models, with application to
    linearised Laplace*, Antorán, Padhy, Barbano, Nalisnick, Janz and Hernández-Lobato,
    2023, https://arxiv.org/abs/2210.04994.

    ```python
    method = MatrixFreeLaplace(MAP(log_joint, optax.adam(1e-3)), num_samples=16)
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=100)
    posterior = method.posterior(state, [(x, y)], key=key)
    predictive = predict(posterior, log_joint.likelihood, x_test, key=key)
    ```

    **Arguments:**

    - `method`: finds the mode.
    - `where`: the leaves it is over, as in `Laplace`.
    - `kind`: `"ggn"`, or `"fisher"` for the empirical Fisher matrix.
    - `num_samples`: S, systems that are solved. The posterior has each solution with
        both signs; a variance has a relative standard error of $\sqrt{2 / S}$.
    - `tolerance`: of $\|b - \Lambda z\| / \|b\|$, where each entry is divided by the
        root of the preconditioner.
    - `max_steps`: passes over the data at most, for each batch of draws.
    - `model_batch_size`: draws that are solved for together. It changes memory and
        time, and the draws by rounding alone.
    """

    method: MAP
    _: KW_ONLY
    where: Where | None = None
    kind: Literal["ggn", "fisher"] = "ggn"
    num_samples: int = 32
    tolerance: float = 1e-3
    max_steps: int = 500
    model_batch_size: int = 8

    def __check_init__(self):
        if self.kind not in ("ggn", "fisher"):
            raise ValueError(
                f"kind={self.kind!r}: it is 'ggn' or 'fisher', whose curvature has a "
                "root to draw with in each row. Write Laplace(..., kind='hessian')"
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(
                f"tolerance={self.tolerance}: a relative residual between 0 and 1, "
                "such as 1e-3"
            )
        numbers = {
            "num_samples": (self.num_samples, 2),
            "max_steps": (self.max_steps, 2),
            "model_batch_size": (self.model_batch_size, 1),
        }
        for name, (value, least) in numbers.items():
            if value < least:
                raise ValueError(f"{name}={value}: at least {least}")

    def check_prior_form(self, prior: Prior) -> None:
        if isinstance(prior, GaussianPrior):
            extra, _ = split_precision(prior.covariance)
            if extra is not None:
                raise ValueError(
                    "the prior is a Gaussian with correlations, and MatrixFreeLaplace "
                    "takes one that is independent in each weight: write "
                    "Laplace(..., structure='full'), or a prior from a posterior "
                    "with structure='diagonal'"
                )

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> LaplaceDraws:
        """Return the posterior from a pass over the training set for each step.

        **Arguments:**

        - `state`: of training.
        - `batches`: the training set, such as `[(x, y)]` or an `ArrayLoader`, with the
            same rows in each pass.
        - `key`: of the draws. They depend on the order of the rows too.

        **Raises:** `ValueError` without batches or key, inside of `jax.jit`, for a
        likelihood whose expected information is not known, and as `Laplace` for priors
        and batch statistics; `FloatingPointError` where the curvature is not finite.
        Warns where `max_steps` do not reach the tolerance.
        """
        if batches is None or key is None:
            raise ValueError(
                "MatrixFreeLaplace draws with the training data: write "
                "posterior(state, [(x, y)], key=key)"
            )
        check_key(key)
        model = self.model(state)
        check_no_batch_statistics(model)
        batches = TrainingBatches(self, model, batches)
        joint = self.method.log_joint
        model = self.unconstrained_leaves(model)
        flags = self.flags(model)
        params, rest = eqx.partition(model, flags)
        tau = prior_precision(joint.prior, params, temperature=joint.temperature)
        if is_traced(tau) or is_traced(key):
            raise ValueError(
                "MatrixFreeLaplace.posterior is called inside of a program, and its "
                "number of steps depends on values: call it outside of jax.jit"
            )
        curvature = GaussNewton(joint, model, flags, batches, self.kind)
        with jax.default_matmul_precision("highest"):
            diagonal, noise = self._diagonal(curvature, key)
            scale = tau + diagonal
            deviations, found = self._solutions(curvature, tau, scale, key)
        residuals = _joined([s.residuals for s in found], tau)
        self._warn_unless_solved(residuals)
        constant = jnp.nan
        if joint.temperature == 1.0:
            constant = noise.values[0] + log_prior(joint.prior, params)
            constant = constant + 0.5 * tau.size * jnp.log(2 * jnp.pi)
            constant = constant - 0.5 * jnp.sum(jnp.log(scale))
        logs = _joined([s.quadratures for s in found], tau)
        truncations = _joined([s.truncations for s in found], tau)
        return LaplaceDraws(
            params,
            rest,
            deviations,
            joint.likelihood,
            constant - 0.5 * logs,
            0.5 * jnp.mean(truncations),
            residuals,
            curvature.passes,
        )

    def _diagonal(
        self, curvature: GaussNewton, key: PRNGKey
    ) -> tuple[Float[Array, " dim"], Noise]:
        """Estimate the diagonal of G, and return the last pass with its values."""
        keys = _keys(jax.random.fold_in(key, 0), PROBES)
        total, noise = jnp.zeros(()), None
        for first in range(0, PROBES, self.model_batch_size):
            noise = curvature.noise(keys[first : first + self.model_batch_size])
            total = total + jnp.sum(noise.draws**2, axis=0)
        assert noise is not None
        if not np.all(np.isfinite(noise.values)) or not np.all(np.isfinite(total)):
            raise FloatingPointError(
                "the curvature of the log-likelihood is not finite at the mode, where "
                f"the log-likelihood is {noise.values[0]}: look at the scale of the "
                "data, or train with a lower learning rate"
            )
        return total / PROBES, noise

    def _solutions(
        self, curvature: GaussNewton, tau: Array, scale: Array, key: PRNGKey
    ) -> tuple[Float[Array, "samples dim"], list[Convergence]]:
        """Solve for the draws, a batch at a time, and return what is known of each."""
        noise_key, prior_key = jax.random.split(jax.random.fold_in(key, 1))
        noise_keys = _keys(noise_key, self.num_samples)
        prior_keys = _keys(prior_key, self.num_samples)

        def product(vectors):
            return _plus(curvature.product(vectors), tau, vectors)

        root = self.log_joint.temperature**0.5
        deviations = jnp.zeros((self.num_samples, tau.size), tau.dtype)
        found = []
        for first in range(0, self.num_samples, self.model_batch_size):
            part = slice(first, first + self.model_batch_size)
            b = curvature.noise(noise_keys[part]).draws
            b = _plus(b, jnp.sqrt(tau), _normals(prior_keys[part], tau))
            vectors, convergence = conjugate_gradients(
                product, b, scale, tolerance=self.tolerance, max_steps=self.max_steps
            )
            deviations = _put(deviations, root * vectors, first)
            found.append(convergence)
        return deviations, found

    def _warn_unless_solved(self, residuals):
        worst = float(jnp.max(residuals))
        failed = int(jnp.sum(residuals > self.tolerance))
        if failed:
            warnings.warn(
                f"{failed} of {self.num_samples} draws have not converged: their "
                f"residual is up to {worst:.1e}, and tolerance={self.tolerance:.1e}. "
                "The steps stop short of the draws, so that the posterior is too "
                f"narrow. Write a larger max_steps={self.max_steps}, or a tighter "
                "prior, which needs fewer steps; where more steps do not help, "
                "set jax_enable_x64",
                stacklevel=3,
            )


def _keys(key, num):
    return jax.vmap(lambda s: jax.random.fold_in(key, s))(jnp.arange(num))


@jax.jit
def _normals(keys, tau):
    return jax.vmap(lambda key: jax.random.normal(key, tau.shape, tau.dtype))(keys)


@jax.jit
def _plus(first, factor, second):
    return first + factor[None] * second


@functools.partial(jax.jit, donate_argnums=0)
def _put(rows, part, first):
    return jax.lax.dynamic_update_slice(rows, part, (first, 0))


def _joined(parts, tau):
    return jnp.asarray(np.concatenate(parts), tau.dtype)
