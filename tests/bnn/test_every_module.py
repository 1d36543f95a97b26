"""Modules x methods: each cell works, or is refused for a reason that it states.

A new method needs a row in `METHODS`: the last test fails without one.
"""

import inspect
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn

from .modules import MODULES, ROWS, make

SGD = optax.sgd(1e-3)


def is_head(path, leaf):
    """The last layer of any of the modules."""
    return "head" in path or path.startswith(("layers.1", "weights.out"))


def laplace(structure, **kwargs):
    return lambda joint: bnn.Laplace(bnn.MAP(joint, SGD), structure, **kwargs)


def mean_field(estimator):
    return lambda joint: bnn.MeanFieldVI(joint, SGD, estimator=estimator)


METHODS = {
    "MAP": lambda joint: bnn.MAP(joint, SGD),
    "MeanFieldVI": mean_field("weight"),
    "MeanFieldVI, flipout": mean_field("flipout"),
    "MeanFieldVI, local": mean_field("local"),
    "LowRankVI": lambda joint: bnn.LowRankVI(joint, SGD),
    "FullRankVI": lambda joint: bnn.FullRankVI(joint, SGD),
    "IVON": lambda joint: bnn.IVON(joint, 1e-3, beta2=0.5, point_optimizer=SGD),
    "DeepEnsemble": lambda joint: bnn.DeepEnsemble(bnn.MAP(joint, SGD), 2),
    "DeepEnsemble, in a loop": lambda joint: bnn.DeepEnsemble(
        bnn.MAP(joint, SGD), 2, members="loop"
    ),
    "AnchoredMAP": lambda joint: bnn.AnchoredMAP(joint, SGD),
    "MCDropout": lambda joint: bnn.MCDropout(bnn.MAP(joint, SGD)),
    "Laplace": laplace("full"),
    "Laplace, Kronecker": laplace("kronecker"),
    "Laplace, diagonal": laplace("diagonal"),
    "Laplace, low rank": laplace("low_rank", rank=3),
    "Laplace, last layer": laplace("kronecker", where=is_head),
    "Laplace, empirical Fisher": laplace("full", kind="fisher"),
    "MatrixFreeLaplace": lambda joint: bnn.MatrixFreeLaplace(
        bnn.MAP(joint, SGD), num_samples=2, tolerance=1e-2
    ),
    "SWAG": lambda joint: bnn.SWAG(
        bnn.MAP(joint, SGD), num_warmup=0, thin=1, num_samples=2
    ),
    "NUTS": lambda joint: bnn.NUTS(
        joint,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
        max_doublings=2,
    ),
    "HMC": lambda joint: bnn.HMC(
        joint,
        num_leapfrog=2,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
    ),
    "MCLMC": lambda joint: bnn.MCLMC(
        joint,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
        thin=2,
    ),
    "AdjustedMCLMC": lambda joint: bnn.AdjustedMCLMC(
        joint,
        num_steps_each=2,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
    ),
    "SGLD": lambda joint: bnn.SGLD(
        joint, 1e-4, num_warmup=0, thin=1, num_draws=2, num_chains=2
    ),
    "SGLD, cyclical": lambda joint: bnn.SGLD(
        joint,
        bnn.CosineCycles(1e-4, length=2, num_draws=2),
        num_warmup=0,
        thin=1,
        num_draws=2,
    ),
    "SGHMC": lambda joint: bnn.SGHMC(joint, 1e-4, num_warmup=0, thin=1, num_draws=2),
    "Blocks": lambda joint: bnn.Blocks(
        bnn.MAP(joint, SGD), {is_head: bnn.Laplace(bnn.MAP(joint, SGD))}
    ),
}

NO_DROPOUT = r"has no eqx\.nn\.Dropout"
NO_FUNCTION = "normalises by statistics of the batch, so it has no output for one"
USED_AGAIN = "estimator='local' draws the outputs"
TRAINING_MODE = "is in training mode"
HOLDS_DROPOUT = ("attention", "own class")  # attention has a layer of it
REFUSED = {
    **{
        ("MCDropout", name): NO_DROPOUT for name in MODULES if name not in HOLDS_DROPOUT
    },
    **{
        (method, "batch norm"): NO_FUNCTION
        for method in METHODS
        if method.startswith(("MeanField", "LowRank", "FullRank", "IVON"))
    },
    **{
        (method, "batch norm"): TRAINING_MODE
        for method in METHODS
        if method.startswith(("Laplace", "MatrixFree"))
    },
    ("MeanFieldVI, local", "attention"): USED_AGAIN,
}


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_module_passes_the_check_of_its_data(module):
    model, data = make(module)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)
    bnn.MAP(joint, SGD).check(model, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rank=3 leaves out")  # a rank that is too low
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", METHODS)
def test_every_module_with_every_method(tmp_path, name, module):
    model, data = make(module)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)
    method = METHODS[name](joint)
    reason = REFUSED.get((name, module))
    if reason is not None:
        with pytest.raises((ValueError, TypeError), match=reason):
            through(method, model, data)
        return
    posterior = through(method, model, data)
    # From its file, put into a module that was built anew, the same draw.
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, posterior)
    pair = posterior, bnn.load_posterior(path, model=make(module)[0])
    # By one program: one with a prediction in it may round a draw in another way.
    drawn, again = (once(lambda q=q: q.sample(key=jax.random.key(2))) for q in pair)
    assert type(again) is type(drawn)
    for own, other in zip(*map(arrays, (drawn, again)), strict=True):
        assert np.array_equal(own, other)


def arrays(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))


def through(method, model, data):
    """Two updates, evaluation, posterior, a draw, the predictive."""
    x, y = data
    key = jax.random.key(2)

    def train():
        # The updates are a scan, so that one is traced and compiled.
        arrays, static = eqx.partition(method.init(model, key=key), eqx.is_array)

        def step(arrays, key):
            state = eqx.combine(arrays, static)
            state, info = method.update(state, data, key=key)
            return eqx.filter(state, eqx.is_array), info["loss"]

        keys = jax.random.split(key, 2)
        arrays, losses = jax.lax.scan(step, arrays, keys)
        state = eqx.combine(arrays, static)
        info = method.evaluate(state, data, key=key)
        return state, jnp.append(losses, info["loss"])

    state, losses = once(train)
    assert np.all(np.isfinite(losses))
    posterior = method.posterior(state, [data], key=key)

    def judge():
        predictive = bnn.predict(
            posterior, method.log_joint.likelihood, x, key=key, num_samples=2
        )
        return posterior.sample(key=key), predictive.mean, predictive.variance

    drawn, mean, variance = once(judge)
    assert type(drawn) is type(model)
    for leaf in arrays(drawn):
        assert np.all(np.isfinite(leaf))
    assert mean.shape == variance.shape == y.shape
    assert np.all(np.isfinite(variance))
    return posterior


def once(function):
    """One program for all of it, compiled in haste: it runs a single time."""
    static = []

    def arrays():
        dynamic, rest = eqx.partition(function(), eqx.is_array)
        static.append(rest)
        return dynamic

    options = {"xla_backend_optimization_level": 0}
    return eqx.combine(jax.jit(arrays, compiler_options=options)(), static[0])


@pytest.mark.slow
def test_no_method_is_without_a_row():
    public = {
        name
        for name, cls in vars(bnn).items()
        if inspect.isclass(cls)
        and issubclass(cls, bnn.AbstractInference)
        and not name.startswith("Abstract")
    }
    assert public == {re.split(",", name)[0] for name in METHODS}
