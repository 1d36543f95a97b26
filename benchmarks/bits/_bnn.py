"""Rows of `jaxprob.bnn`: every inference method on a small network."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jaxprob
from jaxprob import bnn

from ._problems import ConvNet, batch_normed, dropped, images, mlp, regression

SGD = optax.sgd(1e-2)
ADAM = optax.adam(1e-2)
EPOCHS = 2


def joint(num_data=8):
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data)


def through(make, model, data):
    """Return the model, a draw and the predictive after a few steps of training."""
    x, y = data
    method = make(joint(len(y)))
    fit_key, posterior_key, draw_key, predict_key = jax.random.split(
        jax.random.key(3), 4
    )
    length: dict = {"num_epochs": EPOCHS, "batch_size": 4}
    if isinstance(method, bnn.AbstractChains):
        # Hamiltonian methods need all rows in each step.
        rows = len(y) if isinstance(method, bnn.AbstractHamiltonian) else 4
        length = {"num_steps": method.num_steps, "batch_size": rows}
    state, history = jaxprob.fit(
        method, model(), data, key=fit_key, progress=False, **length
    )
    posterior = method.posterior(state, [data], key=posterior_key)
    return {
        "history": history,
        "model": method.model(state),
        **judged(posterior, x, y, draw_key, predict_key),
    }


def evaluated():
    """Return what methods of different kinds evaluate to."""
    methods = ("MAP", "DeepEnsemble", "MeanFieldVI", "FullRankVI", "IVON", "SGLD")
    x, y = regression()
    found = {}
    for name in methods:
        method = METHODS[name](joint())

        @eqx.filter_jit
        def evaluate(model, method=method):
            state = method.init(model, key=jax.random.key(8))
            return method.evaluate(state, (x, y), key=jax.random.key(9))

        found[name] = evaluate(mlp())
    return found


def judged(posterior, x, y, draw_key, predict_key):
    """Return a draw of a posterior and its predictive for some rows."""
    num = None if posterior.num_atoms is not None else 4
    likelihood = joint().likelihood
    predictive = bnn.predict(posterior, likelihood, x, key=predict_key, num_samples=num)
    return {
        "sample": eqx.filter_jit(lambda p, key: p.sample(key=key))(posterior, draw_key),
        "mean": predictive.mean,
        "variance": predictive.variance,
        "epistemic": predictive.epistemic,
        "log_prob": predictive.log_prob(y),
    }


def mean_field(estimator: Any = "weight", **settings):
    return lambda j: bnn.MeanFieldVI(j, ADAM, estimator=estimator, **settings)


def laplace(structure: Any = "full", kind: Any = "ggn", **settings):
    return lambda j: bnn.Laplace(bnn.MAP(j, ADAM), structure, kind=kind, **settings)


METHODS = {
    "MAP": lambda j: bnn.MAP(j, ADAM),
    "MAP, average": lambda j: bnn.MAP(j, ADAM, ema=jaxprob.EMA(0.9)),
    "MAP, last layer": lambda j: bnn.MAP(j, ADAM, random="layers.1", point=False),
    "AnchoredMAP": lambda j: bnn.AnchoredMAP(j, ADAM),
    "DeepEnsemble": lambda j: bnn.DeepEnsemble(bnn.MAP(j, ADAM), 3),
    "DeepEnsemble, loop": lambda j: bnn.DeepEnsemble(
        bnn.MAP(j, ADAM), 3, members="loop"
    ),
    "DeepEnsemble of MeanFieldVI": lambda j: bnn.DeepEnsemble(
        bnn.MeanFieldVI(j, ADAM), 2
    ),
    "DeepEnsemble of AnchoredMAP": lambda j: bnn.DeepEnsemble(
        bnn.AnchoredMAP(j, ADAM), 2
    ),
    "DeepEnsemble of SWAG": lambda j: bnn.DeepEnsemble(
        bnn.SWAG(bnn.MAP(j, SGD), num_warmup=0, thin=1, rank=3), 2
    ),
    "DeepEnsemble of Laplace": lambda j: bnn.DeepEnsemble(
        bnn.Laplace(bnn.MAP(j, ADAM)), 2
    ),
    "MeanFieldVI": mean_field(),
    "MeanFieldVI, stick the landing": mean_field(num_samples=2, stick_the_landing=True),
    "MeanFieldVI, flipout": mean_field("flipout"),
    "MeanFieldVI, local": mean_field("local"),
    "LowRankVI": lambda j: bnn.LowRankVI(j, ADAM, rank=3),
    "FullRankVI": lambda j: bnn.FullRankVI(j, ADAM),
    "IVON": lambda j: bnn.IVON(j, 0.1, beta2=0.9, point_optimizer=SGD),
    "Laplace, full": laplace(),
    "Laplace, diagonal": laplace("diagonal"),
    "Laplace, Kronecker": laplace("kronecker"),
    "Laplace, low rank": laplace("low_rank", rank=3),
    "Laplace, full Fisher": laplace(kind="fisher"),
    "Laplace, diagonal Fisher": laplace("diagonal", "fisher"),
    "Laplace, Kronecker Fisher": laplace("kronecker", "fisher"),
    "Laplace, low-rank Fisher": laplace("low_rank", "fisher", rank=3),
    "Laplace, Hessian of the last layer": laplace(kind="hessian", where="layers.1"),
    "SWAG": lambda j: bnn.SWAG(bnn.MAP(j, SGD), num_warmup=0, thin=1, rank=3),
    "SWAG, diagonal": lambda j: bnn.SWAG(bnn.MAP(j, SGD), num_warmup=1, thin=1, rank=0),
    "SGLD": lambda j: bnn.SGLD(j, 1e-2, num_warmup=1, thin=2, num_draws=3),
    "SGLD, two chains": lambda j: bnn.SGLD(
        j, 1e-2, num_warmup=1, thin=2, num_draws=3, num_chains=2
    ),
    "SGLD, cyclical": lambda j: bnn.SGLD(
        j,
        bnn.CosineCycles(1e-2, length=4, num_draws=2),
        num_warmup=0,
        thin=1,
        num_draws=4,
    ),
    "SGHMC": lambda j: bnn.SGHMC(j, 1e-3, num_warmup=1, thin=2, num_draws=3),
    "HMC": lambda j: bnn.HMC(
        j, num_leapfrog=3, num_warmup=6, num_draws=4, num_chains=2, initial="model"
    ),
    "HMC, without warm-up": lambda j: bnn.HMC(
        j, num_leapfrog=3, num_warmup=0, num_draws=4, num_chains=2, step_size=0.01
    ),
    "NUTS": lambda j: bnn.NUTS(
        j, num_warmup=6, num_draws=4, num_chains=2, max_doublings=3
    ),
    "MCLMC": lambda j: bnn.MCLMC(j, num_warmup=6, num_draws=4, num_chains=2, thin=2),
    "Blocks": lambda j: bnn.Blocks(
        bnn.MAP(j, ADAM),
        {"layers.0": bnn.FullRankVI(j, ADAM), "layers.1": laplace()(j)},
        num_steps=3,
    ),
    "Blocks, chains": lambda j: bnn.Blocks(
        bnn.MAP(j, ADAM),
        {"layers.1": bnn.SGLD(j, 1e-3, num_warmup=1, thin=1, num_draws=3)},
    ),
}

DROPOUT = {
    "MCDropout": lambda j: bnn.MCDropout(bnn.MAP(j, ADAM)),
    "MAP of dropout": METHODS["MAP"],
}

NORMED = {name: METHODS[name] for name in ("MAP", "SWAG", "SGLD")}

CONVOLUTIONS = {
    name: METHODS[name]
    for name in (
        "MAP",
        "DeepEnsemble",
        "MeanFieldVI, flipout",
        "Laplace, Kronecker",
    )
}


def mixture():
    """Return what a mixture of two Laplace approximations predicts."""
    data = regression()
    method = laplace()(joint())
    parts = []
    for seed in range(2):
        state, _ = jaxprob.fit(
            method,
            mlp(seed),
            data,
            key=jax.random.key(seed),
            num_epochs=EPOCHS,
            progress=False,
        )
        parts.append(method.posterior(state, [data]))
    keys = jax.random.split(jax.random.key(4))
    weights = jnp.asarray([0.3, 0.7])
    return {
        "equal": judged(bnn.Mixture(parts), *data, *keys),
        "weights": judged(bnn.Mixture(parts, weights=weights), *data, *keys),
        "evidence": [part.log_evidence() for part in parts],
    }


def _rows(title, methods, model, data):
    return {
        f"bnn: {name}{title}": functools.partial(_row, make, model, data)
        for name, make in methods.items()
    }


def _row(make, model, data):
    return through(make, model, data())


ROWS = {
    **_rows("", METHODS, mlp, regression),
    **_rows("", DROPOUT, dropped, regression),
    **_rows(" of batch norm (Stateful)", NORMED, batch_normed, regression),
    **_rows(" of convolutions", CONVOLUTIONS, ConvNet, images),
    "bnn: Mixture": mixture,
    "bnn: evaluate": evaluated,
}
