"""Effective samples per second of NUTS: ours beside numpyro's, on the same posterior.

    python -m benchmarks.nuts [--quick]

Bayesian logistic regression (200 rows, 8 weights) and a network of 25 weights (30 rows,
8 tanh units). Four chains, a diagonal mass matrix, acceptance 0.8, 500 transitions of
warm-up and 1,000 draws. Time is that of a second run, with programs compiled; the
figure is the smallest effective sample size of any output of the function at 20 inputs,
over the seconds. numpyro's kernel is compiled whole, its chains side by side, as ours
are, or one after the other; the faster of the two counts.
"""

import argparse
import time
from collections.abc import Callable

from ._timing import alternate, medians, report, serve

WARMUP, DRAWS, CHAINS = 500, 1000, 4
VARIANTS = {
    "ours": "jaxprob NUTS",
    "vectorized": "numpyro NUTS, vectorized",
    "sequential": "numpyro NUTS, sequential",
}
ROUNDS = {"logistic": 41, "network": 7}
"""A tenth of a second each, and ten seconds each: short ones scatter more."""


def scene(problem):
    """Model, likelihood of outputs, prior scales by leaf, data, inputs to look at."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from jaxprob import bnn

    keys = jax.random.split(jax.random.key(0), 4)
    if problem == "logistic":
        x = jax.random.normal(keys[0], (200, 7))
        w = jax.random.normal(keys[1], (7,))
        y = jax.random.bernoulli(keys[2], jax.nn.sigmoid(x @ w)).astype(jnp.float32)
        model = eqx.nn.Linear(7, "scalar", key=keys[3])
        likelihood = bnn.BernoulliLikelihood()
    else:
        x = jnp.sort(jax.random.uniform(keys[0], (30, 1), minval=-1.0), 0)
        y = jnp.sin(3.0 * x[:, 0]) + 0.1 * jax.random.normal(keys[1], (30,))
        model = eqx.nn.MLP(1, "scalar", 8, 1, activation=jnp.tanh, key=keys[3])
        likelihood = bnn.NormalLikelihood(0.1)
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(2.0), num_data=len(x))
    return model, joint, (x, y), x[:20]


def least_ess(draws, model, rest, inputs):
    """Smallest effective sample size of the outputs."""
    import equinox as eqx
    import jax
    import numpy as np

    from jaxprob import bnn

    output = jax.jit(
        jax.vmap(jax.vmap(lambda p: jax.vmap(eqx.combine(p, rest))(inputs)))
    )
    return float(np.min(bnn.ess(np.asarray(output(draws)))))


def make(name, problem):
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from jaxprob import bnn

    model, joint, data, inputs = scene(problem)
    rest = eqx.partition(model, eqx.is_inexact_array)[1]
    key = jax.random.key(5)
    seeds = iter(range(10_000))

    if name == "ours":
        method = bnn.NUTS(joint, num_warmup=WARMUP, num_draws=DRAWS, num_chains=CHAINS)
        start = method.init(model, key=key)
        arrays, static = eqx.partition(start, eqx.is_array)

        @jax.jit
        def run(arrays, key):
            def body(k, arrays):
                state = eqx.combine(arrays, static)
                state, _ = method.update(state, data, key=jax.random.fold_in(key, k))
                return eqx.filter(state, eqx.is_array)

            return jax.lax.fori_loop(0, method.num_steps, body, arrays)

        def sample(seed):
            state = eqx.combine(run(arrays, jax.random.key(seed)), static)
            jax.block_until_ready(state.draws)
            return state

        def drawn_models(state):
            return method.posterior(state).draws

        finish: Callable = drawn_models

    else:
        from numpyro.infer import NUTS

        def potential(params):
            drawn = eqx.combine(params, rest)
            return -joint(drawn, data, key=key, params=params)

        kernel = NUTS(potential_fn=potential, target_accept_prob=0.8)

        def chain(chain_key):
            start_key, key = jax.random.split(chain_key)
            start = eqx.filter(
                bnn.sample_prior(model, joint.prior, key=start_key),
                eqx.is_inexact_array,
            )
            state = kernel.init(key, WARMUP, start, (), {})
            state = jax.lax.fori_loop(
                0, WARMUP, lambda _, state: kernel.sample(state, (), {}), state
            )

            def step(state, _):
                state = kernel.sample(state, (), {})
                return state, state.z

            return jax.lax.scan(step, state, None, length=DRAWS)[1]

        # numpyro's `MCMC` compiles anew in each run, some seconds: its kernel does not.
        if name == "vectorized":
            chains = jax.jit(jax.vmap(chain))
        else:
            chains = jax.jit(lambda keys: jax.lax.map(chain, keys))

        def sample(seed):
            keys = jax.random.split(jax.random.key(seed), CHAINS)
            return jax.block_until_ready(chains(keys))

        def unchanged(draws):
            return draws

        finish = unchanged

    jnp.zeros(()).block_until_ready()
    least_ess(finish(sample(next(seeds))), model, rest, inputs)

    def measure():
        begin = time.perf_counter()
        out = sample(next(seeds))
        seconds = time.perf_counter() - begin
        return least_ess(finish(out), model, rest, inputs) / seconds

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--problem", choices=ROUNDS, help="one of the two")
    args = parser.parse_args()
    if args.variant:
        serve(lambda: make(args.variant, args.problem))
        return
    rows = [("", "posterior", "least ESS per second", "ours over it")]
    figures = {}
    for problem in [args.problem] if args.problem else ROUNDS:
        rates = alternate(
            "benchmarks.nuts",
            VARIANTS,
            rounds=ROUNDS[problem] // 2 if args.quick else ROUNDS[problem],
            arguments=("--problem", problem),
        )
        for name, value in medians(rates).items():
            ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
            ratio = medians({"ratio": ratios})["ratio"]
            figures[f"{problem}_{name}_ess_per_s"] = value
            figures[f"{problem}_{name}_ratio"] = ratio
            rows.append((VARIANTS[name], problem, f"{value:.0f}", f"{ratio:.2f}"))
    report("NUTS: effective samples per second", rows, figures)


if __name__ == "__main__":
    main()
