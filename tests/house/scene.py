"""Values for the names that the code blocks of the documentation leave open.

A block says `jaxprob.fit(method, model, (x, y), key=key)` and not what they are. Here
each name has a small value, by the folder in which the block stands.
"""

import ast
import builtins
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import jaxprob
from jaxprob import bnn, datasets, diffusion, metrics, recalibrate, testing, tree
from jaxprob.diffusion import nn

Names = dict[str, Callable[[], Any]]

LIBRARIES = {
    **{"jax": jax, "jnp": jnp, "np": np, "eqx": eqx, "optax": optax, "dfx": dfx},
    "dist": dist,
    **{"jaxprob": jaxprob, "bnn": bnn, "diffusion": diffusion, "nn": nn},
}
PACKAGES = (jaxprob, bnn, diffusion, nn, metrics, recalibrate, testing, datasets, tree)


def key():
    return jax.random.key(0)


@functools.cache
def rows(num: int = 24) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(num, 2)).astype(np.float32)
    return x, np.sin(x[:, :1])


@functools.cache
def network() -> eqx.nn.MLP:
    return eqx.nn.MLP(2, 1, 4, 2, key=key())


@functools.cache
def images(num: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(num, 1, 8, 8)).astype(np.float32)


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


def joint() -> bnn.LogJoint:
    return bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=24)


def trained(method: Any) -> Any:
    return jaxprob.fit(method, network(), rows(), key=key(), num_steps=2)[0]


def mean_field() -> bnn.MeanFieldVI:
    return bnn.MeanFieldVI(joint(), optax.adam(1e-2))


def laplace() -> bnn.Laplace:
    return bnn.Laplace(bnn.MAP(joint(), optax.adam(1e-2)), "kronecker")


@functools.cache
def laplace_posterior() -> Any:
    return laplace().posterior(trained(laplace()), [rows()])


@functools.cache
def posterior() -> Any:
    return mean_field().posterior(trained(mean_field()))


COMMON: Names = {
    "key": key,
    "init_key": key,
    "train_key": lambda: jax.random.key(1),
    "x": lambda: rows()[0],
    "y": lambda: rows()[1],
    "x_train": lambda: rows()[0],
    "y_train": lambda: rows()[1],
    "x_val": lambda: rows()[0],
    "y_val": lambda: rows()[1],
    "x_test": lambda: rows()[0],
    "y_test": lambda: rows()[1],
    "X": lambda: rows()[0],
    "X_test": lambda: rows()[0],
    "model": network,
    "params": lambda: eqx.filter(network(), eqx.is_inexact_array),
    "loss": lambda: squared_error,
    "optimizer": lambda: optax.adam(1e-3),
    "learner": lambda: jaxprob.GradientDescent(squared_error, optax.adam(1e-3)),
    "batch": rows,
    "batches": lambda: [rows()],
    "likelihood": lambda: bnn.NormalLikelihood(0.3),
    "log_joint": joint,
    "method": mean_field,
    "posterior": posterior,
}


def dropped(leaves: Any) -> Any:
    return eqx.filter(leaves, eqx.is_inexact_array)


def mean_squares(params: Any) -> jax.Array:
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)), jnp.zeros(()))


def classes(num: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, num)
    probs = rng.dirichlet(np.ones(3), num).astype(np.float32)
    return labels, probs


@functools.cache
def denoiser() -> Any:
    net = nn.ResidualMLP(2, width=8, depth=1, num_classes=10, key=key())
    return diffusion.Preconditioned(net, diffusion.VP.linear())


def unconditional() -> Any:
    net = nn.ResidualMLP(2, width=8, depth=1, key=key())
    return diffusion.Preconditioned(net, diffusion.VP.linear())


def velocity_field() -> Any:
    return diffusion.VelocityField(nn.ResidualMLP(2, width=8, depth=1, key=key()))


def image_denoiser(**condition: Any) -> Any:
    net = nn.UNet((1, 8, 8), widths=(4,), key=key(), **condition)
    return diffusion.Preconditioned(net, diffusion.VP.linear())


