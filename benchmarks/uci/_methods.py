"""The methods of the benchmark: a task in, a posterior and its likelihood out."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxprob import bnn

from ._network import (
    GAUSSIAN,
    FixedNoise,
    GaussianNoise,
    StudentNoise,
    TwoHeaded,
)
from ._task import Task
from ._train import split_keys, train

Fitted = tuple[list[bnn.AbstractPosterior], bnn.Likelihood]
Method = Callable[..., Fitted]

ALL = ("hidden", "mean", "noise")
ONE_LEVEL = ("hidden", "mean", "noise.bias")
"""Paths that are random when the noise depends on the inputs, and when it does not."""


def networks(task: Task, *, key: Any) -> list[TwoHeaded]:
    """A fresh network for each split."""
    features = task.x.shape[-1]
    return [TwoHeaded(features, task.width, key=k) for k in split_keys(key, task)]


def adam(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam with clipped gradients and a cosine schedule."""
    schedule = optax.cosine_decay_schedule(rate, num_steps, 0.05)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def transitions(num_data: int) -> tuple[int, int]:
    """Transitions of warm-up, and draws, for a set of so many rows."""
    factor = min(1.0, (1500 / num_data) ** 0.7)
    return round(200 * factor), round(100 * factor)


def mixture_of_chains(task: Task, *, key: Any, quick: bool = False) -> Fitted:
    """Hamiltonian chains under two noise models, in equal parts: the default.

    Half of the chains believe in one level of Gaussian noise for all rows, half in
    Student t noise whose level depends on the inputs: the first fit the mean better,
    the second the noise, and no validation has to choose. The scale of the weights of
    each input, and of each other layer, is left to the data (`HierarchicalNormal`).
    Chains start at networks that were trained to a fixed noise level.

    The number of transitions falls with the number of rows, so that a large set costs
    about as much as ten small ones.
    """
    num_warmup, num_draws = transitions(task.num_data)
    num_start = 5000
    if quick:
        num_warmup, num_draws, num_start = num_warmup // 2, num_draws // 2, 3000
    model_key, start_key, *chain_keys = jax.random.split(key, 4)
    models = networks(task, key=model_key)
    start = bnn.DeepEnsemble(
        bnn.MAP(
            bnn.LogJoint(FixedNoise(), bnn.FanInNormal(2.0), num_data=task.num_data),
            adam(1e-2, num_start),
            random=("hidden", "mean"),
        ),
        num_members=2,
    )
    starts = fitted(
        [start] * len(models),
        models,
        task,
        key=start_key,
        num_steps=num_start,
        batch_size=256,
    )
    prior = bnn.PriorByPath(
        {
            "hidden.weight": bnn.HierarchicalNormal("input", rate=0.1),
            "hidden.bias": bnn.HierarchicalNormal("leaf", rate=0.1),
            "*.weight": bnn.HierarchicalNormal("leaf", rate=0.01),
            "*.bias": bnn.IsotropicNormal(3.0),
        }
    )
    joint = bnn.LogJoint(StudentNoise(), prior, num_data=task.num_data)
    halves = []
    for random, df, chain_key in zip(
        (ALL, ONE_LEVEL), (4.0, GAUSSIAN), chain_keys, strict=True
    ):
        methods = [
            bnn.HMC(
                joint,
                num_leapfrog=80,
                num_warmup=num_warmup,
                num_draws=num_draws,
                num_chains=2,
                random=random,
                initial=start,
                step_size=1e-3,
            )
            for start in starts
        ]
        tailed = [
            eqx.tree_at(lambda m: m.df, model, jnp.asarray(df)) for model in models
        ]
        steps = methods[0].num_steps
        states = train(methods, tailed, task, key=chain_key, num_steps=steps)
        halves.append([m.posterior(s) for m, s in zip(methods, states, strict=True)])
    return [bnn.Mixture(pair) for pair in zip(*halves, strict=True)], StudentNoise()


