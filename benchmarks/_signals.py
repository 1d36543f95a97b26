"""Signals with independent increments, their posteriors by Gibbs sampling, and the
exact denoiser of their increments.

A signal x of length d is the running sum of increments u. Each is a Gaussian of a
random variance, u | v ~ N(0, v), so that u given v and a linear measurement is Gaussian
and v given u is a known distribution of one number. Gibbs sampling draws them in turn.
The denoiser of u in white noise is an integral over v for each entry.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxprob.diffusion import EDM, AbstractDenoiser, AbstractSchedule, Units

LENGTH = 64
_NUM_NODES = 72


class AbstractIncrement(eqx.Module):
    """An increment u with u | v ~ N(0, v)."""

    spike: eqx.AbstractVar[float]
    """Probability of u = 0, beside which v has its density."""

    @abc.abstractmethod
    def scales(self, u, *, key) -> jax.Array:
        """Draw v given u, for each entry of u that is not of the spike."""

    @abc.abstractmethod
    def prior_scales(self, shape, *, key) -> jax.Array:
        """Draw v."""

    @abc.abstractmethod
    def log_prob(self, u) -> jax.Array:
        """Return the log-density of u apart from the spike, for each entry."""

    @abc.abstractmethod
    def log_nodes(self) -> np.ndarray:
        """Return equally spaced log v, of at most `_NUM_NODES`."""

    @abc.abstractmethod
    def log_weight(self, v: np.ndarray) -> np.ndarray:
        """Return the logarithm of the density of log v, up to a constant."""

    @property
    @abc.abstractmethod
    def unit(self) -> float:
        """The 99 % point of |u| in units of a Gaussian's; no tail has a say in it."""

    def sample(self, shape, *, key):
        """Draw increments."""
        scale_key, noise_key, spike_key = jax.random.split(key, 3)
        v = self.prior_scales(shape, key=scale_key)
        u = jnp.sqrt(v) * jax.random.normal(noise_key, shape, v.dtype)
        return jnp.where(jax.random.bernoulli(spike_key, self.spike, shape), 0.0, u)


class Gaussian(AbstractIncrement):
    """u ~ N(0, 1)."""

    spike: float = eqx.field(static=True, default=0.0)

    def scales(self, u, *, key):
        return jnp.ones_like(u)

    def prior_scales(self, shape, *, key):
        return jnp.ones(shape)

    def log_prob(self, u):
        return jax.scipy.stats.norm.logpdf(u)

    def log_nodes(self):
        return np.zeros(1)

    def log_weight(self, v):
        return np.zeros_like(v)

    @property
    def unit(self):
        return 1.0


class Laplace(AbstractIncrement):
    """Density exp(-|u|) / 2, with a spike at 0: Bernoulli-Laplace; v ~ Exp(mean 2)."""

    spike: float = eqx.field(static=True, default=0.0)

    def scales(self, u, *, key):
        """Draw 1 / v from an inverse Gaussian of mean 1 / |u| and shape 1."""
        normal_key, side_key = jax.random.split(key)
        size = jnp.maximum(jnp.abs(u), 1e-200)
        w = jax.random.normal(normal_key, u.shape, u.dtype) ** 2 / (2.0 * size)
        # The two roots of Michael, Schucany and Haas (1976) over the mean are c and
        # 1 / c; this form of c has no difference of large numbers, and no square of
        # one: where u is 0, w is 1e200.
        c = 1.0 + w + jnp.sqrt(w) * jnp.sqrt(2.0 + w)
        large = jax.random.uniform(side_key, u.shape, u.dtype) * (1.0 + c) < c
        return size * jnp.where(large, c, 1.0 / c)

    def prior_scales(self, shape, *, key):
        return 2.0 * jax.random.exponential(key, shape)

    def log_prob(self, u):
        return -jnp.abs(u) - math.log(2.0)

    def log_nodes(self):
        return np.linspace(-16.0, 4.5, 62)

    def log_weight(self, v):
        return np.log(v) - v / 2.0

    @property
    def unit(self):
        # Of a spike the unit is that of the increments beside it.
        return -math.log(0.01) / 2.5758293