def guidable(new: Any) -> Any:
    """Return a new denoiser as if it was trained: none of its vectors is zero."""

    def moved(leaf: Any) -> Any:
        return leaf + 0.01 if eqx.is_inexact_array(leaf) else leaf

    return eqx.tree_at(lambda made: made.net, new, jax.tree.map(moved, new.net))


POINTS: Names = {
    "learner": lambda: jaxprob.GradientDescent(
        diffusion.DenoisingLoss(cond_dropout=0.1), optax.adam(1e-3)
    ),
    "denoiser": denoiser,
    "x": lambda: rows()[0],
    "x_t": lambda: jnp.asarray(rows()[0][0]),
    "t": lambda: jnp.asarray(0.5),
    "shape": lambda: (2,),
    "labels": lambda: np.arange(24) % 10,
    "net": lambda: nn.ResidualMLP(2, width=8, depth=1, key=key()),
    "image": lambda: images()[0],
    "images": images,
}


def bind(code: str, names: Names, scope: dict[str, Any]) -> None:
    """Add to a scope the values of all names that a block uses and it lacks."""
    used = {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name)}
    for name in sorted(used - scope.keys() - vars(builtins).keys()):
        if name in names:
            scope[name] = names[name]()
        elif name in LIBRARIES:
            scope[name] = LIBRARIES[name]
        else:
            scope.update(public(name))


def public(name: str) -> Iterator[tuple[str, Any]]:
    """Yield the public object of a name with it, if a package has one."""
    import pytorch_lightning as pl

    from jaxprob import estimators, export, lightning, plot, report

    if name in ("pl", "plot"):
        yield name, {"pl": pl, "plot": plot}[name]
        return
    for package in (*PACKAGES, lightning, estimators, report, export):
        if hasattr(package, name):
            yield name, getattr(package, name)
            return


def stepper() -> jaxprob.Stepper:
    learner = jaxprob.GradientDescent(squared_error, optax.adam(1e-3))
    state = learner.init(network(), key=key())
    return jaxprob.Stepper(learner, state, key=key())


def loss_scale_state() -> Any:
    optimizer = jaxprob.dynamic_loss_scale(optax.adam(1e-3))
    return optimizer.init(COMMON["params"]())


class Net(eqx.Module):
    norm: eqx.nn.BatchNorm
    out: eqx.nn.Linear

    def __init__(self, *, key):
        self.norm = eqx.nn.BatchNorm(2, "batch", mode="batch")
        self.out = eqx.nn.Linear(2, 1, key=key)

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return self.out(x), state


def run_of_chains() -> Any:
    method = bnn.SGLD(joint(), 1e-3, num_warmup=0, thin=1, num_draws=8)
    return bnn.run_chains(method, network(), rows(), key=key(), progress=False)


def refreshed() -> Any:
    model = bnn.Stateful(*eqx.nn.make_with_state(Net)(key=key()))
    method = bnn.MAP(joint(), optax.sgd(1e-3))
    state, _ = jaxprob.fit(method, model, rows(), key=key(), num_steps=2)
    return method.posterior(state)


def exact_chains() -> Any:
    """Draws from the posterior of a linear regression, as chains."""
    problem = regression()
    factor = np.linalg.cholesky(problem.covariance)
    noise = np.random.default_rng(0).normal(size=(4, 200, len(factor)))
    draws = np.asarray(problem.mean) + noise @ factor.T
    model = problem.model(key=key())
    unravel = tree.ravel(model)[1]
    drawn = jax.vmap(jax.vmap(unravel))(jnp.asarray(draws, jnp.float32))
    return bnn.DrawsPosterior(drawn, eqx.filter(model, False))


@functools.cache
def regression() -> testing.LinearGaussian:
    return testing.LinearGaussian.random(key=key(), num_data=24, dim=2, noise=1.0)


REGRESSION: Names = {
    "posterior": exact_chains,
    "log_joint": lambda: regression().log_joint(),
    "method": lambda: bnn.NUTS(regression().log_joint()),
    "x": lambda: regression().x,
    "y": lambda: regression().y,
}


def linear_simulator(theta: jax.Array, *, key: Any) -> jax.Array:
    return theta + jax.random.normal(key, theta.shape)