def fitted(
    methods: Sequence[bnn.AbstractInference],
    models: list[TwoHeaded],
    task: Task,
    *,
    key: Any,
    num_steps: int,
    batch_size: int | None = None,
) -> list[bnn.AbstractPosterior]:
    """Trained on each split, and its posterior there."""
    train_key, posterior_key = jax.random.split(key)
    states = train(
        methods, models, task, key=train_key, num_steps=num_steps, batch_size=batch_size
    )
    keys = split_keys(posterior_key, task)
    return [
        method.posterior(state, [(task.x[s], task.y[s])], key=keys[s])
        for s, (method, state) in enumerate(zip(methods, states, strict=True))
    ]


SCALES = (0.5, 1.0, 2.0)
"""Of the prior: what is chosen on a fifth of the training rows of each split."""

Build = Callable[[bnn.LogJoint, int], bnn.AbstractInference]
"""A method from a joint density and the number of its steps."""


def chosen_scale(build: Build, *, num_steps: int, batch_size: int = 128) -> Method:
    """A method whose prior scale has the best log-likelihood on held-out training rows,
    for each split, and which is then trained on all of them.
    """
    likelihood = GaussianNoise()

    def fit(task, scales, steps, key):
        methods = []
        for scale in scales:
            prior = bnn.FanInNormal(scale)
            joint = bnn.LogJoint(likelihood, prior, num_data=task.num_data)
            methods.append(build(joint, steps))
        model_key, fit_key = jax.random.split(key)
        models = networks(task, key=model_key)
        return fitted(
            methods, models, task, key=fit_key, num_steps=steps, batch_size=batch_size
        )

    def run(task: Task, *, key: Any, quick: bool = False) -> Fitted:
        steps = num_steps // 2 if quick else num_steps
        inner_key, score_key, key = jax.random.split(key, 3)
        # All scales side by side: one program, with the keys that each has alone.
        inner = task.inner().repeated(len(SCALES))
        scales = [scale for scale in SCALES for _ in task.splits]
        found = fit(inner, scales, steps, inner_key)
        rows = zip(found, inner.x_test, inner.y_test, strict=True)
        held_out = np.reshape(
            [
                bnn.predict(p, likelihood, x, key=score_key).log_prob(y).mean()
                for p, x, y in rows
            ],
            (len(SCALES), len(task.splits)),
        )
        best = np.nanargmax(held_out, axis=0)
        return fit(task, [SCALES[i] for i in best], steps, key), likelihood

    return run


def _map(joint, steps):
    return bnn.MAP(joint, adam(1e-2, steps), random=ALL)


def _ensemble(joint, steps):
    return bnn.DeepEnsemble(_map(joint, steps), num_members=10)


def _mean_field(joint, steps):
    return bnn.MeanFieldVI(
        joint, adam(1e-2, steps), random=ALL, point=False, estimator="local"
    )


def _swag(joint, steps):
    # A constant rate in the last quarter, in which the iterates are averaged.
    start = 3 * steps // 4
    schedule = optax.join_schedules(
        [optax.cosine_decay_schedule(1e-2, start, 0.2), optax.constant_schedule(2e-3)],
        [start],
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    point = bnn.MAP(joint, optimizer, random=ALL)
    return bnn.SWAG(point, num_warmup=start, thin=max(1, (steps - start) // 40))


def _laplace(joint, steps):
    return bnn.Laplace(_map(joint, steps), structure="kronecker")


DEFAULT = "mixture-of-chains"

METHODS: dict[str, Method] = {
    DEFAULT: mixture_of_chains,
    "map": chosen_scale(_map, num_steps=5000),
    "ensemble": chosen_scale(_ensemble, num_steps=5000),
    "mean-field-vi": chosen_scale(_mean_field, num_steps=10_000),
    "swag": chosen_scale(_swag, num_steps=5000),
    "laplace": chosen_scale(_laplace, num_steps=5000),
}
