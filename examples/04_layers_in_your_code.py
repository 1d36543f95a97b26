"""Bayesian layers in your Equinox code, without Trainer and learner, in your loop.

    python examples/04_layers_in_your_code.py

A layer holds means and scales, and draws its weights at each call. The loss is yours:
the error of the draw plus the divergence from the prior, over the number of rows.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from jaxprob import bnn, datasets


class Network(eqx.Module):
    hidden: bnn.BayesianLinear
    out: bnn.BayesianLinear

    def __init__(self, key):
        hidden_key, out_key = jax.random.split(key)
        self.hidden = bnn.BayesianLinear(1, 64, key=hidden_key)
        self.out = bnn.BayesianLinear(64, 1, key=out_key)

    def __call__(self, x, *, key):
        hidden_key, out_key = jax.random.split(key)
        x = jnp.tanh(self.hidden(x, key=hidden_key))
        return self.out(x, key=out_key)


def main(num_steps: int = 3000) -> dict[str, float]:
    split, _, _ = datasets.heteroscedastic().standardize()
    x, y = jnp.asarray(split.x_train), jnp.asarray(split.y_train)
    prior, noise = bnn.FanInNormal(3.0), 0.4

    def loss(model, key):
        mean = jax.vmap(lambda x: model(x, key=key))(x)
        nll = -jnp.mean(dist.Normal(mean, noise).log_prob(y))
        return nll + bnn.kl(model, prior) / len(x)

    optimizer = optax.adam(1e-2)

    @eqx.filter_jit
    def step(model, opt_state, key):
        value, grads = eqx.filter_value_and_grad(loss)(model, key)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, value

    model = Network(jax.random.key(0))
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for i in range(num_steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        model, opt_state, value = step(model, opt_state, key)

    keys = jax.random.split(jax.random.key(2), 200)
    draws = jax.vmap(lambda key: jax.vmap(lambda x: model(x, key=key))(split.x_test))(
        keys
    )
    error = np.asarray(draws.mean(0)) - split.y_test
    figures = {
        "loss (nats per row)": float(value),
        "test RMSE": float(np.sqrt(np.mean(error**2))),
        "mean epistemic std": float(draws.std(0).mean()),
    }
    for name, number in figures.items():
        print(f"{name}: {number:.3f}")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    main(parser.parse_args().steps)
