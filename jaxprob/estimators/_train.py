"""From numbers to a posterior: network, ensemble, chains."""

import warnings
from typing import Any

import equinox as eqx
import jax
import numpy as np
from sklearn.utils import check_random_state

from .. import bnn
from .._engine.fit import fit as fit_learner
from ..datasets import Standardizer
from ._compiled import Fitted
from ._effort import chosen_method, recipe_of
from ._methods import make_chains, make_joint, make_method
from ._noise import Noise
from ._stopping import FEWEST, STOPPED, steps_of_least_loss


def train(
    estimator: Any,
    x: np.ndarray,
    targets: np.ndarray,
    noise: Noise,
    sample_weight: np.ndarray | None = None,
) -> Fitted:
    """Standardise the inputs, build the networks and train them.

    **Arguments:**

    - `estimator`: its settings are read, and `history_` is set.
    - `x`, `targets`: rows, as the likelihood of `noise` takes them.
    - `noise`: with several wrappers the networks are divided between them.
    - `sample_weight`: `(rows,)`.
    """
    seed = check_random_state(estimator.random_state).randint(2**31 - 1)
    model_key, fit_key, posterior_key, predict_key = jax.random.split(
        jax.random.key(seed), 4
    )
    scaler = Standardizer.fit(x, constant="keep")
    data = (scaler(x).astype(np.float32), targets)
    if sample_weight is not None:
        data = (*data, sample_weight.astype(np.float32))
    network = make_network(estimator, x.shape[1], noise.num_outputs, model_key)
    run = Run(estimator, noise, data)
    parts, histories = [], []
    for index, wrap in enumerate(noise.wraps):
        keys = [jax.random.fold_in(k, index) for k in (fit_key, posterior_key)]
        posterior, history = run(wrap(network), *keys)
        parts.append(posterior)
        histories.append(history)
    estimator.history_ = histories[0] if len(histories) == 1 else histories
    posterior = parts[0] if len(parts) == 1 else bnn.Mixture(parts)
    num_samples = estimator.num_samples
    return Fitted(posterior, noise.likelihood, scaler, predict_key, num_samples)


class Run:
    """The training of models on a table, by the method and effort of an estimator."""

    def __init__(self, estimator: Any, noise: Noise, data: tuple[np.ndarray, ...]):
        self.estimator = estimator
        self.noise = noise
        self.data = data

    def __call__(
        self, model: Any, fit_key: Any, posterior_key: Any
    ) -> tuple[bnn.AbstractPosterior, Any]:
        """Return the posterior over models, and the history of the training."""
        e, rows = self.estimator, len(self.data[0])
        recipe = recipe_of(e.effort, e._recipes)
        name = chosen_method(e.method, e.effort, rows)
        num_steps = e.num_steps or recipe.num_steps

        def make(num_data):
            return make_method(
                name,
                self.noise.likelihood,
                prior_scale=e.prior_scale,
                num_data=num_data,
                num_steps=recipe.num_steps if e.num_steps is None else e.num_steps,
                num_members=max(2, recipe.num_members // len(self.noise.wraps)),
                learning_rate=e.learning_rate,
            )

        method = make(rows)
        try:
            if e.num_steps is None and name in STOPPED:
                num_steps = self._stopped(make, model, fit_key, num_steps)
            state, history = fit_learner(
                method,
                model,
                self.data,
                key=fit_key,
                num_steps=num_steps,
                batch_size=min(e.batch_size, rows),
                progress=e.verbose,
            )
        except KeyboardInterrupt as error:
            state, history = _kept(error, num_steps)
            return method.posterior(state, [self.data], key=posterior_key), history
        posterior = method.posterior(state, [self.data], key=posterior_key)
        if name == "chains":
            transitions = recipe.transitions(rows)
            posterior = self._chains(model, posterior, posterior_key, transitions)
        return posterior, history

    def _stopped(self, make, model, key, num_steps):
        if len(self) < FEWEST:
            return num_steps
        return steps_of_least_loss(
            make,
            self.noise.likelihood,
            model,
            self.data,
            key=key,
            num_steps=num_steps,
            batch_size=self.estimator.batch_size,
            progress=self.estimator.verbose,
        )

    def _chains(self, model, starts, key, transitions):
        joint = make_joint(self.noise.likelihood, self.estimator.prior_scale, len(self))
        chains = make_chains(joint, starts, num_transitions=transitions)
        try:
            return bnn.run_chains(
                chains,
                model,
                self.data,
                key=key,
                progress=self.estimator.verbose,
                check_mixing=False,  # each chain explores the mode of its network
            )
        except KeyboardInterrupt:
            warnings.warn(
                "fit was interrupted while its chains ran. The posterior is the "
                "ensemble of the networks at which they started",
                stacklevel=5,
            )
            return starts

    def __len__(self) -> int:
        return len(self.data[0])


def _kept(error, num_steps):
    """State and history of an interrupted training, if there are any."""
    found = vars(error)
    if not found.get("step"):
        raise error
    warnings.warn(
        f"fit was interrupted after {found['step']} of {num_steps} training steps. The "
        "estimator predicts with the networks as they are",
        stacklevel=5,
    )
    return found["state"], found["history"]


def make_network(estimator: Any, num_features: int, num_outputs: int, key: Any) -> Any:
    """Return the network of an estimator's settings."""
    if callable(estimator.network):
        return estimator.network(num_features, num_outputs, key=key)
    sizes = tuple(estimator.hidden)
    if not sizes:
        return eqx.nn.Linear(num_features, num_outputs, key=key)
    if len(set(sizes)) > 1:
        raise ValueError(
            f"hidden={sizes}: the built-in network has hidden layers of one width. For "
            "other networks give network=(num_features, num_outputs, key) -> module"
        )
    return eqx.nn.MLP(
        num_features, num_outputs, sizes[0], len(sizes), silu, identity, key=key
    )


def silu(x: jax.Array) -> jax.Array:
    """Return `jax.nn.silu(x)`; pickle cannot find the original, which jit wraps."""
    return jax.nn.silu(x)


def identity(x: jax.Array) -> jax.Array:
    """Return x. pickle finds this name."""
    return x