def short_fit() -> Any:
    """Return `fit_posterior` with few steps."""
    settings: dict[str, Any] = {"num_steps": 4, "num_rounds": 1, "num_members": 1}
    settings["width"] = 8
    settings["weight_decay"] = 0.0  # one value needs no pilots
    return functools.partial(diffusion.fit_posterior, **settings)


def simulations() -> Any:
    return diffusion.simulate(
        dist.Normal(jnp.zeros(2), 1.0), linear_simulator, key=key(), num_simulations=200
    )


SIMULATOR: Names = {
    "prior": lambda: dist.Normal(jnp.zeros(2), 1.0),
    "simulator": lambda: linear_simulator,
    "sims": simulations,
    **dict.fromkeys(("sim_key", "fit_key"), key),
    "x": lambda: np.zeros(2, np.float32),
}


class NormalPosterior:
    """The posterior of a mean, of any other library."""

    def sample(self, x: np.ndarray, *, key: Any, num_samples: int) -> Any:
        return x / 2.0 + jax.random.normal(key, (num_samples, 2))


CHECKED: Names = {
    **{
        name: lambda i=i: np.random.default_rng(i).normal(size=(40, 2))
        for i, name in enumerate(("truth", "draws", "x", "observed_draws"))
    },
    "observed": lambda: np.zeros(2),
    "posterior": NormalPosterior,
}

IMAGES: Names = {
    "denoiser": image_denoiser,
    "x": lambda: images()[0],
    "image": lambda: images()[0],
}

MEASURED: Names = {"denoiser": unconditional, "y": lambda: rows()[0]}
MEMBERS: Names = {
    **dict.fromkeys(("denoiser_1", "denoiser_2", "denoiser_3"), unconditional),
    "averaged": lambda: diffusion.Averaged.of([unconditional()] * 2),
    "x": lambda: rows()[0][:3],
}

