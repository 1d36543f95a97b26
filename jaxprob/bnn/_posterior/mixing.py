"""R-hat and effective sample sizes of Markov chains."""

from typing import Any, Literal

import numpy as np
import scipy.special
import scipy.stats
from jaxtyping import Float

Kind = Literal["mean", "bulk", "tail"]
TAILS = (0.05, 0.95)


def rhat(values: Any) -> Float[np.ndarray, "*shape"]:
    r"""Return rank-normalised split $\hat R$ of chains: 1 where they agree.

    It is the larger of two: that of the normal scores of the ranks, which differences
    of location raise, and that of the distances from the median, which differences of
    scale raise. Values with an infinite variance are valid. A quantity that is the same
    in all draws has none: NaN. Below 1.01 chains have mixed.

    Weights of a network have symmetries that chains need not explore, so compare the
    outputs of the network as well, by `diagnose`.

    Reference: *Rank-normalization, folding, and localization: an improved $\hat R$ for
    assessing convergence of MCMC*, Vehtari, Gelman, Simpson, Carpenter and Bürkner,
    2021, https://arxiv.org/abs/1903.08008, section 3.1 and equation (14).

    **Arguments:**

    - `values`: chains and draws are the two leading axes; 4 draws of each at least.
    """
    halves = _split(_chains(values, least=4))
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    both = _plain_rhat(_scores(halves)), _plain_rhat(_scores(folded))
    return np.asarray(np.fmax(*both))


def ess(values: Any, kind: Kind = "mean") -> Float[np.ndarray, "*shape"]:
    """Return the effective sample size: independent draws of the same accuracy.

    References: *Bayesian data analysis*, Gelman et al., third edition, 2013, 11.5, for
    `"mean"`; Vehtari et al., 2021, https://arxiv.org/abs/1903.08008, sections 3.2 and
    4.3, for the others.

    **Arguments:**

    - `values`: chains and draws are the two leading axes; 2 draws of each at least, and
        4 for `"bulk"` and `"tail"`.
    - `kind`: of the `"mean"`; of the `"bulk"`, by normal scores of ranks in split
        chains, which is defined without a variance too; of the `"tail"`, the smaller
        one of the 5 % and the 95 % quantile.
    """
    if kind == "mean":
        return _effective(_chains(values, least=2))
    halves = _split(_chains(values, least=4))
    if kind == "bulk":
        return _effective(_scores(halves))
    if kind != "tail":
        raise ValueError(f"kind={kind!r}: it is 'mean', 'bulk' or 'tail'")
    ends = np.quantile(halves, TAILS, axis=(0, 1))
    below = [_effective((halves <= end).astype(np.float64)) for end in ends]
    return np.asarray(np.minimum(*below))


def _effective(values):
    from numpyro.diagnostics import effective_sample_size

    total = values.shape[0] * values.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.asarray(effective_sample_size(values))
    # The estimate is unbounded, with a random sign, for chains that alternate. Stan
    # bounds it by this limit.
    limit = total * np.log10(max(total, 10))
    return np.where((size <= 0) | (size > limit), limit, size)


def _plain_rhat(chains):
    num = chains.shape[1]
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    between = chains.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((num - 1) / num + between / within)


def _scores(chains):
    """Normal scores of the ranks among all draws, Blom's."""
    flat = chains.reshape(-1, *chains.shape[2:])
    ranks = scipy.stats.rankdata(flat, axis=0)
    scores = scipy.special.ndtri((ranks - 0.375) / (len(flat) + 0.25))
    return scores.reshape(chains.shape)


def _split(chains):
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def _chains(values, least):
    values = np.asarray(values)
    if values.ndim < 2 or values.shape[1] < least:
        raise ValueError(
            f"values has shape {values.shape}: its two leading axes are chains and "
            f"draws, and {least} draws of each chain are needed"
        )
    return values.astype(np.float64)
