"""Rows of `jaxprob.bnn`: likelihoods, priors, and what follows a fit."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob import bnn

from ._problems import mlp, regression

ADAM = optax.adam(1e-2)
KEY = jax.random.key(30)

X, Y = regression()
LABELS = np.asarray([0, 1, 2, 1, 0, 2, 1, 0], np.int32)
LIKELIHOODS = {
    "NormalLikelihood": (lambda: bnn.NormalLikelihood(0.5), "scalar", Y),
    "HeteroscedasticNormal": (lambda: bnn.HeteroscedasticNormal(), 2, Y[:, None]),
    "StudentTLikelihood": (lambda: bnn.StudentTLikelihood(0.5), "scalar", Y),
    "CategoricalLikelihood": (lambda: bnn.CategoricalLikelihood(), 3, LABELS),
    "BernoulliLikelihood": (
        lambda: bnn.BernoulliLikelihood(),
        "scalar",
        (LABELS > 0).astype(np.int32),
    ),
    "PoissonLikelihood": (lambda: bnn.PoissonLikelihood(), "scalar", LABELS),
}
REAL = ("NormalLikelihood", "HeteroscedasticNormal", "StudentTLikelihood")
CLASSES = ("CategoricalLikelihood", "BernoulliLikelihood")

PRIORS = {
    "FanInNormal": lambda: bnn.FanInNormal(2.0),
    "IsotropicNormal": lambda: bnn.IsotropicNormal(0.7),
    "ScaleMixtureNormal": lambda: bnn.ScaleMixtureNormal(),
    "HierarchicalNormal": lambda: bnn.PriorByPath(
        {
            "layers.0.weight": bnn.HierarchicalNormal("input"),
            "*": bnn.HierarchicalNormal("leaf"),
        }
    ),
}


def likelihood(name):
    """Return what Laplace and an ensemble predict under a likelihood."""
    make, out, y = LIKELIHOODS[name]
    made = make()
    joint = bnn.LogJoint(made, bnn.FanInNormal(), len(y))
    method = bnn.Laplace(bnn.MAP(joint, ADAM))
    state, history = jaxprob.fit(
        method,
        mlp(0, out),
        (X, y),
        key=KEY,
        num_epochs=3,
        batch_size=8,
        progress=False,
    )
    posterior = method.posterior(state, [(X, y)])
    predictive = bnn.predict(posterior, made, X, key=KEY, num_samples=4)
    found = {
        "history": history,
        "evidence": posterior.log_evidence(),
        "log_prob": predictive.log_prob(y),
        "sample": predictive.sample(key=KEY),
        "outputs": predictive.outputs,
    }
    if name != "CategoricalLikelihood":
        parts = predictive.mean, predictive.epistemic, predictive.aleatoric
        found["moments"] = parts
    if name in REAL:
        found["interval"] = predictive.interval(0.8)
        found["cdf"] = predictive.cdf(y)
        calibrated = bnn.calibrate(predictive, predictive, y)
        found["calibrated"] = calibrated.std, calibrated.conformal_interval(0.5)
    if name in CLASSES:
        found["probs"] = predictive.probs, predictive.mutual_information
        found["calibrated"] = bnn.calibrate(predictive, predictive, y).probs
    return found


def prior(make):
    """Return densities and draws of a prior, and the divergence from it."""
    made, model = make(), mlp()
    random = bnn.bayesianize(model).tree

    @eqx.filter_jit
    def numbers(model, random, key):
        return {
            "log_prior": bnn.log_prior(made, eqx.filter(model, eqx.is_inexact_array)),
            "sample": bnn.sample_prior(model, made, key=key),
            "kl": bnn.kl(random, made, key=key, num_samples=2),
        }

    return numbers(model, random, KEY)


def tuned():
    """Return a prior and a noise of highest evidence."""
    model = mlp()
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.per_layer(model), 8)
    method = bnn.Laplace(bnn.MAP(joint, ADAM), "diagonal")
    posterior, history = bnn.train_by_evidence(
        method, model, (X, Y), key=KEY, num_rounds=2, num_steps=3, noise=True
    )
    again = bnn.tune_prior(posterior)
    return {
        "history": history,
        "mean": posterior.mean(),
        "evidence": again.log_evidence(),
        "scales": [a for a in jax.tree.leaves(again.prior) if eqx.is_array(a)],
    }


def chains():
    """Return what `run_chains` draws, and how it is judged."""
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), 8)
    method = bnn.HMC(joint, num_leapfrog=3, num_warmup=10, num_draws=8, num_chains=2)
    posterior = bnn.run_chains(method, mlp(), (X, Y), key=KEY, progress=False)
    found = bnn.diagnose(posterior, jnp.asarray(X))
    return {
        "draws": posterior.draws,
        "weights": found.weights,
        "function": found.function,
    }


def layers():
    """Return draws of Bayesian layers, and their outputs."""
    keys = jax.random.split(KEY, 3)
    dense = bnn.BayesianLinear(2, 3, key=keys[0])
    conv = bnn.BayesianConv2d(1, 2, 2, key=keys[1])
    image = jnp.arange(9.0).reshape(1, 3, 3) / 9.0

    @eqx.filter_jit
    def numbers(dense, conv, key):
        return {
            "linear": bnn.sample_leaves(dense, key=key)(jnp.asarray(X[0])),
            "conv": bnn.sample_leaves(conv, key=key)(image),
        }

    return numbers(dense, conv, keys[2])


def prior_models():
    """Return the prior predictive."""
    posterior = bnn.PriorModels(mlp(), bnn.FanInNormal(2.0))
    predictive = bnn.predict(
        posterior, bnn.NormalLikelihood(0.5), X, key=KEY, num_samples=5
    )
    return {"mean": predictive.mean, "variance": predictive.variance}


ROWS = {
    **{f"likelihood: {n}": functools.partial(likelihood, n) for n in LIKELIHOODS},
    **{f"prior: {name}": functools.partial(prior, m) for name, m in PRIORS.items()},
    "bnn: tune_prior and train_by_evidence": tuned,
    "bnn: run_chains and diagnose": chains,
    "bnn: Bayesian layers": layers,
    "bnn: PriorModels": prior_models,
}