SPECIAL: dict[str, Names] = {
    "_engine/jobs.py:run_jobs": {
        "folds": lambda: [(slice(12), slice(12, 24)), (slice(12, 24), slice(12))],
        "executor": lambda: ThreadPoolExecutor(1),
    },
    "bnn/_ensembles/fit_members.py:fit_members": {
        "executor": lambda: ThreadPoolExecutor(1),
    },
    "_training/learner.py:AbstractLearner.capability": {
        "state": lambda: COMMON["learner"]().init(network(), key=key()),
    },
    "diffusion/_denoiser/guidance.py:Guided": {
        "denoiser": lambda: guidable(denoiser())
    },
    "diffusion/_denoiser/autoguidance.py:Autoguided": {
        "denoiser": unconditional,
        "weak": unconditional,
    },
    "diffusion/_denoiser/averaged.py:Averaged": {
        **dict.fromkeys(("denoiser_1", "denoiser_2", "denoiser_3"), unconditional),
        "make_denoiser": lambda: lambda key: unconditional(),
    },
    "diffusion/_denoiser/averaged.py:Averaged.drawn": {"denoiser": unconditional},
    "diffusion/_denoiser/linearised.py:Linearised": {"denoiser": unconditional},
    "diffusion/_loss/denoising_rows.py:DenoisingRows": {"denoiser": unconditional},
    "diffusion/_members/samples.py:sample_members": MEMBERS,
    "diffusion/_members/samples.py:MemberSamples.least_doubtful": MEMBERS,
    "diffusion/_members/log_probs.py:log_prob_members": MEMBERS,
    "metrics/_local_c2st.py:local_c2st": CHECKED,
    "metrics/_posterior_checks.py:draws_for_each": CHECKED,
    "diffusion/_sbi/fit.py:fit_posterior": {"fit_posterior": short_fit, **SIMULATOR},
    "diffusion/_sbi/posterior.py:SimulatorPosterior": {
        "fit_posterior": short_fit,
        **SIMULATOR,
    },
    "diffusion/nn/_encoded.py:Encoded": {
        "encoder_key": key,
        "net_key": key,
    },
    "diffusion/nn/_condition.py:GuidedCondition": {
        "denoiser": lambda: guidable(denoiser()),
        "labels": POINTS["labels"],
    },
    # Exact on a vector, which an image would take a minute for.
    "diffusion/_density/log_prob.py:log_prob": {
        "denoiser": unconditional,
        "x": lambda: rows()[0][0],
        "image": lambda: rows()[0][0],
        "images": lambda: rows()[0],
    },
    "diffusion/_density/log_prob.py:decode_with_log_prob": {
        "denoiser": unconditional,
    },
    "diffusion/_sampler/start.py:add_noise": {"denoiser": unconditional},
    **{
        f"diffusion/_posterior/{place}": MEASURED
        for place in (
            *("observation.py:Observation", "observation.py:Measured"),
            *("condition.py:condition", "mmps.py:MMPS", "tmpd.py:TMPD"),
            *("pigdm.py:PiGDM", "dps.py:DPS", "diffpir.py:DiffPIR"),
            *("twisted_smc.py:sample_particles", "split_gibbs.py:SplitGibbs"),
            *("replacement.py:Replacement", "repaint.py:RePaint"),
            "report.py:solve_report",
        )
    },
    "testing/_check_denoiser.py:check_denoiser": {
        "denoiser": lambda: testing.GaussianMixtureDenoiser(
            testing.eight_gaussians(), diffusion.VP.linear()
        ),
        "x": lambda: jnp.asarray([[1.0, 0.0]]),
    },
    "diffusion/_density/map_examples.py:map_examples": {
        "denoiser": unconditional,
        "images": lambda: rows()[0],
    },
    "bnn/_laplace/train_by_evidence.py:train_by_evidence": {
        "train_by_evidence": lambda: functools.partial(
            bnn.train_by_evidence, num_rounds=2, num_steps=2
        ),
    },
    "diffusion/_sampler/exponential.py:ExpAB": IMAGES,
    "diffusion/_sampler/sample.py:sample": IMAGES,
    "diffusion/_loss/loss.py:DenoisingLoss": {"denoiser": unconditional},
    "diffusion/_velocity/velocity_field.py:VelocityField": {"net": POINTS["net"]},
    "diffusion/_loss/flow_matching.py:FlowMatchingLoss": {
        "field": velocity_field,
        "x_source": lambda: rows()[0],
    },
    "diffusion/_sampler/flow_sampler.py:FlowSampler": {"field": velocity_field},
    "diffusion/_density/flow_log_prob.py:flow_log_prob": {
        "field": velocity_field,
        "x": lambda: rows()[0][0],
        "rows": lambda: rows()[0][:2],
    },
    "plot/_plane.py:trajectories": {"denoiser": unconditional},
    "report/_diffusion.py:diffusion_report": {"denoiser": unconditional},
    "export/_sampler.py:export_sampler": {"denoiser": unconditional},
    "lightning/_module/diffusion.py:DiffusionModule": {
        "class_denoiser": lambda: guidable(image_denoiser(num_classes=10)),
    },
    "_engine/layout.py:Layout": {
        "ensemble": lambda: bnn.DeepEnsemble(bnn.MAP(joint(), optax.sgd(1e-3)), 2),
    },
    "_io/save.py:save": {"denoiser": denoiser},
    "_training/loader.py:ArrayLoader.batches": {
        "loader": lambda: jaxprob.ArrayLoader(rows(), batch_size=8),
        "epoch": lambda: 0,
        "start": lambda: 1,
    },
    "_training/loss_scale.py:dynamic_loss_scale": {
        "opt_state": loss_scale_state,
        "optimizer": lambda: jaxprob.dynamic_loss_scale(optax.adam(1e-3)),
        "objective": lambda: mean_squares,
    },
    "_training/non_finite.py:NonFiniteError": {"stepper": stepper},
    "bnn/_inference/refresh_statistics.py:refresh_statistics": {"posterior": refreshed},
    "bnn/_joint/check_data.py:check_data": {
        "y": lambda: np.arange(24) % 1,
    },
    "bnn/_joint/kl.py:kl": {
        "log_likelihood": lambda: jnp.zeros(()),
        "model": lambda: bnn.BayesianLinear(3, 8, key=key()),
    },
    "bnn/_laplace/tune_prior.py:tune_prior": {
        "method": laplace,
        "state": lambda: trained(laplace()),
    },
    "bnn/_posterior/mixture.py:Mixture": {
        "modes": lambda: [laplace_posterior(), laplace_posterior()],
    },
    "bnn/_posterior/save.py:save_posterior": {
        "state": lambda: trained(mean_field()),
        "make_model": lambda: lambda key: network(),
    },
    "bnn/_predictive/diagnose.py:diagnose": {"posterior": run_of_chains},
    "bnn/_predictive/summarise.py:summarise": {"posterior": run_of_chains},
    "bnn/_predictive/loo.py:loo": REGRESSION,
    "bnn/_predictive/loo.py:waic": REGRESSION,
    "bnn/_mcmc/bridge.py:log_evidence": REGRESSION,
    "bnn/_variational/ivon_optimizer.py:ivon": {"loss": lambda: mean_squares},
    "bnn/_weights/layers.py:BayesianLinear": {
        "batch": lambda: np.ones((4, 3), np.float32),
        "loss": lambda: jnp.zeros(()),
    },
    "bnn/_weights/random_leaves.py:Gaussian": {
        "model": lambda: eqx.nn.Linear(2, 3, key=key()),
    },
    "bnn/_weights/running_statistics.py:Stateful": {"Net": lambda: Net},
    "metrics/_error.py:bootstrap": {
        "y": lambda: rows()[1][:, 0],
        "mean": lambda: rows()[0][:, 0],
    },
    "metrics/_ood.py:auroc": {
        "probs_known": lambda: classes()[1],
        "probs_foreign": lambda: classes()[1],
    },
    "metrics/_wasserstein.py:sliced_wasserstein": dict.fromkeys(
        ("samples", "real", "more"), lambda: rows()[0]
    ),
    "recalibrate/_conformal.py:SplitConformal": {
        "y_val": lambda: rows()[1][:, 0],
        **dict.fromkeys(("mean_val", "mean_test"), lambda: rows()[0][:, 0]),
        **dict.fromkeys(("std_val", "std_test"), lambda: np.ones(24, np.float32)),
    },
    "recalibrate/_sets.py:AdaptiveSets": {
        "labels_val": lambda: classes()[0],
        "probs_val": lambda: classes()[1],
        "probs_test": lambda: classes()[1],
    },
    "recalibrate/_temperature.py:TemperatureScaling": {
        "labels_val": lambda: classes()[0],
        "log_probs_val": lambda: np.log(classes()[1]),
        "log_probs_test": lambda: np.log(classes()[1]),
    },
    "testing/_gaussian_mixture.py:GaussianMixtureDenoiser": {
        "x_t": POINTS["x_t"],
        "t": POINTS["t"],
    },
    "metrics/_simulations.py:rank_p_values": {"ranks": lambda: np.arange(63) % 9},
    "estimators/_classifier.py:BNNClassifier": {"y": lambda: np.arange(24) % 3},
    "tree/_select.py:freeze": {
        "model": lambda: {"embedding": jnp.ones(2), "head": jnp.ones(2)},
    },
    "tree/_activations.py:activations": {"x": lambda: rows()[0][0]},
}
"""Names of single blocks, by file and object."""


