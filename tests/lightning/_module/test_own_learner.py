"""A training rule of one's own, two optimisers, in `fit` and Lightning.

A game whose end is known: the generator moves standard normal noise by a shift, the
critic is linear with a penalty,

    max_w min_shift  w . (E[real] - shift) - |w|^2 / 2,

and its saddle is at shift = E[real], w = 0.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import make_trainer


class Game(eqx.Module):
    shift: Float[Array, " dim"]
    critic: Float[Array, " dim"]


class GameState(eqx.Module):
    model: Game
    opt_states: tuple


class Adversaries(jaxprob.AbstractLearner):
    """One step of each, the critic's on what the generator has become."""

    generator: optax.GradientTransformation
    critic: optax.GradientTransformation

    def init(self, model, *, key):
        states = self.generator.init(model.shift), self.critic.init(model.critic)
        return GameState(model, states)

    def update(self, state, batch, *, key):
        model, (first, second) = state.model, state.opt_states
        (x,), mask = jaxprob.unpack(batch)

        def value(shift, critic):
            noise = jax.random.normal(key, x.shape)
            scores = jax.vmap(lambda real, z: critic @ (real - shift - z))(x, noise)
            return jaxprob.masked_mean(scores, mask) - 0.5 * critic @ critic

        loss, slope = jax.value_and_grad(value)(model.shift, model.critic)
        updates, first = self.generator.update(slope, first)
        shift: Any = optax.apply_updates(model.shift, updates)
        rise = jax.grad(value, argnums=1)(shift, model.critic)
        updates, second = self.critic.update(jax.tree.map(jnp.negative, rise), second)
        critic: Any = optax.apply_updates(model.critic, updates)
        return GameState(Game(shift, critic), (first, second)), {"loss": loss}

    def evaluate(self, state, batch, *, key):
        (x,), mask = jaxprob.unpack(batch)
        distance = jax.vmap(lambda row: jnp.linalg.norm(row - state.model.shift))(x)
        return {"loss": jaxprob.masked_mean(distance, mask)}

    def model(self, state):
        return state.model


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return (np.array([2.0, -1.0]) + rng.normal(size=(500, 2))).astype(np.float32)


@pytest.fixture
def learner():
    # The critic is the faster of the two, or they would circle for ever.
    return Adversaries(optax.sgd(0.02), optax.sgd(0.2))


def start():
    return Game(jnp.zeros(2), jnp.zeros(2))


@pytest.mark.slow
def test_two_optimisers_find_the_saddle_of_their_game(learner, data):
    state, _ = jaxprob.fit(
        learner, start(), (data,), key=jax.random.key(0), num_epochs=80, batch_size=50,
        progress=False,
    )  # fmt: skip
    # The shift at the end averages noise of scale sqrt(2 / 50) over some fifty steps.
    np.testing.assert_allclose(state.model.shift, data.mean(0), atol=0.15)
    np.testing.assert_allclose(state.model.critic, 0.0, atol=0.2)


@pytest.mark.slow
def test_a_trainer_runs_them_at_any_number_of_steps_per_dispatch(
    learner, data, tmp_path
):
    def trained(steps):
        module = LearnerModule(learner, start(), steps_per_dispatch=steps)
        loaders = ArrayDataModule((data,), validation=(data,), batch_size=50)
        make_trainer(tmp_path, max_epochs=3).fit(module, loaders)
        assert module.trainer.global_step == 30
        return module.state

    assert eqx.tree_equal(trained(1), trained(7))
