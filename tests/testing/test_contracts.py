"""Conformance checks pass what is right, and name the clause that is broken."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn, diffusion, testing
from jaxprob.testing import ContractError

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (10, 2))
MODEL = eqx.nn.Linear(2, "scalar", key=KEY)
JOINT = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.IsotropicNormal(1.0), num_data=10)
SGD = optax.sgd(1e-2)
CHAINS = {"num_warmup": 0, "num_draws": 2, "num_chains": 2, "initial": "model"}
COUNTER = itertools.count(1)

METHODS = {
    "MAP": bnn.MAP(JOINT, SGD),
    "MeanFieldVI": bnn.MeanFieldVI(JOINT, SGD),
    "ensemble of SWAG": bnn.DeepEnsemble(
        bnn.SWAG(bnn.MAP(JOINT, SGD), num_warmup=0, thin=1),
        2,
        make=lambda key: eqx.nn.Linear(2, "scalar", key=key),
    ),
    "SGLD": bnn.SGLD(JOINT, 1e-4, thin=1, **CHAINS),
    "MCLMC": bnn.MCLMC(JOINT, thin=1, **CHAINS),
}


def check(method):
    testing.check_method(method, MODEL, (X, X[:, 0]), key=KEY)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_our_methods_keep_their_contract(name):
    check(METHODS[name])


class Broken(bnn.AbstractInference):
    """MAP with one fault."""

    log_joint: bnn.LogJoint
    fault: str = eqx.field(static=True)

    @property
    def inner(self):
        return bnn.MAP(self.log_joint, SGD)

    def init(self, model, *, key):
        return self.inner.init(model, key=key), 0 if self.fault == "number" else None

    def update(self, state, batch, *, key):
        train, count = state
        if self.fault == "mask" and hasattr(batch, "mask"):
            batch = batch.data
        train, info = self.inner.update(train, batch, key=key)
        if self.fault == "dtype":
            floats, rest = eqx.partition(train, eqx.is_inexact_array)
            halves = jax.tree.map(lambda a: a.astype(jnp.float16), floats)
            train = eqx.combine(halves, rest)
        if self.fault == "impure":
            step = jax.pure_callback(
                lambda: jnp.asarray(next(COUNTER), jnp.float32),
                jax.ShapeDtypeStruct((), jnp.float32),
            )
            train = eqx.tree_at(lambda s: s.model.bias, train, step[None])
        if self.fault == "loss":
            info = {"nll": info["nll"]}
        if self.fault == "vector":
            info = {**info, "rows": jnp.zeros(3)}
        return (train, None if count is None else count + 1), info

    def evaluate(self, state, batch, *, key):
        info = self.inner.evaluate(state[0], batch, key=key)
        return {"loss": jnp.nan} if self.fault == "evaluate" else info

    def model(self, state):
        model = self.inner.model(state[0])
        return model.weight if self.fault == "model" else model

    def posterior(self, state, batches=None, *, key=None):
        model = self.inner.model(state[0])
        if self.fault == "posterior":
            return model
        if self.fault == "shape":
            model = eqx.tree_at(lambda m: m.bias, model, model.bias[None])
        return bnn.PointPosterior(model)


FAULTS = {
    "number": "changed leaves of the state that are no arrays",
    "dtype": "same structure, shapes and dtypes",
    "impure": "not pure",
    "loss": "has to return {'loss'",
    "vector": "'rows' of shape",
    "mask": "rows that a Batch masks",
    "evaluate": "evaluate has the loss nan",
    "model": "has to have structure, shapes and dtypes of the model",
    "posterior": "an AbstractPosterior is needed",
    "shape": "sample has to return a model",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_clause_of_a_method_is_named(fault):
    with pytest.raises(ContractError, match=FAULTS[fault]):
        check(Broken(JOINT, fault))


@pytest.mark.slow
def test_the_method_without_a_fault_passes():
    check(Broken(JOINT, "none"))


LIKELIHOODS = {
    "normal": (bnn.NormalLikelihood(0.5), jnp.asarray(0.3)),
    "classes": (bnn.CategoricalLikelihood(), jnp.asarray([0.3, -1.0, 2.0])),
    "counts": (bnn.PoissonLikelihood(), jnp.asarray(0.5)),
    "heavy": (bnn.StudentTLikelihood(0.5, df=4.0), jnp.asarray(0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_our_likelihoods_keep_their_contract(name):
    testing.check_likelihood(*LIKELIHOODS[name], key=KEY)


class Tempered(dist.Normal):
    """Its density is not normalised: the scale is left out."""

    loc: Any
    scale: Any

    def log_prob(self, value):
        return -0.5 * ((value - self.loc) / self.scale) ** 2


class Displaced(dist.Normal):
    loc: Any

    @property
    def mean(self):
        return self.loc + 1.0


class Infinite(dist.Normal):
    loc: Any

    def log_prob(self, value):
        return jnp.where(value > self.loc, -jnp.inf, super().log_prob(value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "clause"),
    [
        (lambda f: Tempered(0.0, jnp.exp(f)), "the mean over draws of the gradient"),
        (lambda f: Displaced(f, 1.0), "the mean of the distribution"),
        (lambda f: Infinite(f, 1.0), "a log-probability that is not finite"),
        (lambda f: f, "a numpyro distribution is needed"),
    ],
)
def test_a_broken_clause_of_a_likelihood_is_named(likelihood, clause):
    with pytest.raises(ContractError, match=clause):
        testing.check_likelihood(likelihood, jnp.asarray(0.3), key=KEY)


class Halfway(diffusion.AbstractSampler):
    """Ends too early, or forgets its key."""

    fault: str = eqx.field(static=True)

    def draw(self, denoiser, shape, **kwargs):
        if self.fault == "key":
            kwargs["key"] = jax.random.key(3)
        draw = diffusion.DDIM(12).draw(denoiser, shape, **kwargs)
        if self.fault == "wide":
            draw = dataclasses.replace(draw, x_0=1.5 * draw.x_0)
        return draw


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "clause"),
    [("key", "samples of different keys are equal"), ("wide", "the covariance of")],
)
def test_a_broken_clause_of_a_sampler_is_named(fault, clause):
    testing.check_sampler(diffusion.ExpAB(12), key=KEY, num_samples=400)
    with pytest.raises(ContractError, match=clause):
        testing.check_sampler(Halfway(fault), key=KEY, num_samples=400)


class Faulty(diffusion.AbstractDenoiser):
    schedule: diffusion.AbstractSchedule
    fault: str = eqx.field(static=True)

    def denoise(self, x, level, cond=None, *, key=None):
        exact = x / (1.0 + level**2)
        if self.fault == "eps":
            return x - level * x
        if self.fault == "zero":
            return 0.0 * exact
        return exact[None] if self.fault == "shape" else exact

    def __call__(self, x_t, t, cond=None, *, key=None):
        scale = 2.0 if self.fault == "time" else 1.0
        return scale * super().__call__(x_t, t, cond, key=key)


@pytest.mark.slow
def test_a_broken_clause_of_a_denoiser_is_named():
    x = jnp.asarray([0.5, -1.0])
    schedule = diffusion.VP.linear()
    testing.check_denoiser(Faulty(schedule, "none"), x, key=KEY)
    for fault, clause in {
        "eps": "hardly anything of the data is left",
        "zero": "without noise it is the input",
        "shape": r"denoise turned shape \(2,\)",
        "time": "calling it at a time differs",
    }.items():
        with pytest.raises(ContractError, match=clause):
            testing.check_denoiser(Faulty(schedule, fault), x, key=KEY)


class Rate(eqx.Module):
    slope: jax.Array

    def __call__(self, t):
        return self.slope * t + t**2


def test_a_broken_schedule_is_named():
    schedule = diffusion.VP(Rate(jnp.asarray(1.0)), 3.0)
    testing.check_schedule(schedule)
    bad = eqx.tree_at(lambda s: s.int_beta.slope, schedule, jnp.asarray(-1.0))
    with pytest.raises(ContractError, match=r"VP: VP.sigma.* must be finite"):
        testing.check_schedule(bad)
