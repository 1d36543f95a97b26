"""NUTS on two differential equations: ours beside numpyro's, on the same posterior.

    python -m benchmarks.ode [--quick]

Lotka-Volterra (21 times of two species, 7 numbers) and a damped oscillator (30 times, 5
numbers), solved by diffrax's Tsit5 with tolerances of 1e-5. Four chains from the true
parameters, a diagonal mass matrix, acceptance 0.8, 200 transitions of warm-up and 200
draws. Gradients are those of diffrax's default adjoint in reverse mode, or of its
`ForwardMode` in forward mode, which both samplers can use. Programs are compiled in a
first run. numpyro's chains run side by side, as ours do. A ratio is one within a round.

The last table compares the posterior means: the largest difference to numpyro's of any
parameter, in standard errors of the difference.
"""

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

from ._timing import alternate, medians, report, serve

WARMUP, DRAWS, CHAINS = 200, 200, 4
VARIANTS = {
    "ours": "jaxprob, reverse",
    "numpyro": "numpyro, reverse",
    "ours_forward": "jaxprob, forward",
    "numpyro_forward": "numpyro, forward",
}
PROBLEMS = ("oscillator", "lotka_volterra")


def solve(field, start, times, adjoint):
    """States at the times, infinite where the solver gives up."""
    import diffrax as dfx

    return dfx.diffeqsolve(
        dfx.ODETerm(field),
        dfx.Tsit5(),
        times[0],
        times[-1],
        0.1,
        start,
        saveat=dfx.SaveAt(ts=times),
        stepsize_controller=dfx.PIDController(rtol=1e-5, atol=1e-5),
        adjoint=adjoint,
        max_steps=1024,
        throw=False,
    ).ys


def scene(problem, forward):
    """The true model, its log joint, and one trajectory as one row."""
    import diffrax as dfx
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as dist

    from jaxprob import bnn

    adjoint = dfx.ForwardMode() if forward else dfx.RecursiveCheckpointAdjoint()

    class LotkaVolterra(eqx.Module):
        log_rates: jax.Array
        log_start: jax.Array
        log_noise: jax.Array

        def __call__(self, times):
            birth, hunt, feed, death = jnp.exp(self.log_rates)

            def field(t, y, args):
                prey, hunters = y[0], y[1]
                return jnp.stack(
                    [
                        (birth - hunt * hunters) * prey,
                        (feed * prey - death) * hunters,
                    ]
                )

            states: Any = solve(field, jnp.exp(self.log_start), times, adjoint)
            return jnp.log(states), jnp.exp(self.log_noise)

    class Oscillator(eqx.Module):
        log_stiffness: jax.Array
        log_damping: jax.Array
        start: jax.Array
        log_noise: jax.Array

        def __call__(self, times):
            stiffness, damping = jnp.exp(self.log_stiffness), jnp.exp(self.log_damping)

            def field(t, y, args):
                return jnp.stack([y[1], -stiffness * y[0] - damping * y[1]])

            states: Any = solve(field, self.start, times, adjoint)
            return states[:, :1], jnp.exp(self.log_noise)

    if problem == "lotka_volterra":
        rates = jnp.log(jnp.array([0.55, 0.028, 0.024, 0.84]))
        model = LotkaVolterra(
            rates, jnp.log(jnp.array([33.0, 6.0])), jnp.log(jnp.array(0.25))
        )
        times = jnp.linspace(0.0, 20.0, 21)
        prior = bnn.PriorByPath(
            {
                "log_rates": dist.Normal(
                    jnp.log(jnp.array([1.0, 0.05, 0.05, 1.0])), 0.5
                ),
                "log_start": dist.Normal(jnp.log(10.0), 1.0),
                "log_noise": dist.Normal(-1.0, 1.0),
            }
        )
    else:
        model = Oscillator(
            *(jnp.log(jnp.array(4.0)), jnp.log(jnp.array(0.3))),
            *(jnp.array([1.0, 0.0]), jnp.log(jnp.array(0.1))),
        )
        times = jnp.linspace(0.0, 8.0, 30)
        prior = dist.Normal(0.0, 1.5)
    states, noise = model(times)
    y = states + noise * jax.random.normal(jax.random.key(1), states.shape)
    joint = bnn.LogJoint(lambda out: dist.Normal(*out), prior, num_data=1)
    return model, joint, (times[None], y[None])