class Student(AbstractIncrement):
    """Student's t of some degrees of freedom: v ~ InverseGamma(dof / 2, dof / 2)."""

    dof: float = eqx.field(static=True)
    spike: float = eqx.field(static=True, default=0.0)

    def scales(self, u, *, key):
        shape = (self.dof + 1.0) / 2.0
        gamma = jax.random.gamma(key, shape, u.shape, u.dtype)
        return (self.dof + u**2) / (2.0 * gamma)

    def prior_scales(self, shape, *, key):
        return self.dof / (2.0 * jax.random.gamma(key, self.dof / 2.0, shape))

    def log_prob(self, u):
        return jax.scipy.stats.t.logpdf(u, self.dof)

    def log_nodes(self):
        # v exceeds its last node with a probability of about 1e-7.
        return np.linspace(-3.5, 32.0 / self.dof, _NUM_NODES)

    def log_weight(self, v):
        return -self.dof / 2.0 * (np.log(v) + 1.0 / v)

    @property
    def unit(self):
        return {1.0: 63.656741, 2.0: 9.9248432, 3.0: 5.8409093}[self.dof] / 2.5758293


INCREMENTS: dict[str, AbstractIncrement] = {
    "Gaussian": Gaussian(),
    "Laplace": Laplace(),
    "Bernoulli-Laplace": Laplace(spike=0.9),
    "Student t, 3": Student(dof=3.0),
    "Student t, 2": Student(dof=2.0),
    "Student t, 1": Student(dof=1.0),
}
OPERATORS = ("denoising", "blur", "sampling", "Fourier")


