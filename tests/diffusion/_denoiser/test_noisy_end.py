"""The warning of a network that cannot tell the noise near pure noise."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    AbstractSchedule,
    Cosine,
    Preconditioned,
    Thresholded,
    from_x0,
    sample,
    to_x0,
)

KEY = jax.random.key(0)
NAMES = ("x0", "eps", "score", "v", "velocity")


class Exact(eqx.Module):
    """The exact network of standard normal data, times `1 + error`."""

    schedule: AbstractSchedule
    predict: str
    error: jax.Array

    def __call__(self, x, t, cond, *, key):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        x_t = x * jnp.sqrt(alpha**2 + sigma**2)
        x_0 = alpha / (alpha**2 + sigma**2) * x_t
        at = {"x": x_t / alpha, "level": sigma / alpha}
        out = from_x0(self.predict, x_0, self.schedule, **at)
        return (1.0 + self.error) * out


def of_unit_data(schedule, predict, error):
    net = Exact(schedule, predict, jnp.asarray(error))
    return Preconditioned(net, schedule, predict, condition_on="time")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "predict"), [(VP.linear(), "eps"), (Cosine(), "score"), (EDM(), "v")]
)
def test_an_error_of_the_noise_is_told(schedule, predict):
    def draw(error):
        denoiser = Thresholded(of_unit_data(schedule, predict, error), -9.0, 9.0)
        sample(denoiser, DDIM(2), key=KEY, num_samples=4, shape=(2,))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(0.0)
        if predict == "v":
            draw(0.03)
            return
    with pytest.warns(UserWarning, match=r"multiplies an error.*predict=.edm."):
        draw(0.03)


@pytest.mark.parametrize("predict", NAMES)
def test_the_gain_is_the_derivative_of_the_answer(predict):
    schedule, level = VP.linear(), jnp.asarray(0.7)
    x = jnp.asarray(0.3)
    slope = jax.grad(lambda out: to_x0(predict, out, schedule, x=x, level=level))(0.5)
    gain = of_unit_data(schedule, predict, 0.0).output_gain(level)
    assert jnp.allclose(gain, jnp.abs(slope), rtol=1e-5)
