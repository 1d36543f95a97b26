"""R-hat and effective sample sizes against loops, invariances and known chains."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from jaxprob import bnn

from ...unhooked import unhooked

RNG = np.random.default_rng(0)


def by_hand(chains):
    """The R-hat of split chains, by loops over the formulas of the paper."""
    halves = []
    for chain in chains:
        half = len(chain) // 2
        halves += [list(chain[:half]), list(chain[-half:])]
    num = len(halves[0])
    means = [sum(h) / num for h in halves]
    variances = [
        sum((v - m) ** 2 for v in h) / (num - 1)
        for h, m in zip(halves, means, strict=True)
    ]
    within = sum(variances) / len(variances)
    grand = sum(means) / len(means)
    between = num / (len(means) - 1) * sum((m - grand) ** 2 for m in means)
    return np.sqrt(((num - 1) / num * within + between / num) / within)


def scores(chains):
    flat = sorted(v for chain in chains for v in chain)
    total = len(flat)

    def score(value):
        places = [i + 1 for i, v in enumerate(flat) if v == value]
        rank = sum(places) / len(places)
        return scipy.stats.norm.ppf((rank - 0.375) / (total + 0.25))

    return [[score(v) for v in chain] for chain in chains]


@pytest.mark.parametrize("draws", [8, 9])
def test_rhat_is_that_of_the_formulas(draws):
    chains = np.round(RNG.normal(size=(3, draws)), 1) * [[1.0], [2.0], [0.5]]
    half = draws // 2
    used = np.concatenate([chains[:, :half], chains[:, -half:]], 1)
    folded = np.abs(used - np.median(used))
    expected = max(by_hand(scores(used)), by_hand(scores(folded)))
    assert np.isclose(bnn.rhat(chains), expected, rtol=1e-12)


def test_ranks_make_rhat_invariant():
    chains = RNG.normal(size=(4, 50)) + np.array([[0.0], [0.0], [0.0], [2.0]])
    wild = np.sinh(5 * chains)
    location = bnn.rhat(chains), bnn.rhat(wild)
    assert min(location) > 1.1
    assert np.isclose(bnn.ess(chains, "bulk"), bnn.ess(wild, "bulk"))
    assert np.isclose(bnn.ess(chains, "tail"), bnn.ess(wild, "tail"))


def test_chains_of_different_spread_are_noticed():
    chains = RNG.normal(size=(4, 500)) * [[1.0], [1.0], [1.0], [4.0]]
    assert by_hand(scores(chains[:, :50])) < 1.1  # the means agree
    assert bnn.rhat(chains) > 1.1
    assert bnn.rhat(RNG.normal(size=(4, 500))) < 1.01
    assert np.isnan(bnn.rhat(np.ones((4, 8))))


def test_effective_sizes_of_an_autoregression():
    """(1 - a) / (1 + a) of the draws for the mean; more in the tails."""
    a, num = 0.8, 20_000
    x = np.zeros((4, num))
    noise = RNG.normal(size=(4, num))
    for i in range(1, num):
        x[:, i] = a * x[:, i - 1] + np.sqrt(1 - a**2) * noise[:, i]
    expected = 4 * num * (1 - a) / (1 + a)
    assert np.isclose(bnn.ess(x), expected, rtol=0.1)
    assert np.isclose(bnn.ess(x, "bulk"), expected, rtol=0.1)
    # The indicator's autocorrelation at lag k is that of two normals at a**k.
    end = scipy.stats.norm.ppf(0.05)

    def both(correlation):
        """The probability that both of two normals are in the tail."""
        cov: Any = [[1.0, correlation], [correlation, 1.0]]
        return scipy.stats.multivariate_normal.cdf([end, end], cov=cov)

    lags = 1.0 + 2.0 * sum((both(a**k) - 0.05**2) / (0.05 * 0.95) for k in range(1, 30))
    assert np.isclose(bnn.ess(x, "tail"), 4 * num / lags, rtol=0.1)


def test_wrong_values():
    with pytest.raises(ValueError, match="4 draws of each chain"):
        bnn.ess(np.ones((2, 3)), "tail")
    wrong: Any = "median"
    with unhooked(), pytest.raises(ValueError, match="'mean', 'bulk' or 'tail'"):
        bnn.ess(np.ones((2, 4)), wrong)