def operator(name: str) -> np.ndarray:
    """Return A, with rows of zeros where nothing is measured.

    `blur` has zeros beyond the ends, so that the last entry, which no increment
    follows, is measured; `sampling` keeps half of the entries and the last; `Fourier`
    the mean and the parts of 15 of the other 32 frequencies.
    """
    rng, eye = np.random.default_rng(0), np.eye(LENGTH)
    if name == "denoising":
        return eye
    if name == "blur":
        taps = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
        return np.stack([np.convolve(e, taps / taps.sum(), "same") for e in eye], 1)
    matrix = np.zeros((LENGTH, LENGTH))
    if name == "sampling":
        kept = np.append(rng.permutation(LENGTH - 1)[: LENGTH // 2 - 1], LENGTH - 1)
        matrix[kept] = eye[kept]
        return matrix
    kept = np.append(0, 1 + rng.permutation(LENGTH // 2)[:15])
    waves = np.fft.fft(eye, axis=1)[kept] / math.sqrt(LENGTH)
    # The imaginary part of the mean is 0, and is not measured.
    matrix[:16], matrix[16:31] = waves.real, waves.imag[1:]
    return matrix


def _integral(x, level, variances, log_weights):
    total = variances[:, None] + level**2
    logits = log_weights[:, None] - 0.5 * (x[None] ** 2 / total + jnp.log(total))
    weights = jax.nn.softmax(logits, axis=0)
    return x * jnp.sum(weights * (variances[:, None] / total), axis=0)


_posterior_mean = jax.custom_jvp(_integral)


@_posterior_mean.defjvp
def _posterior_mean_jvp(primals, tangents):
    """Each entry depends on one, so that a product of the Jacobian needs no nodes."""
    x, *rest = primals

    def others(*rest):
        return _integral(x, *rest)

    along_x, *along = tangents
    out, slope = jax.jvp(lambda x: _integral(x, *rest), (x,), (jnp.ones_like(x),))
    return out, slope * along_x + jax.jvp(others, tuple(rest), tuple(along))[1]


class IncrementDenoiser(AbstractDenoiser):
    r"""The exact posterior mean of increments in white noise.

    $$D(u, s)_k = u_k\ E\!\left[\frac{v}{v + s^2} \,\middle|\, u_k\right],$$

    by the trapezoid rule in log v, whose error falls exponentially for such integrands.
    """

    variances: Float[Array, " nodes"]
    log_weights: Float[Array, " nodes"]
    scale: Float[Array, ""]
    schedule: AbstractSchedule

    def __init__(self, increment: AbstractIncrement):
        nodes = increment.log_nodes()
        logs = increment.log_weight(np.exp(nodes))
        logs = logs - np.log(np.sum(np.exp(logs))) + np.log1p(-increment.spike)
        # One number of nodes, so that one program serves all increments. The spike is a
        # node of variance 0.
        rest = np.full(_NUM_NODES + 1 - len(nodes), -np.inf)
        rest[0] = np.log(increment.spike) if increment.spike else -np.inf
        variances = np.append(np.exp(nodes), np.zeros(len(rest)))
        self.variances = jnp.asarray(variances, jnp.result_type(float))
        self.log_weights = jnp.asarray(np.append(logs, rest), jnp.result_type(float))
        self.scale = jnp.asarray(increment.unit, jnp.result_type(float))
        self.schedule = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        return _posterior_mean(x, level, self.variances, self.log_weights)

    def standardised(self):
        unit = eqx.tree_at(
            lambda d: (d.variances, d.scale),
            self,
            (self.variances / self.scale**2, jnp.ones_like(self.scale)),
        )
        return unit, Units(0.0, self.scale, known=False)


def gibbs(
    increment: AbstractIncrement,
    matrix: Float[Array, "size dim"],
    y: Float[Array, " size"],
    noise: float | Float[Array, ""],
    u: Float[Array, " dim"],
    *,
    key,
    num_warmup: int,
    num_samples: int,
    thin: int = 1,
):
    """Return draws of u given y = matrix u + noise z, and their mean.

    With S = matrix diag(v) matrix^T + noise^2, u given v is drawn by correcting a draw
    of the prior. Which increments are not of the spike is drawn one by one given all v
    with u integrated out: given u it could never change. The mean is that of
    E[u | v, y], which has a smaller error than the mean of the draws.

    **Arguments:**

    - `matrix`: of the increments, A times the running sum. It may have rows of zeros.
    - `u`: where the chain begins.
    - `num_warmup`, `num_samples`, `thin`: sweeps without a draw, draws, and sweeps for
        each draw.
    """
    dim, eye = len(u), noise**2 * jnp.eye(len(y), dtype=y.dtype)
    odds = math.log1p(-increment.spike) - math.log(increment.spike or 1.0)

    def covariance(v):
        return (matrix * v[None]) @ matrix.T + eye

    def flips(v, there, key):
        """Draw which increments are there, with rank-one changes of the inverse."""
        inverse = jnp.linalg.inv(covariance(jnp.where(there, v, 0.0)))
        uniform = jax.random.uniform(key, (dim,), y.dtype)

        def change(inverse, along, weight):
            return inverse - jnp.outer(along, along) * weight

        def one(carry, row):
            inverse, there = carry
            k, uniform = row
            h = matrix[:, k]
            along = inverse @ h
            gap = jnp.where(there[k], -v[k] / (1.0 - v[k] * (h @ along)), 0.0)
            inverse = change(inverse, along, gap)
            along = inverse @ h
            size = 1.0 + v[k] * (h @ along)
            log_odds = odds - 0.5 * jnp.log(size)
            log_odds = log_odds + 0.5 * v[k] * (y @ along) ** 2 / size
            now = uniform < jax.nn.sigmoid(log_odds)
            inverse = change(inverse, along, jnp.where(now, v[k] / size, 0.0))
            return (inverse, there.at[k].set(now)), None

        return jax.lax.scan(one, (inverse, there), (jnp.arange(dim), uniform))[0][1]

    def sweep(carry, key):
        u, there = carry
        v_key, prior_key, flip_key, u_key, y_key = jax.random.split(key, 5)
        v = increment.scales(u, key=v_key)
        if increment.spike:
            v = jnp.where(there, v, increment.prior_scales(u.shape, key=prior_key))
            there = flips(v, there, flip_key)
            v = jnp.where(there, v, 0.0)
        factor = jax.scipy.linalg.cho_factor(covariance(v), lower=True)
        drawn = jnp.sqrt(v) * jax.random.normal(u_key, u.shape, u.dtype)
        rest = y - matrix @ drawn - noise * jax.random.normal(y_key, y.shape, y.dtype)
        both = jax.scipy.linalg.cho_solve(factor, jnp.stack([rest, y], axis=1))
        u = drawn + v * (matrix.T @ both[:, 0])
        return (u, there), v * (matrix.T @ both[:, 1])

    def draw(carry, key):
        carry, means = jax.lax.scan(sweep, carry, jax.random.split(key, thin))
        return carry, (carry[0], jnp.mean(means, axis=0))

    warm_key, key = jax.random.split(key)
    carry = u, jnp.abs(u) > 0.0
    carry, _ = jax.lax.scan(sweep, carry, jax.random.split(warm_key, num_warmup))
    _, (draws, means) = jax.lax.scan(draw, carry, jax.random.split(key, num_samples))
    return draws, jnp.mean(means, axis=0)
