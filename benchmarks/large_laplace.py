"""Laplace's method for a network whose curvature is never formed.

    python -m benchmarks.large_laplace [--data FOLDER] [--quick] [--samples S]
                                       [--tolerance E] [--rows N]

A convolutional network is trained, by `MAP`: of a million weights on MNIST, which
`--data` is the folder of; of 9,000 on scikit-learn's digits with `--quick`. Then
`MatrixFreeLaplace` draws from the posterior of all weights given the first N training
rows, and the diagonal and Kronecker structures are made from the same rows.

Reference is the exact variance of each logit minus the mean of its row, at held-out
rows, in the space of the outputs (Woodbury), in float64: with $K = A T^{-1} A^T$,
$A = R J$ of the training rows and $a$ of one such difference,

    a Lambda^-1 a^T = a T^-1 a^T - a T^-1 A^T (1 + K)^-1 A T^-1 a^T.

(The data say nothing about a number added to all logits.) Printed are the ratio of
variances to the exact ones (median, and median distance from one), seconds, passes over
the rows, and the most memory of JAX's arrays at any batch of a pass, in vectors of the
weights, beside the draws and what was there before.
"""

import argparse
import functools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import jaxprob
from jaxprob import bnn, datasets, tree

from ._timing import report

CLASSES = 10
KEY = jax.random.key(0)
CENTRED = np.eye(CLASSES, dtype=np.float32) - np.float32(1.0 / CLASSES)
"""From logits to their differences from the mean of a row."""