def make(name, problem, folder):
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxprob import bnn, tree

    forward = name.endswith("forward")
    model, joint, data = scene(problem, forward)
    rest = eqx.partition(model, eqx.is_inexact_array)[1]
    seeds = iter(range(10_000))
    found = []

    if name.startswith("ours"):
        method = bnn.NUTS(
            joint,
            num_warmup=WARMUP,
            num_draws=DRAWS,
            num_chains=CHAINS,
            initial="model",
            forward_mode=forward,
        )
        start = method.init(model, key=jax.random.key(0))
        arrays, static = eqx.partition(start, eqx.is_array)

        @jax.jit
        def run(key):
            def body(k, arrays):
                state = eqx.combine(arrays, static)
                state, _ = method.update(state, data, key=jax.random.fold_in(key, k))
                return eqx.filter(state, eqx.is_array)

            return jax.lax.fori_loop(0, method.num_steps, body, arrays)

        def sample(seed):
            return jax.block_until_ready(run(jax.random.key(seed)).draws)

    else:
        from numpyro.infer import NUTS

        def potential(params):
            return -joint(eqx.combine(params, rest), data, params=params)

        kernel = NUTS(
            potential_fn=potential,
            target_accept_prob=0.8,
            forward_mode_differentiation=forward,
        )
        initial = eqx.filter(model, eqx.is_inexact_array)

        def chain(key):
            state = kernel.init(key, WARMUP, initial, (), {})
            state = jax.lax.fori_loop(
                0, WARMUP, lambda _, state: kernel.sample(state, (), {}), state
            )

            def step(state, _):
                state = kernel.sample(state, (), {})
                return state, tree.ravel(state.z)[0]

            return jax.lax.scan(step, state, None, length=DRAWS)[1]

        chains = jax.jit(jax.vmap(chain))

        def sample(seed):
            keys = jax.random.split(jax.random.key(seed), CHAINS)
            return jax.block_until_ready(chains(keys))

    jnp.zeros(()).block_until_ready()
    sample(next(seeds))

    def measure():
        begin = time.perf_counter()
        draws = sample(next(seeds))
        seconds = time.perf_counter() - begin
        found.append(np.asarray(draws, np.float64))
        values = np.concatenate(found)  # the chains of all rounds
        error = values.std((0, 1)) / np.sqrt(bnn.ess(values))
        moments = {"mean": values.mean((0, 1)).tolist(), "error": error.tolist()}
        moments["rhat"] = float(bnn.rhat(values).max())
        (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(moments))
        return seconds

    return measure


def compare(folder, problem):
    """Rows of the table of means: each variant beside numpyro in reverse mode."""
    import numpy as np

    read = {
        name: json.loads((pathlib.Path(folder) / f"{name}.json").read_text())
        for name in VARIANTS
    }
    base = read["numpyro"]
    rows = []
    for name, moments in read.items():
        off = np.array(moments["mean"]) - np.array(base["mean"])
        error = np.hypot(moments["error"], base["error"])
        worst = float(np.max(np.abs(off) / error))
        rows.append((VARIANTS[name], problem, f"{worst:.1f}", f"{moments['rhat']:.3f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--problem", choices=PROBLEMS, help="one of the two")
    args = parser.parse_args()
    if args.variant:
        serve(lambda: make(args.variant, args.problem, args.folder))
        return
    times = [("", "posterior", "seconds", "over numpyro, same mode")]
    means = [("", "posterior", "mean off by, standard errors", "R-hat")]
    figures = {}
    for problem in [args.problem] if args.problem else PROBLEMS:
        with tempfile.TemporaryDirectory() as folder:
            found = alternate(
                "benchmarks.ode",
                VARIANTS,
                rounds=3 if args.quick else 9,
                arguments=("--problem", problem, "--folder", folder),
            )
            means += compare(folder, problem)
        for name, seconds in medians(found).items():
            other = name.replace("ours", "numpyro")
            ratios = [a / b for a, b in zip(found[name], found[other], strict=True)]
            ratio = medians({"ratio": ratios})["ratio"]
            figures[f"{problem}_{name}_seconds"] = seconds
            figures[f"{problem}_{name}_ratio"] = ratio
            times.append((VARIANTS[name], problem, f"{seconds:.2f}", f"{ratio:.2f}"))
    report("NUTS on differential equations: time of a run", times, figures)
    report("Posterior means beside numpyro's", means, {})


if __name__ == "__main__":
    main()
