"""A loss that ends far above where it has been is warned of, and no other."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob._training.divergence import has_diverged


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [1e6],
        [1e6, 3.0, 1.0],
        [3.0, 1.0, 2.5],  # a warm restart
        [-1.0, -3.0, -2.0],
        [0.0, 5.0],  # within ten units of one
        [2.0, 1.0, np.nan],  # another check's
        [-3.79, -3.8, -3.7],
    ],
)
def test_a_loss_that_wanders_has_not_diverged(losses):
    assert not has_diverged(losses)


@pytest.mark.parametrize(
    "losses", [[3.0, 1.0, 1e3], [-3.0, -3.5, 76.9], [1.0, 4e6], [1e3, 1e2, 1e6]]
)
def test_a_loss_that_rises_by_orders_of_magnitude_has(losses):
    assert has_diverged(losses)


@pytest.mark.slow
def test_fit_warns_of_divergence_that_stays_finite(getkey):
    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.sum((model(x) - y) ** 2)

    x = np.linspace(-2.0, 2.0, 32, dtype=np.float32)[:, None]
    model = eqx.nn.Linear(1, 1, key=getkey())
    learner = jaxprob.GradientDescent(loss, optax.sgd(1.2))
    with pytest.warns(UserWarning, match="the run has diverged, though every number"):
        jaxprob.fit(learner, model, (x, x), key=getkey(), num_epochs=6, progress=False)
