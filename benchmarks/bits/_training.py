"""Rows of `jaxprob.fit`, `save` and `load`, and the estimators."""

import functools
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob import bnn, diffusion
from jaxprob.estimators import BNNClassifier, BNNRegressor

from ._problems import dropped, mlp, regression

ADAM = optax.adam(1e-2)


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    """Return the squared error with noise in the inputs: the key matters."""
    x, y = example
    noise_key, dropout_key = jax.random.split(key)
    x = x + 0.05 * jax.random.normal(noise_key, x.shape)
    error = (model(x, key=dropout_key) - y) ** 2
    return error, {"rmse": jnp.sqrt(error)}


LEARNERS = {
    "GradientDescent": lambda: jaxprob.GradientDescent(squared_error, ADAM),
    "EMA": lambda: jaxprob.GradientDescent(squared_error, ADAM, ema=jaxprob.EMA(0.99)),
    "frozen leaves": lambda: jaxprob.GradientDescent(
        squared_error, ADAM, trainable="layers.0"
    ),
    "dynamic_loss_scale": lambda: jaxprob.GradientDescent(
        jaxprob.LowPrecisionLoss(squared_error, "float16"),
        jaxprob.dynamic_loss_scale(ADAM, growth_interval=2),
    ),
    "LowPrecisionLoss": lambda: jaxprob.GradientDescent(
        jaxprob.LowPrecisionLoss(squared_error), ADAM
    ),
    "MultiSteps, EMA without warm-up": lambda: jaxprob.GradientDescent(
        squared_error,
        optax.MultiSteps(ADAM, 2).gradient_transformation(),
        jaxprob.EMA(0.9, warmup=False),
    ),
    "schedule-free": lambda: jaxprob.GradientDescent(
        squared_error, optax.contrib.schedule_free_adamw(1e-2)
    ),
}


def trained(make, **length):
    """Return the model and the history of a fit with ragged batches."""
    learner = make()
    data = regression()
    state, history = jaxprob.fit(
        learner,
        dropped(),
        data,
        key=jax.random.key(20),
        batch_size=3,
        validation=data,
        progress=False,
        **length,
    )
    return {"model": learner.model(state), "history": history}


def evaluated():
    """Return the metrics of a model on ragged batches."""
    learner = LEARNERS["GradientDescent"]()
    state = learner.init(dropped(), key=jax.random.key(27))
    return jaxprob.evaluate(
        learner, state, regression(), key=jax.random.key(21), batch_size=5
    )


def denoiser():
    """Return a denoiser after a few steps of training."""
    net = diffusion.nn.ResidualMLP(2, width=8, depth=1, key=jax.random.key(22))
    model = diffusion.Preconditioned(net, diffusion.Cosine())
    learner = jaxprob.GradientDescent(
        diffusion.DenoisingLoss(), ADAM, ema=jaxprob.EMA(0.9)
    )
    x = np.random.default_rng(9).normal(size=(16, 2)).astype(np.float32)
    state, history = jaxprob.fit(
        learner,
        model,
        x,
        key=jax.random.key(23),
        num_steps=6,
        batch_size=4,
        progress=False,
    )
    return {"net": learner.model(state).net, "history": history}


def saved():
    """Return a model and a posterior from their files."""
    posterior = bnn.bayesianize(mlp())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        jaxprob.save(path, mlp())
        model = jaxprob.load(path)
        like = jaxprob.load(path, template=mlp(1))
        weights = jaxprob.load_weights(path, mlp(1))
        path = Path(folder) / "posterior.safetensors"
        bnn.save_posterior(path, posterior)
        again = bnn.load_posterior(path)
    drawn = eqx.filter_jit(lambda p, key: p.sample(key=key))(again, jax.random.key(24))
    return {"load": model, "like": like, "weights": weights, "posterior": drawn}


def regressor(method):
    """Return predictions of a regressor."""
    x, y = regression()
    model = BNNRegressor(method, hidden=(4,), num_steps=6, random_state=0)
    model.fit(x, y)
    mean, std = model.predict(x, return_std=True)
    return {
        "mean": mean,
        "std": std,
        "interval": model.predict_interval(x),
        "variances": model.predict_variances(x),
    }


def classifier(method):
    """Return class probabilities of a classifier."""
    x, y = regression()
    model = BNNClassifier(method, hidden=(4,), num_steps=6, random_state=0)
    return model.fit(x, (y > 0).astype(int)).predict_proba(x)


def keys_and_rows():
    """Return keys of examples and the order of a loader's rows."""
    loader = jaxprob.ArrayLoader(
        np.arange(10, dtype=np.float32), batch_size=4, shuffle=True, seed=3
    )
    batches = [jaxprob.unpack(batch) for batch in loader]
    return {
        "keys": jaxprob.example_keys(jax.random.key(25), 4),
        "leaves": jax.tree.leaves(jaxprob.leaf_keys(jax.random.key(26), [1.0, 2.0])),
        "batches": batches,
    }


METHODS = ("ensemble", "map", "laplace", "mean_field_vi")
ROWS = {
    **{
        f"fit: {name}": functools.partial(trained, make, num_epochs=3)
        for name, make in LEARNERS.items()
    },
    "fit: a number of steps": functools.partial(
        trained, LEARNERS["GradientDescent"], num_steps=7
    ),
    "fit: a denoiser": denoiser,
    "fit: evaluate": evaluated,
    "fit: keys and rows": keys_and_rows,
    "save and load": saved,
    **{f"BNNRegressor: {name}": functools.partial(regressor, name) for name in METHODS},
    "BNNClassifier: ensemble": functools.partial(classifier, "ensemble"),
}
