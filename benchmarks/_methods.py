"""Every inference method with settings for small problems, trained in one program."""

import time

import equinox as eqx
import jax
import optax

from jaxprob import bnn

NUM = 4000


def train(method, model, batch, *, key, num_steps, batch_size=None):
    """Steps in one program; minibatches are drawn with replacement."""
    init_key, train_key = jax.random.split(key)
    state = eqx.filter_jit(method.init)(model, key=init_key)
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key):
        row_key, key = jax.random.split(key)
        part = batch
        if batch_size is not None:
            rows = jax.random.randint(row_key, (batch_size,), 0, len(batch[1]))
            part = jax.tree.map(lambda a: a[rows], batch)
        state, _ = method.update(eqx.combine(arrays, static), part, key=key)
        return eqx.filter(state, eqx.is_array), None

    arrays, _ = jax.jit(lambda a, k: jax.lax.scan(step, a, k))(
        arrays, jax.random.split(train_key, num_steps)
    )
    return eqx.combine(arrays, static)


def decaying(rate, num_steps):
    return optax.adam(optax.cosine_decay_schedule(rate, num_steps))


def methods(joint, num_steps, scale, only=""):
    """(inference method, updates, batch size) by name."""
    point = bnn.MAP(joint, decaying(0.03, num_steps))
    swag = bnn.MAP(joint, optax.sgd(0.02 * scale))
    vi = decaying(0.03, num_steps)
    rows = {
        "NUTS": (bnn.NUTS(joint, num_draws=NUM // 4), None, None),
        "HMC": (bnn.HMC(joint, num_leapfrog=16, num_draws=NUM // 4), None, None),
        "SGLD": (
            bnn.SGLD(joint, 0.02 * scale, num_warmup=2000, thin=20, num_draws=NUM),
            None,
            16,
        ),
        "SGHMC": (
            bnn.SGHMC(joint, 0.002 * scale, num_warmup=2000, thin=50, num_draws=NUM),
            None,
            16,
        ),
        "SGLD, cyclical": (
            bnn.SGLD(
                joint,
                bnn.CosineCycles(min(0.1 * scale, 0.005), length=400, num_draws=5),
                num_warmup=2000,
                thin=20,
                num_draws=NUM,
            ),
            None,
            16,
        ),
        "Laplace, full": (bnn.Laplace(point, "full"), num_steps, None),
        "Laplace, Kronecker": (bnn.Laplace(point, "kronecker"), num_steps, None),
        "Laplace, low rank": (bnn.Laplace(point, "low_rank"), num_steps, None),
        "Laplace, diagonal": (bnn.Laplace(point, "diagonal"), num_steps, None),
        "mean-field VI": (bnn.MeanFieldVI(joint, vi, num_samples=8), num_steps, None),
        "mean-field VI, flipout": (
            bnn.MeanFieldVI(joint, vi, num_samples=8, estimator="flipout"),
            num_steps,
            None,
        ),
        "mean-field VI, local": (
            bnn.MeanFieldVI(joint, vi, num_samples=8, estimator="local"),
            num_steps,
            None,
        ),
        "low-rank VI": (bnn.LowRankVI(joint, vi, num_samples=8), num_steps, None),
        "full-rank VI": (bnn.FullRankVI(joint, vi, num_samples=8), num_steps, None),
        "IVON": (
            bnn.IVON(
                joint,
                optax.cosine_decay_schedule(0.1 * scale, 2 * num_steps),
                hess_init=10.0,
                beta2=0.999,
                num_samples=8,
            ),
            2 * num_steps,
            None,
        ),
        "anchored ensemble": (
            bnn.DeepEnsemble(
                bnn.AnchoredMAP(joint, decaying(0.03, num_steps)), NUM // 4
            ),
            num_steps,
            None,
        ),
        "deep ensemble": (bnn.DeepEnsemble(point, 20), num_steps, None),
        "SWAG": (bnn.SWAG(swag, num_warmup=2000, thin=4), 2 * num_steps, 4),
    }
    return {name: row for name, row in rows.items() if name.startswith(only)}


def fit(method, num_steps, batch_size, model, batch, key):
    """The posterior that a method finds, and the seconds it took."""
    begin = time.perf_counter()
    num_steps = getattr(method, "num_steps", num_steps)
    state = train(
        method, model, batch, key=key, num_steps=num_steps, batch_size=batch_size
    )
    return method.posterior(state, [batch]), time.perf_counter() - begin


def floats(row):
    """The figures of a row as Python numbers."""
    return {name: float(value) for name, value in row.items()}


def show(title, rows):
    """A table; what a method does not have is a dash."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    print(f"\n{title}\n")
    print(f"{'':28s}" + "".join(f"{column:>16s}" for column in columns))
    for name, row in rows.items():
        cells = [f"{row[c]:16.4f}" if c in row else f"{'-':>16s}" for c in columns]
        print(f"{name:28s}" + "".join(cells))
