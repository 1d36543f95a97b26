"""Log-likelihoods of each row, or of each entry of its target, under each draw."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float, PyTree

from ..._random.keys import check_key, example_keys
from ..._types import PRNGKey
from .._joint.joint_distribution import JointDistribution
from .._joint.log_joint import LogJoint
from .._joint.row import as_row
from .._joint.target import check_target, log_likelihood_of, observe, values_of
from .._posterior.draws import DrawsPosterior
from .._posterior.posterior import AbstractPosterior

Unit = Literal["row", "entry"]
AT_ONCE = 64


def pointwise_log_likelihood(
    posterior: AbstractPosterior,
    log_joint: LogJoint,
    data: PyTree,
    *,
    unit: Unit = "row",
    num_samples: int = 1000,
    key: PRNGKey | None = None,
) -> Float[np.ndarray, "chains draws n"]:
    """Return the log-likelihood of each row, or of each entry of its target.

    **Arguments:**

    - `posterior`: of chains, with all draws; or one with a density, which is sampled.
    - `log_joint`: likelihood and `apply`.
    - `data`: `(x, y)`.
    - `unit`: `"row"`, or `"entry"` for targets whose entries are independent given the
        model, such as the times of a trajectory; those not observed are left out.
    - `num_samples`, `key`: draws from a posterior that is not one of chains.

    **Raises:** `ValueError` for a posterior of a few models, such as a point or an
    ensemble, and for entries of a distribution that are not independent.
    """
    if unit not in ("row", "entry"):
        raise ValueError(f"unit={unit!r}: it is 'row' or 'entry'")
    row = as_row(data)
    if row.weight is not None:
        raise ValueError(
            "data are (x, y, weight): what is left out is a row that counts once, so "
            "give (x, y) of a posterior that was trained without weights"
        )
    x, y = jax.tree.map(jnp.asarray, (row.x, row.y))

    def of_model(model):
        model = eqx.nn.inference_mode(model)

        def one(x, y):
            # A model that draws noise gets no key: it has no likelihood of a row.
            p = log_joint.likelihood(log_joint.apply(model, x, key=None))
            if unit == "row":
                return log_likelihood_of(p, y), jnp.ones((), bool)
            return _entries(p, y)

        return jax.vmap(one)(x, y)

    shape = (1, num_samples)
    if isinstance(posterior, DrawsPosterior):
        shape, index = posterior.shape, jnp.arange(posterior.num_atoms)
        draw = eqx.filter_jit(
            lambda p: jax.lax.map(
                lambda i: of_model(p.atom(i)), index, batch_size=AT_ONCE
            )
        )
    else:
        keys = _keys(posterior, num_samples, key)
        draw = eqx.filter_jit(
            lambda p: jax.lax.map(
                lambda k: of_model(p.sample(key=k)), keys, batch_size=AT_ONCE
            )
        )
    values, counts = draw(posterior)
    counts = np.asarray(counts[0]).ravel()
    values = np.asarray(values, np.float64).reshape(*shape, -1)[..., counts]
    if not np.isfinite(values).all():
        where = int(np.argwhere(~np.isfinite(values))[0, -1])
        raise ValueError(
            f"{unit} {where} has a log-likelihood that is not finite under some draw: "
            "correct its target, or use a likelihood with wider support"
        )
    return values


def _entries(p, y):
    """Log-densities of the entries of a target, and whether each counts."""
    if isinstance(p, JointDistribution):
        raise ValueError(
            f"the target is a dict of {', '.join(p.names)}: write unit='row'"
        )
    check_target(p, values_of(y))
    p, y = observe(p, y)
    mask = True
    while isinstance(p, dist.Independent | dist.MaskedDistribution):
        if isinstance(p, dist.MaskedDistribution):
            mask = mask & jnp.asarray(p._mask)
        p = p.base_dist
    if p.event_shape:
        raise ValueError(
            f"{type(p).__name__} has a joint density of {p.event_shape} entries: they "
            "are not independent, so write unit='row'"
        )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        values = jnp.broadcast_to(p.log_prob(y), jnp.shape(y))
    return values, jnp.broadcast_to(mask, jnp.shape(y))


def _keys(posterior, num_samples, key):
    if posterior.num_atoms is not None:
        raise ValueError(
            f"a {type(posterior).__name__} is {posterior.num_atoms} models, which are "
            "no draws from a posterior: use one of chains (NUTS, HMC), or one with a "
            "density (variational methods, Laplace)"
        )
    if key is None:
        raise ValueError(
            f"a {type(posterior).__name__} is sampled: give key=jax.random.key(0)"
        )
    check_key(key)
    return example_keys(key, num_samples)
