"""Errors of each method on problems with a known posterior.

    python -m benchmarks.certificate [--quick] [--only NAME]

First linear regression, whose posterior is exact, and logistic regression, whose
moments are known by quadrature: the largest error of a posterior mean in posterior
standard deviations, the ratios of the marginal variances, and the error of the log
evidence: Laplace's own estimate, or the bound of a posterior that has a density, which
the log evidence exceeds. Then a network of 25 weights in function space, where long
NUTS chains stand for the posterior (the first table of `benchmarks.fidelity`, which
explains it). Last, simulation-based calibration of the samplers: p-values of the ranks
of the truth, which are small where draws are not from the posterior.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import bnn
from jaxprob.testing import (
    LinearGaussian,
    LogisticRegression,
    rank_p_values,
    simulated_ranks,
)

from ._methods import fit, floats, methods, show
from .fidelity import regression


def moments(problem, num_steps, only):
    """Each method against the exact mean, variances and evidence of a problem."""
    exact_mean, exact = np.asarray(problem.mean), np.diag(problem.covariance)
    joint, data = problem.log_joint(), (problem.x, problem.y)
    rows = {}
    for name, (method, steps, size) in methods(joint, num_steps, 1.0, only).items():
        model = problem.model(key=jax.random.key(2))
        posterior, seconds = fit(method, steps, size, model, data, jax.random.key(3))

        def draw(key, q=posterior):
            model = q.sample(key=key)
            return problem.vector(model), _bound(q, model, joint, data)

        keys = jax.random.split(jax.random.key(4), 20_000)
        draws, bounds = (np.asarray(a) for a in jax.jit(jax.vmap(draw))(keys))
        ratio = draws.var(0) / exact
        rows[name] = {
            "mean_error": np.abs((draws.mean(0) - exact_mean) / exact**0.5).max(),
            "variance_low": ratio.min(),
            "variance_high": ratio.max(),
            "seconds": seconds,
        }
        if isinstance(posterior, bnn.LaplacePosterior):
            error = posterior.log_evidence() - problem.log_evidence
            rows[name]["evidence_error"] = error
        elif np.isfinite(bounds).all():
            rows[name]["evidence_error"] = bounds.mean() - problem.log_evidence
    return rows


def _bound(posterior, model, joint, data):
    """log p(D, w) - log q(w) of a draw, whose mean is the evidence lower bound."""
    try:
        density = posterior.log_prob(model)
    except NotImplementedError:
        return jnp.asarray(jnp.nan)
    return joint(model, data, key=jax.random.key(0)) - density


def conjugate(num_steps, only):
    """Rows of the first table."""
    problem = LinearGaussian.random(key=jax.random.key(1), num_data=40, dim=4)
    rows = moments(problem, num_steps, only)
    field = np.asarray(problem.mean_field_variance) / np.diag(problem.covariance)
    rows["(best factorised Gaussian)"] = {
        "mean_error": 0.0,
        "variance_low": field.min(),
        "variance_high": field.max(),
        "evidence_error": problem.mean_field_elbo - problem.log_evidence,
    }
    return {name: floats(row) for name, row in rows.items()}


def logistic(num_steps, only):
    """Rows of the second table."""
    problem = LogisticRegression.random(key=jax.random.key(8), num_data=40, dim=3)
    rows = moments(problem, num_steps, only)
    return {name: floats(row) for name, row in rows.items()}


def calibration(only):
    """Rows of the fourth table: 500 data sets, 15 draws for each, three parameters."""
    problem = LinearGaussian.random(key=jax.random.key(3), num_data=12, dim=2)
    rows = {}
    for name, method in samplers(problem.log_joint(), 15).items():
        if not name.startswith(only):
            continue
        begin = time.perf_counter()
        ranks = simulated_ranks(method, problem, key=jax.random.key(5))
        values = np.array([rank_p_values(column, 15) for column in ranks.T])
        rows[name] = {
            "least_chi2_p": values[:, 0].min(),
            "least_band_p": values[:, 1].min(),
            "seconds": time.perf_counter() - begin,
        }
    return {name: floats(row) for name, row in rows.items()}


def samplers(joint, draws):
    """One chain each, with draws as good as independent of each other."""
    return {
        "NUTS": bnn.NUTS(
            joint,
            num_warmup=0,
            num_draws=draws,
            num_chains=1,
            thin=8,
            step_size=0.1,
            max_doublings=5,
        ),
        "HMC": bnn.HMC(
            joint,
            num_leapfrog=12,
            num_warmup=0,
            num_draws=draws,
            num_chains=1,
            thin=12,
            step_size=0.1,
        ),
        "MCLMC": bnn.MCLMC(
            joint,
            num_warmup=0,
            num_draws=draws,
            num_chains=1,
            thin=60,
            step_size=0.2,
            trajectory_length=1.5,
        ),
        "AdjustedMCLMC": bnn.AdjustedMCLMC(
            joint,
            num_steps_each=6,
            num_warmup=0,
            num_draws=draws,
            num_chains=1,
            thin=12,
            step_size=0.2,
        ),
        "SGLD": bnn.SGLD(
            joint, 1e-2, num_warmup=2000, thin=800, num_draws=draws, initial="prior"
        ),
        "SGHMC": bnn.SGHMC(
            joint,
            6e-3,
            num_warmup=500,
            thin=150,
            num_draws=draws,
            friction=0.15,
            initial="prior",
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the steps")
    parser.add_argument("--only", help="methods whose name begins so, and references")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    only, num_steps = args.only or "", 2000 if args.quick else 6000
    figures = {"conjugate": conjugate(num_steps, only)}
    show("Linear regression (ratios of 1 are exact)", figures["conjugate"])
    figures["logistic"] = logistic(num_steps, only)
    show("Logistic regression (ratios of 1 are exact)", figures["logistic"])
    figures["network"] = regression(num_steps, only)
    show("Network of 25 weights, against NUTS", figures["network"])
    figures["calibration"] = calibration(only)
    show("Simulation-based calibration", figures["calibration"])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
