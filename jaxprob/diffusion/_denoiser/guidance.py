"""Classifier-free guidance: a denoiser from a conditional and a free one."""

import math
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey
from .._types import Cond, Level, Scalar
from ..nn import (
    Condition,
    GuidedCondition,
    as_condition,
    check_condition,
    no_condition,
    null_is_untrained,
)
from .denoiser import AbstractDenoiser, check_denoiser
from .wrapper import AbstractDenoiserWrapper

Strength: TypeAlias = float | Callable[[Level], Scalar]
"""A guidance strength w, or the strength at each noise level."""


class Guided(AbstractDenoiserWrapper):
    r"""Classifier-free guidance, $D(x, c) + w\,(D(x, c) - D(x, n))$.

    The condition n to guide away from is none by default, $D(x)$: the same denoiser
    must then have been trained with the condition left out of some rows, see
    `DenoisingLoss(cond_dropout=...)`. A network whose vector for "no condition" was
    never trained is rejected. Strength 0 is the conditional denoiser. Any other
    strength samples from a distribution that is sharper than the one that was trained.
    Outside the interval of levels w is 0.

    Reference: *Classifier-Free Diffusion Guidance*, Ho and Salimans, 2022; *Applying
    Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion
    Models*, Kynkäänniemi et al., 2024; *Common Diffusion Noise Schedules and Sample
    Steps Are Flawed*, Lin et al., 2024, section 3.4 (rescaling).

    ```python
    guided = Guided(denoiser, 2.0, interval=(0.2, 5.0))
    cond = jnp.arange(10)
    draws = sample(guided, ExpAB(), key=key, num_samples=10, shape=shape, cond=cond)
    ```

    **Arguments:**

    - `denoiser`: takes a condition, as an `nn.Condition` that is present or absent; a
        user's network reads it by `nn.when_present`.
    - `strength`: w, or a function of the level; the "guidance scale" of some libraries
        is w + 1. `None` where each sample has its own, in `nn.GuidedCondition`.
    - `interval`: noise levels between which guidance acts, in units of the data's
        standard deviation.
    - `rescale`: $\phi$ in [0, 1]. The predicted data, standardised, are multiplied by
        $1 - \phi + \phi\,\sigma_c/\sigma_g$, with the standard deviations over an
        example's coordinates of the conditional and of the guided prediction, so that
        strong guidance saturates no pixels. 0.7 in Lin et al.; for images, not tables.
    - `null`: condition of one example to guide away from in all samples: a value that
        stands for no condition, as in `DenoisingLoss(null=...)`, or a negative one. The
        network then gets plain conditions. `nn.GuidedCondition` has one of each sample.
    """

    denoiser: AbstractDenoiser
    strength: Strength | None
    null: PyTree
    interval: tuple[float, float] = eqx.field(static=True)
    rescale: float = eqx.field(static=True)

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        strength: Strength | None,
        *,
        interval: tuple[float, float] = (0.0, math.inf),
        rescale: float = 0.0,
        null: PyTree = None,
    ):
        check_denoiser(denoiser)
        check_strength(strength)
        check_interval(interval)
        if not 0.0 <= rescale <= 1.0:
            raise ValueError(f"rescale={rescale}: give a number in [0, 1], e.g. 0.7")
        if null is not None:
            check_condition(
                denoiser, jax.tree.map(lambda a: jnp.asarray(a)[None], null)
            )
        elif strength != 0.0 and null_is_untrained(denoiser):
            raise ValueError(
                f"strength={strength}: the network's vector for no condition is zero, "
                "so it was never trained, and there is no denoiser to guide away from. "
                "Train with DenoisingLoss(cond_dropout=0.1), or sample without guidance"
            )
        self.denoiser = denoiser
        self.strength = float(strength) if isinstance(strength, int) else strength
        self.null = null
        self.interval = interval
        self.rescale = float(rescale)

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        guide = cond if isinstance(cond, GuidedCondition) else GuidedCondition(cond)
        strength = self._strength_of(guide)
        is_zero = isinstance(strength, float) and strength == 0.0
        if is_zero or not jax.tree.leaves(guide.value):
            return self.denoiser.denoise(x, level, guide.value, key=key)
        negative = self.null if guide.negative is None else guide.negative
        # One call of the network on a doubled batch.
        both = jax.tree.map(lambda *c: jnp.stack(c), *_pair(guide.value, negative))
        conditional, free = jax.vmap(
            lambda cond: self.denoiser.denoise(x, level, cond, key=key)
        )(both)
        w = strength_at(strength, self.interval, level).astype(x.dtype)
        guided = conditional + w * (conditional - free)
        return self._rescaled(conditional, guided) if self.rescale else guided

    def _strength_of(self, guide):
        if self.strength is None and guide.strength is None:
            raise ValueError(
                "Guided(denoiser, None) takes the strength of each sample from its "
                "condition: write cond=nn.GuidedCondition(cond, strength=...)"
            )
        if self.strength is not None and guide.strength is not None:
            raise ValueError(
                f"strength={self.strength}, and each sample has its own in its "
                "nn.GuidedCondition: write Guided(denoiser, None)"
            )
        return guide.strength if self.strength is None else self.strength

    def _rescaled(self, conditional, guided):
        _, units = self.denoiser.standardised()
        target = jnp.std(units.to_unit(conditional))
        unit = units.to_unit(guided)
        spread = jnp.std(unit)
        # A constant example has no standard deviation to restore.
        flat = spread == 0.0
        ratio = jnp.where(flat, 1.0, target / jnp.where(flat, 1.0, spread))
        return units.to_data(unit * (1.0 - self.rescale + self.rescale * ratio))


def strength_at(
    strength: Strength | Scalar | None, interval: tuple[float, float], level: Level
) -> Scalar:
    """Return the strength at a level, 0 outside the interval."""
    w = strength(level) if callable(strength) else strength
    assert w is not None
    acts = (level > interval[0]) & (level < interval[1])
    return jnp.where(acts, w, jnp.zeros_like(jnp.asarray(w)))


def _pair(cond, negative):
    """Return the condition and what to guide away from, of the same shapes."""
    if negative is None:
        return as_condition(cond), no_condition(cond)

    def is_leaf(node):
        return isinstance(node, Condition)

    def as_in(leaf, other):
        if isinstance(leaf, Condition) and not isinstance(other, Condition):
            return Condition(as_in(leaf.value, other), jnp.ones_like(leaf.present))
        if isinstance(leaf, Condition):
            return other
        leaf = jnp.asarray(leaf)
        return jnp.broadcast_to(jnp.asarray(other, leaf.dtype), leaf.shape)

    return cond, jax.tree.map(as_in, cond, negative, is_leaf=is_leaf)


def check_strength(strength: Strength | None) -> None:
    """Check that a strength is a finite number, a function of the level, or `None`.

    **Raises:** `ValueError`.
    """
    if strength is None or callable(strength):
        return
    if not math.isfinite(strength):
        raise ValueError(
            f"strength={strength}: give a finite number; 0 is no guidance, 1 to 5 are "
            "usual"
        )


def check_interval(interval: tuple[float, float]) -> None:
    """Check that an interval of levels is not empty.

    **Raises:** `ValueError`.
    """
    if not interval[0] < interval[1]:
        raise ValueError(f"interval={interval}: from a lower to a higher level")
