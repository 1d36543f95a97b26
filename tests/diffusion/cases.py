"""The schedules that every contract test runs over."""

import jax.numpy as jnp

from jaxprob.diffusion import (
    EDM,
    VE,
    VP,
    Cosine,
    CustomSchedule,
    RectifiedFlow,
    Shifted,
    SubVP,
)

SCHEDULES = {
    "vp_linear": lambda: VP.linear(),
    "vp_kidger": lambda: VP(lambda t: t, t_max=10.0),
    "vp_square": lambda: VP(lambda t: 0.1 * t + 2.0 * t**2, t_max=2.0),
    "vp_softplus": lambda: VP(lambda t: t + jnp.log1p(t), t_max=8.0),
    "ve": lambda: VE(0.01, 50.0),
    "sub_vp": lambda: SubVP(),
    "sub_vp_numerical": lambda: SubVP(VP(lambda t: t, t_max=10.0)),
    "edm": lambda: EDM(),
    "cosine": lambda: Cosine(),
    "rectified": lambda: RectifiedFlow(),
    "shifted": lambda: Shifted(Cosine(), 4.0),
    "custom_cosine": lambda: like(Cosine()),
    "custom_ve": lambda: like(VE(0.01, 50.0)),
}


def like(schedule):
    """A schedule given by the alpha and sigma of another, and nothing else of it."""
    ends = {"t_max": schedule.t_max, "t_min": schedule.t_min}
    return CustomSchedule(schedule.alpha, schedule.sigma, **ends)


def times(schedule, num=17):
    """Times strictly inside, thick near both ends."""
    u = (1.0 - jnp.cos(jnp.pi * jnp.linspace(0.01, 0.995, num))) / 2.0
    return schedule.t_min + (schedule.t_max - schedule.t_min) * u
