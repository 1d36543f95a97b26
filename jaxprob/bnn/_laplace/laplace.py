"""Laplace's method: the mode, and the curvature of the log joint there."""

from collections.abc import Iterable
from dataclasses import KW_ONLY

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._training.gradient_descent import TrainState
from ..._types import Model, PRNGKey, Where
from .._inference.map import MAP
from .._inference.training_batches import TrainingBatches
from .._joint.likelihood import gaussian_noise
from .._joint.output_hessian import Kind
from .._joint.prior import Prior
from .._weights.scale import is_traced
from .abstract_laplace import AbstractLaplace, check_no_batch_statistics
from .check_curvature import (
    check_columns,
    check_curvature,
    check_precision,
    warn_if_flat,
    warn_of_left_out,
    without_negative,
)
from .curvature_pass import Structure, curvature
from .kronecker import Sharing
from .kronecker_curvature import KroneckerCurvature
from .low_rank import LowRankCurvature
from .posterior import LaplacePosterior
from .prior_precision import check_structure, posterior_precision, prior_precision


class Laplace(AbstractLaplace):
    r"""A Gaussian at the mode, with the curvature of the log joint as precision.

    $$q(w) = \mathcal N(\hat w, \Lambda^{-1}), \qquad \Lambda = \sum_i J_i^\top H_i J_i
      + \mathrm{diag}(\tau)$$

    J is the Jacobian of the output and H the curvature of the log-likelihood in it: the
    expected (Fisher) information, which makes $\Lambda$ the generalised Gauss-Newton
    matrix, the same for logits and for probabilities and in all units. Mixtures,
    zero-inflated counts and user-defined distributions have no known information; their
    H is the negative Hessian at y, and negative eigenvalues of the sum over the rows
    are set to zero, with a warning that gives their fraction.

    Of a leaf whose prior has an edge this is the Gaussian of its unconstrained
    coordinates u, at the mode of their density (see `MAP`): $J$ and $\tau$ are
    derivatives in u, and draws are mapped back to the support.

    `predict` uses the network linearised at the mode, the model whose posterior this
    approximates; `linearized=False` there samples weights instead, which underfits
    badly for networks.

    References: *A practical Bayesian framework for backpropagation networks*, MacKay,
    1992; *Laplace redux*, Daxberger et al., 2021, https://arxiv.org/abs/2106.14806;
    *Improving predictions of Bayesian neural nets via local linearization*, Immer,
    Korzepa and Bauer, 2021, https://arxiv.org/abs/2008.08400.

    ```python
    method = Laplace(MAP(log_joint, optax.adam(1e-3)), structure="kronecker")
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_epochs=100)
    posterior = tune_prior(method.posterior(state, [(x, y)]))
    ```

    **Arguments:**

    - `method`: finds the mode.
    - `structure`: of $G$: `"full"` to a few thousand weights; `"kronecker"`, one factor
        pair for each layer, also inside loops and `vmap`, and the exact block of each
        vector; `"low_rank"`, the leading eigenvectors; `"diagonal"` for any size,
        without correlations. `MatrixFreeLaplace` has all correlations at any size.
    - `where`: the leaves it is over (see `jaxprob.tree`), such as the last layer; all
        random leaves of `method` by default. Others stay at the mode.
    - `kind`: `"ggn"`; `"hessian"`, of the log joint in the weights itself, for the full
        structure and a mode that has been reached; or `"fisher"` for the empirical
        Fisher matrix.
    - `rank`: how many eigenvectors `"low_rank"` keeps.
    - `sharing`: how `"kronecker"` sums over the uses of weights that a row uses several
        times, such as tokens, places and steps. `"expand"` takes them for independent:
        exact for one linear layer and a loss of each use; `"reduce"` for equal: exact
        for a loss of their mean (Eschenhagen et al., 2023,
        https://arxiv.org/abs/2311.00636). The default `"scaled"` is `"expand"` times
        the number that gives it the trace of the exact block.
    """

    method: MAP
    structure: Structure = "full"
    _: KW_ONLY
    where: Where | None = None
    kind: Kind = "ggn"
    rank: int = 20
    sharing: Sharing = "scaled"

    def __check_init__(self):
        if self.structure not in ("full", "diagonal", "kronecker", "low_rank"):
            raise ValueError(
                f"structure={self.structure!r}: it is 'full', 'kronecker', 'low_rank' "
                "or 'diagonal'"
            )
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: at least one")
        if self.sharing not in ("scaled", "expand", "reduce"):
            raise ValueError(
                f"sharing={self.sharing!r}: it is 'scaled', 'expand' or 'reduce'"
            )
        if self.kind not in ("ggn", "hessian", "fisher"):
            raise ValueError(f"kind={self.kind!r}: it is 'ggn', 'hessian' or 'fisher'")
        if self.kind == "hessian" and self.structure != "full":
            raise ValueError(
                f"kind='hessian' with structure={self.structure!r}: the Hessian has no "
                "positive parts to be made of. Write structure='full', for a few "
                "thousand weights (a last layer, by `where`), or kind='ggn'"
            )

    def check_prior_form(self, prior: Prior) -> None:
        check_structure(prior, self.structure)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> LaplacePosterior:
        posterior = super().infer(model, data, key=key, num_steps=num_steps)
        assert isinstance(posterior, LaplacePosterior)
        return posterior

    def posterior(
        self,
        state: TrainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> LaplacePosterior:
        """Return the posterior from one pass over the training set.

        **Arguments:**

        - `state`: of training.
        - `batches`: the training set, such as `[(x, y)]` or an `ArrayLoader`. Its rows
            are checked as in `jaxprob.fit`, and counted.

        **Raises:** `ValueError` without batches, for a prior that is not concave at the
        mode or has no form in this structure, and for batch statistics in training;
        `FloatingPointError` where the curvature, or the root of the precision in this
        dtype, is not finite, or where a Hessian has negative eigenvalues that the prior
        does not outweigh. Warns where there is no curvature at all, where more than
        1 % of it was negative and is set to zero, and where a low rank leaves out
        directions that the data determine.
        """
        if batches is None:
            raise ValueError(
                "batches=None: Laplace computes the curvature from the training data. "
                "Write posterior(state, batches), such as posterior(state, [(x, y)])"
            )
        model = self.model(state)
        check_no_batch_statistics(model)
        batches = TrainingBatches(self, model, batches)
        joint = self.method.log_joint
        model = self.unconstrained_leaves(model)
        flags = self.flags(model)
        params, rest = eqx.partition(model, flags)
        # GPUs round the factors of a product to ten bits by default. Where the largest
        # eigenvalue is a million times the precision of the prior, no digit is left.
        tau = prior_precision(joint.prior, params, temperature=joint.temperature)
        with jax.default_matmul_precision("highest"):
            found = curvature(
                joint,
                model,
                flags,
                batches,
                tau,
                structure=self.structure,
                kind=self.kind,
                rank=self.rank,
                sharing=self.sharing,
            )
        log_likelihood, slopes = found.values
        matrix = found.curvature
        negative = 0.0
        traced = is_traced(tau) or is_traced(log_likelihood)
        if not traced:
            check_curvature(matrix, log_likelihood)
            if self.kind == "ggn" and not found.is_expected:
                matrix, negative = without_negative(matrix, tau)
        posterior = LaplacePosterior(
            params,
            rest,
            matrix,
            joint.prior,
            joint.likelihood,
            log_likelihood,
            _squares(joint.likelihood, slopes),
            found.num_targets,
            joint.temperature,
            self.kind,
        )
        if not traced:
            whole, _ = posterior_precision(
                matrix, joint.prior, params, temperature=joint.temperature
            )
            check_precision(whole, tau, self.kind)
            if not negative:
                warn_if_flat(matrix)
            if isinstance(matrix, LowRankCurvature):
                warn_of_left_out(matrix, tau)
            if isinstance(whole, KroneckerCurvature):
                check_columns(whole, tau)
        return posterior


def _squares(likelihood, slopes):
    """The sum of squared residuals, from squared slopes of the log-likelihood."""
    scale = gaussian_noise(likelihood)
    if scale is None:
        return None
    variance = scale.astype(slopes.dtype) ** 2
    return slopes * variance * variance
