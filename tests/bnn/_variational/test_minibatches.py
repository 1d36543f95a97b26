"""The step of a minibatch is that of all rows in the mean, exactly, in every method.

Steps here are linear in the gradient (plain SGD), and the noise is that of one key: the
mean over all batches of an epoch is the step of the whole data set to the last bits.
Dropout and the estimators that draw for each row are left out: their noise goes with a
row's place in the batch, and only its mean is the same.
"""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian

ROWS = 30
SGD = optax.sgd(1.0)

METHODS = {
    "MAP": lambda joint: bnn.MAP(joint, SGD),
    "MeanFieldVI": lambda joint: bnn.MeanFieldVI(joint, SGD, num_samples=2),
    "MeanFieldVI, sticking": lambda joint: bnn.MeanFieldVI(
        joint, SGD, stick_the_landing=True
    ),
    "LowRankVI": lambda joint: bnn.LowRankVI(joint, SGD, rank=2),
    "FullRankVI": lambda joint: bnn.FullRankVI(joint, SGD),
    "IVON": lambda joint: bnn.IVON(joint, 1e-2, num_samples=2),
    "AnchoredMAP": lambda joint: bnn.AnchoredMAP(joint, SGD),
    "DeepEnsemble": lambda joint: bnn.DeepEnsemble(bnn.AnchoredMAP(joint, SGD), 2),
    "SGLD": lambda joint: bnn.SGLD(
        joint, 0.5, num_warmup=9, thin=1, num_draws=1, num_chains=2
    ),
    "SGHMC": lambda joint: bnn.SGHMC(
        joint, 0.5, num_warmup=9, thin=1, num_draws=1, num_chains=2
    ),
}


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        return LinearGaussian.random(key=jax.random.key(1), num_data=ROWS, dim=3)


def stepper(name, problem, temperature):
    """`move(batch)`: all floating-point numbers of the state after a step."""
    method = METHODS[name](problem.log_joint(temperature=temperature))
    model = problem.model(key=jax.random.key(2))
    state = eqx.filter_jit(method.init)(model, key=jax.random.key(3))

    @eqx.filter_jit
    def move(batch):
        if name == "IVON":  # whose step is no linear function of the gradient
            out = method.gradient(state, batch, key=jax.random.key(4))
        else:
            out, _ = method.update(state, batch, key=jax.random.key(4))
        return ravel_pytree(eqx.filter(out, eqx.is_inexact_array))[0]

    return move


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("name", METHODS)
def test_batches_of_any_size_average_to_all_rows(x64, problem, name, temperature):
    """Batches of 1 and 7 rows, the last one short; twice the rows; another order."""
    move = stepper(name, problem, temperature)
    x, y = (np.concatenate([a, a]) for a in (problem.x, problem.y))
    place = np.arange(2 * ROWS)
    full = np.asarray(move(jaxprob.Batch((x, y), place < ROWS)))
    scale = 1.0 + np.abs(full)
    order = np.random.default_rng(0).permutation(ROWS)
    for size in (1, 7):
        total = np.zeros_like(full)
        for start in range(0, ROWS, size):
            rows = order[start : start + size]
            out = move(jaxprob.Batch((x, y), np.isin(place, rows)))
            total += len(rows) / ROWS * np.asarray(out)
        assert np.all(np.abs(total - full) < 1e-10 * scale), size
    # N stays what it is: twice the rows weigh half each.
    twice = move(jaxprob.Batch((x, y), np.ones(2 * ROWS, bool)))
    assert np.all(np.abs(twice - full) < 1e-10 * scale)
    mixed = np.concatenate([order, np.arange(ROWS)])
    permuted = move(jaxprob.Batch((x[mixed], y[mixed]), place < ROWS))
    assert np.all(np.abs(permuted - full) < 1e-10 * scale)
    # Padding may hold anything, and takes part in no gradient.
    blank = np.where(place < ROWS, 1.0, np.nan)
    padded = move(jaxprob.Batch((x * blank[:, None], y * blank), place < ROWS))
    assert np.all(np.abs(padded - full) < 1e-10 * scale)
    # One row alone is another step, or nothing was compared.
    alone = move(jaxprob.Batch((x, y), place < 1))
    assert np.any(np.abs(alone - full) > 1e-3)
