"""Chains that agree and chains that do not; a contraction that is known."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import bnn
from jaxprob.report import posterior_report

from .page import check

X = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]


class Line(eqx.Module):
    slope: jax.Array

    def __call__(self, x):
        return self.slope * x


def draws(shift=0.0, scale=0.5, **stats):
    values = scale * np.random.default_rng(0).normal(size=(4, 200))
    values = values + shift * np.arange(4)[:, None]
    nothing: Any = None
    sample_stats: Any = stats
    return bnn.DrawsPosterior(
        Line(jnp.asarray(values, jnp.float32)), Line(nothing), sample_stats
    )


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, "The chains agree"), (3.0, "The chains do not agree")]
)
def test_the_verdict_on_chains(shift, verdict):
    page = check(posterior_report(draws(shift), x=X).html)
    assert verdict in page.words
    largest, least = map(float, page.row("the function"))
    found = bnn.diagnose(draws(shift), X).function
    assert (largest, least) == pytest.approx(found, rel=1e-3)


@pytest.mark.slow
def test_the_contraction_of_a_leaf():
    prior = bnn.PriorModels(Line(jnp.zeros(())), bnn.IsotropicNormal(2.0))
    page = check(posterior_report(draws(), x=X, prior=prior).html)
    before, after, contraction = map(float, page.row("slope", 3))
    assert before == pytest.approx(2.0, rel=0.15)
    assert after == pytest.approx(0.5, rel=0.15)
    assert contraction == pytest.approx(1 - after / before, abs=1e-3)
    assert page.tags.count("svg") == 2
    noisy = posterior_report(
        draws(), x=X, prior=prior, likelihood=bnn.NormalLikelihood(0.1)
    )
    assert "first target in row 0" in noisy.html


def test_statistics_and_derived_quantities():
    stats: dict[str, Any] = {
        "log_density": jnp.asarray(np.random.default_rng(1).normal(size=(4, 200))),
        "divergent": jnp.zeros((4, 200)).at[1, 5].set(1.0),
    }
    report = posterior_report(
        draws(**stats), functions={"square": lambda model: model.slope**2}
    )
    page = check(report.html)
    assert "1 transitions diverged" in page.words
    assert float(page.row("square")[0]) == pytest.approx(0.25, rel=0.15)


def test_a_posterior_that_is_sampled_has_no_chains():
    prior = bnn.PriorModels(Line(jnp.zeros(())), bnn.IsotropicNormal(2.0))
    page = check(posterior_report(prior, x=X).html)
    assert "chains" not in page.words