def module() -> Any:
    from jaxprob.lightning import LearnerModule

    return LearnerModule(COMMON["learner"](), network())


def trainer() -> Any:
    import pytorch_lightning as pl

    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def data_module() -> Any:
    from jaxprob.lightning import ArrayDataModule

    x, y = rows()
    return ArrayDataModule(
        train=(x, y), validation=(x, y), predict=(x, y), batch_size=8
    )


LIGHTNING: Names = {
    "module": module,
    "trainer": trainer,
    "data": data_module,
    "folder": lambda: ".",
    "fresh_model": network,
    "images": images,
    "labels": lambda: np.arange(16) % 10,
    "denoiser": image_denoiser,
    "predictive": lambda: bnn.predict(
        posterior(), bnn.NormalLikelihood(0.3), rows()[0], key=key()
    ),
}


PAGES: dict[str, Names] = {
    "training.md": {**LIGHTNING, "denoiser": unconditional},
    "extending.md": {"denoiser": unconditional},
    "diffusion.md": {
        **POINTS,
        "scaler": lambda: datasets.Standardizer.fit(rows()[0]),
    },
    "lightning.md": LIGHTNING,
    "inference.md": {"make_model": lambda: lambda key: network(), "Net": lambda: Net},
}
"""Names of the pages of the documentation."""
