"""Kronecker Laplace over all weights of a small vision transformer, on digits.

    python -m benchmarks.transformer [--quick]

MAP of a transformer with 16 patches of scikit-learn's digits (1,797 images of 8 x 8)
is trained under three scales of the prior. The scale of each method, and the
temperature of each Laplace posterior, are those of the highest log-likelihood on inner
validation rows; the test rows are used once. Printed are accuracy and mean
log-likelihood, seconds of the pass over the data, and of `tune_prior` with one scale of
the prior for each layer. Predictions are means over draws of the linearised logits.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob import bnn
from jaxprob.datasets import digits

SCALES = (1.0, 3.0, 10.0)
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0)
DRAWS = 400


class Block(eqx.Module):
    """Attention and a perceptron, each after a norm and with a residual path."""

    norms: list[eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key, 3)
        self.norms = [eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)]
        self.attention = eqx.nn.MultiheadAttention(4, width, key=keys[0])
        self.up = eqx.nn.Linear(width, 2 * width, key=keys[1])
        self.down = eqx.nn.Linear(2 * width, width, key=keys[2])

    def __call__(self, tokens):
        normed = jax.vmap(self.norms[0])(tokens)
        tokens = tokens + self.attention(normed, normed, normed)
        hidden = jax.vmap(self.up)(jax.vmap(self.norms[1])(tokens))
        return tokens + jax.vmap(self.down)(jax.nn.gelu(hidden))


class VisionTransformer(eqx.Module):
    """Two blocks over 16 patches of 2 x 2 pixels, and a head on their mean."""

    patch_in: eqx.nn.Linear
    positions: jax.Array
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key, 5)
        self.patch_in = eqx.nn.Linear(4, width, key=keys[0])
        self.positions = 0.02 * jax.random.normal(keys[1], (16, width))
        self.blocks = [Block(width, key) for key in keys[2:4]]
        self.norm = eqx.nn.LayerNorm(width)
        self.head = eqx.nn.Linear(width, 10, key=keys[4])

    def __call__(self, image):
        patches = image.reshape(4, 2, 4, 2).transpose(0, 2, 1, 3).reshape(16, 4)
        tokens = jax.vmap(self.patch_in)(patches) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(jnp.mean(tokens, 0)))


def everything(path, leaf):
    """Choose norms too, which methods leave out by default."""
    return True


def trained(scale, split, num_epochs):
    """Return MAP and its state under a scale of the prior."""
    joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(),
        bnn.FanInNormal(scale),
        num_data=len(split.x_train),
    )
    method = bnn.MAP(joint, optax.adam(2e-3), random=everything)
    state, _ = jaxprob.fit(
        method,
        VisionTransformer(32, jax.random.key(0)),
        (split.x_train, split.y_train),
        key=jax.random.key(1),
        num_epochs=num_epochs,
        batch_size=100,
        progress=False,
    )
    return method, state


def logits(posterior, x):
    """Return mean and covariance of the linearised logits, 100 rows at a time."""
    parts = [
        posterior.output_distribution(x[i : i + 100]) for i in range(0, len(x), 100)
    ]
    means, covariances = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(covariances)


def scores(mean, covariance, temperature, y):
    """Return accuracy and mean log-likelihood at a temperature of the posterior."""
    root = np.linalg.cholesky(covariance + 1e-6 * np.eye(10))
    noise = np.random.default_rng(0).normal(size=(DRAWS, *mean.shape))
    draws = mean + np.sqrt(temperature) * np.einsum("nij,snj->sni", root, noise)
    probs = np.mean(jax.nn.softmax(draws, axis=-1), axis=0)
    log_probs = np.log(probs[np.arange(len(y)), y])
    return float(np.mean(np.argmax(probs, 1) == y)), float(np.mean(log_probs))


def best(posterior, split):
    """Return the temperature of the highest likelihood on the validation rows, that
    likelihood, and the scores on the test rows.
    """
    validation = logits(posterior, split.x_val)
    likelihoods = {t: scores(*validation, t, split.y_val)[1] for t in TEMPERATURES}
    temperature = max(likelihoods, key=likelihoods.__getitem__)
    test = scores(*logits(posterior, split.x_test), temperature, split.y_test)
    return temperature, likelihoods[temperature], test


def at_mode(model, x, y):
    means = np.asarray(jax.vmap(model)(x))
    return scores(means, np.zeros((*means.shape, 10)), 0.0, y)


def seconds(function, *args):
    start = time.perf_counter()
    out = jax.block_until_ready(function(*args))
    return out, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 epochs, one scale")
    quick = parser.parse_args().quick
    split = digits(test=0.2, val=0.15, seed=0)
    assert split.x_val is not None
    data = split.x_train, split.y_train
    points, posteriors = {}, {}
    for scale in SCALES[1:2] if quick else SCALES:
        method, state = trained(scale, split, 3 if quick else 100)
        model = method.model(state)
        _, value = at_mode(model, split.x_val, split.y_val)
        points[value] = "MAP", scale, at_mode(model, split.x_test, split.y_test)
        for sharing in ("scaled", "expand", "reduce"):
            laplace = bnn.Laplace(method, "kronecker", sharing=sharing)
            posterior, pass_s = seconds(laplace.posterior, state, [data])
            temperature, value, test = best(posterior, split)
            found = value, scale, temperature, test, pass_s, posterior
            if sharing not in posteriors or value > posteriors[sharing][0]:
                posteriors[sharing] = found
    print("| method | scale | temperature | accuracy | log-likelihood | pass, s |")
    print("|---|---|---|---|---|---|")
    _, scale, (right, value) = points[max(points)]
    print(f"| MAP | {scale:g} | | {right:.3f} | {value:.4f} | |")
    for sharing, (_, scale, t, (right, value), pass_s, _) in posteriors.items():
        row = f"{scale:g} | {t:g} | {right:.3f} | {value:.4f} | {pass_s:.1f} |"
        print(f"| Laplace, {sharing} | {row}")
    posterior = posteriors["scaled"][-1]
    layered = bnn.per_layer(posterior.mean(), bnn.FanInNormal(1.0))
    posterior = eqx.tree_at(lambda q: q.prior, posterior, layered)
    for name in ("first", "second"):
        _, tune_s = seconds(bnn.tune_prior, posterior)
        print(f"{name} tune_prior with {len(layered.priors)} scales: {tune_s:.1f} s")


if __name__ == "__main__":
    main()
