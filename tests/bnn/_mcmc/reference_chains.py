"""Long chains for two posteriors without a closed form, by another library.

    python -m tests.bnn._mcmc.reference_chains    # writes the .json beside this file

The densities are written out here, the sampler is numpyro's NUTS, and seeds and
convergence stand in the file beside the moments: nothing of `jaxprob` takes part.

- *Logistic regression* of the size of the Pima data: 532 rows, 7 columns and a bias,
  prior N(0, 1). Four chains of 10,000 draws.
- *A network* 1-8-1 of tanh units on 30 rows of a sine, noise 0.1, prior N(0, 4) for the
  first layer and the biases, N(0, 1/2) for the last weights. Eight chains of 2,500
  draws, judged in function space: mean and standard deviation of the function, and
  quantiles and density of the predictive, at the points of `GRID`.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

FILE = pathlib.Path(__file__).with_suffix(".json")
NOISE = 0.1
GRID = np.linspace(-1.6, 1.6, 11)
TARGETS = np.arange(-5.0, 5.0, 0.1)  # a step of one noise: sums are exact to 1e-8
LEVELS = (np.arange(40) + 0.5) / 40


def references():
    """What the file holds."""
    return json.loads(FILE.read_text())


def logistic_data():
    """Inputs with correlated columns and labels."""
    rng = np.random.default_rng(19)
    mix = np.eye(7) + 0.4 * rng.normal(size=(7, 7))
    x = rng.normal(size=(532, 7)) @ mix
    logits = x @ (0.5 * rng.normal(size=7)) - 0.8
    return x, (rng.uniform(size=532) < scipy.special.expit(logits)).astype(np.int32)


def network_data():
    """Thirty rows of a sine on [-1, 1]."""
    rng = np.random.default_rng(20)
    x = np.sort(rng.uniform(-1.0, 1.0, 30))
    return x[:, None], np.sin(3.0 * x) + NOISE * rng.normal(size=30)


def logistic_density(w):
    """Log joint, up to a constant, of the weights and the bias behind them."""
    x, y = logistic_data()
    logits = jnp.asarray(2 * y - 1) * (x @ w[:-1] + w[-1])
    return -jnp.sum(jnp.logaddexp(0.0, -logits)) - 0.5 * jnp.sum(w**2)


def function(w, x):
    """The network: 8 weights, 8 biases, 8 weights, one bias."""
    hidden = jnp.tanh(x[:, :1] * w[None, :8] + w[None, 8:16])
    return hidden @ w[16:24] + w[24]


def network_density(w):
    """Log joint, up to a constant."""
    x, y = network_data()
    residual = (y - function(w, x)) / NOISE
    precision = np.full(25, 1 / 4.0)
    precision[16:24] = 8 / 4.0
    return -0.5 * (jnp.sum(residual**2) + jnp.sum(precision * w**2))


def chains(density, dim, seeds, num_draws):
    """Draws of numpyro's NUTS, one chain for each seed."""
    from numpyro.infer import MCMC, NUTS

    def potential(w):
        return -density(w)

    out = []
    for seed in seeds:
        start_key, key = jax.random.split(jax.random.key(seed))
        kernel = NUTS(potential_fn=potential, target_accept_prob=0.9)
        run = MCMC(kernel, num_warmup=1500, num_samples=num_draws, progress_bar=False)
        run.run(key, init_params=0.5 * jax.random.normal(start_key, (dim,)))
        out.append(np.asarray(run.get_samples()))
    return np.stack(out)


def moments(values):
    """Mean and standard deviation over chains and draws, their errors, and R-hat."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    mean, sd = values.mean((0, 1)), values.std((0, 1))
    squares = (values - mean) ** 2
    spread = squares.std((0, 1)) / np.sqrt(effective_sample_size(squares))
    return {
        "mean": rounded(mean),
        "sd": rounded(sd),
        "mean_error": rounded(sd / np.sqrt(effective_sample_size(values))),
        "sd_error": rounded(spread / (2 * sd)),
        "largest_rhat": float(np.max(split_gelman_rubin(values))),
    }


def predictive(values):
    """Quantiles and density of y at each point, given draws of the function there."""
    values = values.reshape(-1, values.shape[-1])
    noise = NOISE * np.random.default_rng(0).normal(size=values.shape)
    density = [
        scipy.stats.norm.pdf(TARGETS[:, None], column[None], NOISE).mean(1)
        for column in values.T
    ]
    quantiles = np.quantile(values + noise, LEVELS, axis=0).T
    return {"quantiles": rounded(quantiles), "density": rounded(np.stack(density))}


def rounded(array):
    """Six digits."""
    return [
        rounded(row) if np.ndim(row) else float(f"{row:.6g}")
        for row in np.asarray(array)
    ]


def main():
    jax.config.update("jax_enable_x64", True)
    weights = chains(logistic_density, 8, range(4), 10_000)
    found = {"logistic": {"chains": 4, "draws": 10_000} | moments(weights)}
    weights = chains(network_density, 25, range(8), 2500)
    values = jax.vmap(jax.vmap(lambda w: function(w, GRID[:, None])))(weights)
    values = np.asarray(values)
    found["network"] = {"chains": 8, "draws": 2500} | moments(values)
    found["network"] |= predictive(values)
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