class Network(eqx.Module):
    """Two convolutions with stride 2, and two linear layers."""

    convolutions: list[eqx.nn.Conv2d]
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, size: int, channels: int, width: int, key: jax.Array):
        keys = jax.random.split(key, 4)
        self.convolutions = [
            eqx.nn.Conv2d(a, b, 3, stride=2, padding=1, key=k)
            for a, b, k in zip(
                (1, channels), (channels, 2 * channels), keys[:2], strict=True
            )
        ]
        places = (size // 4) ** 2
        self.hidden = eqx.nn.Linear(2 * channels * places, width, key=keys[2])
        self.head = eqx.nn.Linear(width, CLASSES, key=keys[3])

    def __call__(self, x):
        x = x[None]
        for convolution in self.convolutions:
            x = jnp.tanh(convolution(x))
        return self.head(jnp.tanh(self.hidden(x.ravel())))


class Watched:
    """Batches of rows that note the memory of JAX's arrays when each is taken."""

    def __init__(self, x: Any, y: Any, batch_size: int):
        self.x, self.y, self.batch_size = jnp.asarray(x), jnp.asarray(y), batch_size
        self.most = 0

    def __iter__(self):
        for first in range(0, len(self.y), self.batch_size):
            self.most = max(self.most, sum(a.nbytes for a in jax.live_arrays()))
            part = slice(first, first + self.batch_size)
            yield self.x[part], self.y[part]


def exact_variances(posterior: Any, x: Any, x_test: Any) -> np.ndarray:
    """Return the variance of each logit, from kernels between blocks of rows."""
    params, tau = posterior.params, np.asarray(posterior.tau(), np.float64)
    flat, unravel = ravel_pytree(params)

    def logits(vector, x):
        return eqx.combine(unravel(vector), posterior.rest)(x)

    @functools.partial(jax.jit, static_argnums=1)
    def rows(x, root):
        def one(x):
            out, pull = jax.vjp(lambda v: logits(v, x), flat)
            p = jax.nn.softmax(out)
            # R^T R = diag(p) - p p^T, the information of the logits.
            r = jnp.sqrt(p)[:, None] * (jnp.eye(CLASSES) - p[None])
            return jax.vmap(lambda c: pull(c)[0])(r if root else CENTRED)

        return jax.vmap(one)(x).reshape(-1, flat.size)

    def blocks(x, root, size=8):
        for first in range(0, len(x), size):
            found = rows(jnp.asarray(x[first : first + size]), root)
            yield np.asarray(found, np.float64) / np.sqrt(tau)

    def kernel(left, right):
        return np.concatenate(
            [np.concatenate([a @ b.T for b in right()], 1) for a in left()]
        )

    def train():
        return blocks(x, True)

    def test():
        return blocks(x_test, False)

    gram = np.eye(len(x) * CLASSES) + kernel(train, train)
    half = np.linalg.solve(np.linalg.cholesky(gram), kernel(test, train).T)
    prior = np.concatenate([np.sum(a**2, 1) for a in test()])
    return prior - np.sum(half**2, 0)


def ratios(variances: Any, exact: np.ndarray) -> tuple[str, str]:
    ratio = np.asarray(variances, np.float64).ravel() / exact
    return f"{np.median(ratio):.3f}", f"{np.median(np.abs(ratio - 1.0)):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--quick", action="store_true", help="a small network, digits")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--rows", type=int, help="of the posterior: 1,000, or 300")
    parser.add_argument("--at-once", type=int, default=1, help="model_batch_size")
    arguments = parser.parse_args()
    if not arguments.quick and arguments.data is None:
        parser.error("give --data FOLDER with MNIST, or --quick")
    quick = arguments.quick
    data: Any = datasets.digits() if quick else datasets.mnist(arguments.data)
    num = arguments.rows or (300 if quick else 1000)
    x, y = data.x_train[:num], data.y_train[:num]
    x_test = data.x_test[: 30 if quick else 100]
    size, channels, width = (8, 8, 128) if quick else (28, 64, 160)
    model = Network(size, channels, width, KEY)
    joint = bnn.LogJoint(
        bnn.CategoricalLikelihood(), bnn.FanInNormal(3.0), num_data=num
    )
    point = bnn.MAP(joint, optax.adam(1e-3))
    state, _ = jaxprob.fit(
        point, model, (x, y), key=KEY, num_epochs=60, batch_size=50, progress=False
    )

    batches = Watched(x, y, 100)
    before = sum(a.nbytes for a in jax.live_arrays())
    method = bnn.MatrixFreeLaplace(
        point,
        num_samples=arguments.samples,
        tolerance=arguments.tolerance,
        model_batch_size=arguments.at_once,
    )
    begun = time.perf_counter()
    draws = method.posterior(state, batches, key=KEY)
    jax.block_until_ready(draws.deviations)
    seconds = time.perf_counter() - begun
    one = draws.deviations[0].nbytes
    vectors = (batches.most - before - draws.deviations.nbytes) / one
    diagonal = bnn.Laplace(point, "diagonal").posterior(state, batches)
    exact = exact_variances(diagonal, x, x_test)

    lines = [("posterior", "ratio of variances", "median distance", "seconds")]
    found = bnn.predict(draws, joint.likelihood, x_test, key=KEY, model_batch_size=1)
    variances = (found.outputs @ CENTRED).var(1)
    lines.append(("matrix-free", *ratios(variances, exact), f"{seconds:.0f}"))
    for structure in ("kronecker", "diagonal"):
        begun = time.perf_counter()
        other = bnn.Laplace(point, structure).posterior(state, batches)
        jax.block_until_ready(other.curvature)
        seconds = time.perf_counter() - begun
        spread = CENTRED @ other.output_distribution(x_test)[1] @ CENTRED
        variances = jnp.diagonal(spread, axis1=1, axis2=2)
        lines.append((structure, *ratios(variances, exact), f"{seconds:.0f}"))
    labels = np.asarray(jnp.argmax(jax.vmap(draws.mean())(x_test), 1))
    figures = {
        "accuracy_of_mode": float(np.mean(labels == data.y_test[: len(x_test)])),
        "weights": tree.count(draws.params),
        "rows": num,
        "passes": draws.num_passes,
        "largest_residual": f"{float(jnp.max(draws.residuals)):.1e}",
        "vectors_of_memory": round(vectors, 1),
        "log_evidence": round(float(draws.log_evidence()), 1),
        "log_evidence_error": round(float(draws.log_evidence_error()), 1),
    }
    report("Laplace without a matrix", lines, figures)


if __name__ == "__main__":
    main()
