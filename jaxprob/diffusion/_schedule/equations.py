r"""The equations between the methods of a schedule, checked at some times.

$\log\mathrm{SNR} = 2 \log(\alpha/\sigma)$ falls, $f = d\log\alpha/dt$ and
$g^2 = d\sigma^2/dt - 2 f \sigma^2$. A schedule that breaks one of them gives samples
and densities that are finite and wrong.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

# Interior times, dense near the ends: the ends themselves may be singular.
_TIMES = (1.0 - np.cos(np.pi * np.linspace(0.05, 0.95, 33))) / 2.0

# Relative. Mistakes are a factor of two or a missing term, far above rounding.
_TOLERANCE = 0.02

# Largest level that counts as clean data, at time 0 and at a later t_min. It holds
# where alpha falls, so that the data are of order one.
CLEAN, CUT = 0.01, 0.05

# The same relative to the last level, where the data may have any scale.
_CLEAN_PART = 0.01


def check_equations(schedule: Any) -> None:
    """Check a schedule against its own equations.

    A schedule that is being traced, e.g. in training, is not checked.

    **Raises:** `ValueError` or `TypeError` that names the method and the time.
    """
    name = type(schedule).__name__
    t_min, t_max = _ends(schedule, name)
    times = t_min + (t_max - t_min) * _TIMES
    with jax.ensure_compile_time_eval():
        # In one array: operations compile for each shape.
        all_times = _Values(schedule, name, np.array([t_min, *times, t_max]))
    if all_times.traced:
        return
    at, at_ends = all_times.part(slice(1, -1)), all_times.part(np.array([0, -1]))
    _check_values(name, at, at_ends)
    _check_log_snr(name, at)
    # Before what is derived from the inverse.
    _check_inverse(name, at)
    _check_level(name, at)
    _check_beginning(name, at_ends)
    _check_digits(schedule, name, t_min, t_max)
    _check_rates(name, at)


class _Values:
    """All methods of a schedule at some times, and derivatives."""

    def __init__(self, schedule, name, times):
        self.times = times
        t = jnp.asarray(times, jnp.result_type(float))
        methods = {
            "alpha": schedule.alpha,
            "sigma": schedule.sigma,
            "log_snr": schedule.log_snr,
            "drift": schedule.drift,
            "squared_diffusion": schedule.squared_diffusion,
            "alpha_dot": schedule.alpha_dot,
            "sigma_dot": schedule.sigma_dot,
            "level": schedule.level,
            "alpha_of_level": lambda t: schedule.alpha_of_level(schedule.level(t)),
        }
        self.values, self.slopes = {}, {}
        for method, call in methods.items():
            slope = method in ("alpha", "sigma")
            self.values[method], self.slopes[method] = _evaluated(
                call, f"{name}.{method}", t, slope
            )
        self.traced = any(isinstance(v, Tracer) for v in self.values.values())
        if self.traced:
            return
        back, _ = _evaluated(
            lambda log_snr: schedule.log_snr(schedule.time_of_log_snr(log_snr)),
            f"{name}.time_of_log_snr",
            jnp.asarray(self.values["log_snr"]),
            False,
        )
        self.values["log_snr of time_of_log_snr"] = back
        self.values = {k: np.asarray(v, np.float64) for k, v in self.values.items()}
        self.slopes = {
            k: None if v is None else np.asarray(v, np.float64)
            for k, v in self.slopes.items()
        }

    def part(self, places):
        """Return the values at some of the times."""
        part = copy.copy(self)
        part.times = self.times[places]
        part.values = {k: v[places] for k, v in self.values.items()}
        part.slopes = {
            k: None if v is None else v[places] for k, v in self.slopes.items()
        }
        return part

    def __getitem__(self, method):
        return self.values[method]

    def slope(self, method):
        slope = self.slopes[method]
        assert slope is not None
        return slope

    def worst(self, excess):
        """Return the index and time of the largest positive excess, or None."""
        excess = np.where(np.isnan(excess), np.inf, excess)
        index = int(np.argmax(excess))
        return None if excess[index] <= 0 else (index, self.times[index])


def _evaluated(call, name, t, slope):
    """Return the values of a function at times, and its derivatives if `slope`."""

    def one(t):
        value = jnp.asarray(call(t))
        if value.shape != ():
            raise ValueError(
                f"{name}(t) has shape {value.shape}: it is one number for one time"
            )
        return value

    try:
        if slope:
            return jax.vmap(lambda t: jax.jvp(one, (t,), (jnp.ones_like(t),)))(t)
        return jax.vmap(one)(t), None
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{name}(t) cannot be traced by JAX, and samplers and losses are compiled: "
            "write it with jax.numpy, without `if` on the time"
        ) from error


def _ends(schedule, name):
    ends = []
    for end, value in (("t_min", schedule.t_min), ("t_max", schedule.t_max)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise TypeError(f"{name}.{end} is a {type(value).__name__}: give a number")
        ends.append(float(value))
    if not (np.isfinite(ends).all() and ends[0] < ends[1]):
        raise ValueError(
            f"{name} has t_min={ends[0]:g} and t_max={ends[1]:g}; it needs "
            "t_min < t_max (data first, noise at the end)"
        )
    return ends


def _check_values(name, at, at_ends):
    for method in ("alpha", "sigma", "log_snr", "drift", "squared_diffusion"):
        bad = at.worst(np.where(np.isfinite(at[method]), -1.0, 1.0))
        if bad is not None:
            raise ValueError(
                f"{name}.{method}({bad[1]:.4g}) = {at[method][bad[0]]}: it must be "
                "finite between t_min and t_max"
            )
    for method in ("alpha", "sigma", "log_snr"):
        bad = at_ends.worst(np.where(np.isnan(at_ends[method]), 1.0, -1.0))
        if bad is not None:
            raise ValueError(
                f"{name}.{method} is NaN at the end of time t={bad[1]:g}: write a form "
                "that is defined there (a log-SNR may be infinite), or move the end"
            )
    for method in ("alpha", "sigma"):
        bad = at.worst(np.where(at[method] > 0, -1.0, 1.0))
        if bad is not None:
            raise ValueError(
                f"{name}.{method}({bad[1]:.4g}) = {at[method][bad[0]]:g}: it must be "
                "positive"
            )


def _check_log_snr(name, at):
    expected = 2.0 * np.log(at["alpha"] / at["sigma"])
    error = np.abs(at["log_snr"] - expected)
    bad = at.worst(error - _TOLERANCE * (1.0 + 0.5 * np.abs(expected)))
    if bad is not None:
        i, t = bad
        hint = ""
        if np.allclose(at["log_snr"], expected / 2.0, rtol=_TOLERANCE, atol=_TOLERANCE):
            hint = " It is log(alpha / sigma), half of the log-SNR."
        raise ValueError(
            f"{name}.log_snr({t:.4g}) = {at['log_snr'][i]:.4g}, but "
            f"2 log(alpha / sigma) = {expected[i]:.4g} there.{hint} Write "
            "2.0 * jnp.log(self.alpha(t) / self.sigma(t))"
        )
    rising = np.append(np.diff(at["log_snr"]), -1.0) >= 0
    bad = at.worst(np.where(rising, 1.0, -1.0))
    if bad is not None:
        i, t = bad
        raise ValueError(
            f"the noise level of {name} must rise with time, but sigma / alpha is "
            f"{np.exp(-at['log_snr'][i] / 2.0):.4g} at t={t:.4g} and "
            f"{np.exp(-at['log_snr'][i + 1] / 2.0):.4g} at t={at.times[i + 1]:.4g}: "
            "data are at t_min, noise at t_max"
        )


def _check_level(name, at):
    level = np.exp(-at["log_snr"] / 2.0)
    bad = at.worst(np.abs(at["level"] - level) - _TOLERANCE * level)
    if bad is not None:
        i, t = bad
        raise ValueError(
            f"{name}.level({t:.4g}) = {at['level'][i]:.4g}, but sigma / "
            f"alpha = {level[i]:.4g} there: leave the method out, it is derived"
        )
    error = np.abs(at["alpha_of_level"] - at["alpha"])
    bad = at.worst(error - _TOLERANCE * at["alpha"])
    if bad is not None:
        i, t = bad
        raise ValueError(
            f"{name}.alpha_of_level({level[i]:.4g}) = {at['alpha_of_level'][i]:.4g}, "
            f"but alpha = {at['alpha'][i]:.4g} at t={t:.4g}, which has that level: "
            "leave the method out, it is derived"
        )


def _check_beginning(name, at_ends):
    (alpha, _), (first, last) = at_ends["alpha"], np.exp(-at_ends["log_snr"] / 2.0)
    t_min = at_ends.times[0]
    if not abs(alpha - 1.0) <= 0.02:
        raise ValueError(
            f"{name}.alpha(t_min={t_min:g}) = {alpha:.4g}: x_t = alpha x_0 + sigma z "
            "begins at the data, so alpha must be 1 there"
        )
    _, alpha_last = at_ends["alpha"]
    limit = (CLEAN if t_min == 0.0 else CUT) if alpha_last < 0.5 else None
    if limit is None:
        limit = _CLEAN_PART * last
    if first > limit:
        raise ValueError(
            f"the noise level of {name} is {first:.3g} at t_min={t_min:g}, where the "
            f"data must be clean (below {limit:.2g}): whatever is finer is lost. Begin "
            "the schedule at sigma = 0, or at a smaller t_min"
        )


def _check_digits(schedule, name, t_min, t_max):
    """Check that sigma does not underflow where its power law says that it is there."""
    parts = np.array([1e-2, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
    times = t_min + (t_max - t_min) * parts
    times = times[(times > t_min * (1.0 + 1e-5)) | (parts > 1e-4)]
    with jax.ensure_compile_time_eval():
        t = jnp.asarray(times, jnp.result_type(float))
        sigma = np.asarray(jax.vmap(schedule.sigma)(t), np.float64)
    if not (sigma[0] > sigma[1] > 0.0):
        return
    power = np.log(sigma[0] / sigma[1]) / np.log(10.0)
    expected = sigma[1] * (parts[: len(times)] / 1e-3) ** power
    lost = (sigma <= 0.0) & (expected > 1e-30)
    if lost.any():
        i = int(np.argmax(lost))
        raise ValueError(
            f"{name}.sigma({times[i]:.3g}) = {sigma[i]:g} in {t.dtype}, where about "
            f"{expected[i]:.2g} is expected: a difference of numbers near 1, such as "
            "1 - alpha**2, has no digits left there. Write it in another form, e.g. "
            "jnp.sqrt(-jnp.expm1(-b)) for alpha = exp(-b / 2), or begin at a later "
            "t_min"
        )


def _check_rates(name, at):
    alpha, sigma, f, g2 = (
        at[m] for m in ("alpha", "sigma", "drift", "squared_diffusion")
    )
    alpha_dot, sigma_dot = at.slope("alpha"), at.slope("sigma")
    span = at.times[-1] - at.times[0]
    _compare(
        at, f"{name}.drift", f, alpha_dot / alpha, 1e-3 / span, "d log(alpha) / dt"
    )
    terms = 2.0 * sigma * sigma_dot, 2.0 * alpha_dot / alpha * sigma**2
    rounding = 1e-3 * (np.abs(terms[0]) + np.abs(terms[1]))
    _compare(
        at,
        f"{name}.squared_diffusion",
        g2,
        terms[0] - terms[1],
        rounding,
        "d(sigma^2) / dt - 2 f sigma^2",
    )
    for method, slope in (("alpha_dot", alpha_dot), ("sigma_dot", sigma_dot)):
        what = f"the derivative of {method[:5]}"
        _compare(at, f"{name}.{method}", at[method], slope, 1e-3 / span, what)


def _compare(at, method, value, expected, rounding, what):
    bad = at.worst(np.abs(value - expected) - _TOLERANCE * np.abs(expected) - rounding)
    if bad is not None:
        i, t = bad
        raise ValueError(
            f"{method}({t:.4g}) = {value[i]:.4g}, but {what} = {expected[i]:.4g} "
            "there, by automatic differentiation of the schedule's own alpha and sigma"
        )


def _check_inverse(name, at):
    back, expected = at["log_snr of time_of_log_snr"], at["log_snr"]
    bad = at.worst(
        np.abs(back - expected) - _TOLERANCE * (1.0 + 0.5 * np.abs(expected))
    )
    if bad is not None:
        i, t = bad
        raise ValueError(
            f"{name}.time_of_log_snr is not the inverse of log_snr: of the log-SNR "
            f"{expected[i]:.4g}, which t={t:.4g} has, it gives a time with the log-SNR "
            f"{back[i]:.4g}"
        )
