"""Rows of `jaxprob.diffusion`: samplers, guidance, densities and latents."""

import functools

import jax
import jax.numpy as jnp

from jaxprob import diffusion as df
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

from ._diffusion import SCHEDULES, net, rows


def exact(schedule=None):
    """Return the denoiser of a mixture of two Gaussians."""
    mixture = GaussianMixture(
        jnp.asarray([0.4, 0.6]),
        jnp.asarray([[1.0, -0.5], [-0.8, 0.6]]),
        jnp.asarray([[[0.3, 0.1], [0.1, 0.4]], [[0.2, 0.0], [0.0, 0.5]]]),
    )
    schedule = df.VP.linear() if schedule is None else schedule
    return GaussianMixtureDenoiser(mixture, schedule)


def drawn(make, denoiser, cond=None, trajectory=True):
    """Return draws of a sampler under a fixed key."""
    draws = df.sample(
        denoiser(),
        make(),
        key=jax.random.key(14),
        num_samples=4,
        shape=(2,),
        cond=cond,
        trajectory=trajectory,
    )
    return {
        "x_0": draws.x_0,
        "path": draws.path,
        "levels": draws.levels,
        "num_evaluations": draws.num_evaluations,
    }


def densities(trace, estimate_error=False):
    """Return log-densities of examples under the exact denoiser."""
    out = df.map_examples(
        df.log_prob,
        exact(),
        rows(3),
        key=jax.random.key(15),
        trace=trace(),
        estimate_error=estimate_error,
    )
    names = ("value", "trace_error", "solver_error", "prior_mismatch", "latent")
    return {name: getattr(out, name) for name in names}


def latents(make):
    """Return latents of examples, and the examples that they decode to."""
    denoiser = make()
    latent = df.map_examples(df.encode, denoiser, rows(3))
    return {
        "encode": latent,
        "decode": df.map_examples(df.decode, denoiser, latent),
        "interpolate": df.interpolate(latent[0], latent[1], 0.3),
    }


def rest():
    """Return the errors by level, and the pieces of bits per dimension."""
    found = df.level_errors(
        df.Preconditioned(net(), df.Cosine()), rows(16), key=jax.random.key(16)
    )
    spread = df.dequantise(jnp.arange(6), 1.0, key=jax.random.key(17))
    return {
        "levels": found.levels,
        "error": found.error,
        "linear": found.linear,
        "dequantise": spread,
        "bits": df.bits_per_dim(spread, 6, 0.25),
    }


def network_denoiser(**settings):
    return df.Preconditioned(net(**settings), df.Cosine(), sigma_data=0.8)


def guided():
    return df.Guided(network_denoiser(num_classes=3), 1.5, interval=(0.1, 5.0))


def thresholded():
    return df.Thresholded(network_denoiser(), -1.0, 1.0)


SAMPLERS = {
    "ODESampler": lambda: df.ODESampler(),
    "ODESampler, fixed steps": lambda: df.ODESampler(4),
    "ExpAB": lambda: df.ExpAB(6),
    "ExpAB, order 3": lambda: df.ExpAB(6, order=3),
    "ExpAB, without corrector": lambda: df.ExpAB(6, corrector=False),
    "DPMSolverPP": lambda: df.DPMSolverPP(6),
    "DPMSolverPP, order 3": lambda: df.DPMSolverPP(6, order=3),
    "DDIM": lambda: df.DDIM(6),
    "DDIM, eta": lambda: df.DDIM(6, eta=0.7),
    "Heun": lambda: df.Heun(6),
    "Heun, churn": lambda: df.Heun(6, churn=4.0, noise_scale=1.01),
    "SDESampler": lambda: df.SDESampler(6),
    "SDESampler, tree": lambda: df.SDESampler(6, brownian_tree=True),
    "PredictorCorrector": lambda: df.PredictorCorrector(6),
    "grid LogSNR": lambda: df.Heun(df.LogLevelGrid(6)),
    "grid Karras": lambda: df.DDIM(df.KarrasGrid(6, rho=5.0)),
    "grid Focused": lambda: df.DDIM(df.FocusedGrid(6)),
    "grid UniformTime": lambda: df.DDIM(df.UniformTimeGrid(6)),
    "ends of the grid": lambda: df.DDIM(
        df.LogLevelGrid(6, level_min=0.01, level_max=20.0)
    ),
}


def quick():
    return df.ExpAB(4)


LABELS = jnp.asarray([0, 1, 2, 0])
ROWS = {
    **{
        f"sampler: {name}": functools.partial(drawn, make, exact)
        for name, make in SAMPLERS.items()
    },
    **{
        f"sampler: ExpAB by {name}": functools.partial(
            drawn, quick, lambda make=make: exact(make())
        )
        for name, make in SCHEDULES.items()
    },
    "sampler: ExpAB of a network": functools.partial(drawn, quick, network_denoiser),
    "sampler: DDIM of a network": functools.partial(
        drawn, lambda: df.DDIM(4, eta=0.5), network_denoiser
    ),
    "guidance: Guided": functools.partial(drawn, quick, guided, LABELS),
    "guidance: Thresholded": functools.partial(drawn, quick, thresholded),
    "log_prob: exact": functools.partial(densities, df.ExactTrace, True),
    "log_prob: Hutchinson": functools.partial(densities, lambda: df.Hutchinson(2)),
    "log_prob: HutchPP": functools.partial(densities, lambda: df.HutchPP(1, 2)),
    "latents: exact": functools.partial(latents, exact),
    "diffusion: errors by level, dequantised data": rest,
}
