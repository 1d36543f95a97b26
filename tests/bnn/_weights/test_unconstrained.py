"""Unconstrained coordinates: their map, its Jacobian, and densities through it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn
from jaxprob.bnn._joint.unconstrained_prior import UnconstrainedPrior
from jaxprob.bnn._weights.unconstrained import coordinates_of, log_volume, tangent
from jaxprob.tree._promotion import lenient_promotion

ORDERED = dist.TransformedDistribution(
    dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.transforms.OrderedTransform()
)
BOUNDS = dist.Uniform(jnp.array([0.0, -1.0]), jnp.array([1.0, 3.0]))

with jax.numpy_dtype_promotion("standard"):  # numpyro mixes dtypes
    LKJ, CHOLESKY, SMALL_LKJ = dist.LKJ(3, 2.0), dist.LKJCholesky(3, 2.0), dist.LKJ(2)

PRIORS = {
    "Gamma": (dist.Gamma(2.0, 1.5), ()),
    "LogNormal": (dist.LogNormal(0.2, 0.7), (2,)),
    "HalfNormal": (dist.HalfNormal(1.3), (2, 3)),
    "Beta": (dist.Beta(2.0, 3.0), (2,)),
    "Uniform": (dist.Uniform(-1.0, 2.0), ()),
    "bounds of each entry": (BOUNDS, (3, 2)),
    "event of entries": (dist.Gamma(2.0, 1.0).expand([3]).to_event(1), (3,)),
    "TruncatedNormal": (dist.TruncatedNormal(0.0, 1.0, low=-0.5), ()),
    "below": (dist.TruncatedNormal(0.0, 1.0, high=0.5), ()),
    "Dirichlet": (dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), (3,)),
    "rows of Dirichlet": (dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])), (2, 3)),
    "ordered": (ORDERED, (3,)),
    "LKJ": (LKJ, (3, 3)),
    "Cholesky factor": (CHOLESKY, (3, 3)),
}
PARTS = {"Dirichlet": [0, 1], "LKJ": [3, 6, 7], "Cholesky factor": [3, 6, 7]}
PARTS["rows of Dirichlet"] = [0, 1, 3, 4]
"""Entries that determine the others, to which numpyro's densities refer."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if len(shape) > 1 else ())
        for name, (_, shape) in PRIORS.items()
    ],
)
def test_coordinates_are_real_and_their_density_has_the_jacobian(name, getkey):
    prior, shape = PRIORS[name]
    entries = np.array(PARTS.get(name, range(np.prod(shape, dtype=int))))
    with lenient_promotion():
        drawn = prior.expand(shape[: len(shape) - prior.event_dim]).sample(getkey())
    free = bnn.unconstrained({"w": drawn}, prior, True)
    node = free["w"]
    assert isinstance(node, bnn.Unconstrained)
    assert eqx.tree_equal(bnn.unconstrained(free, prior, True), free)

    @jax.jit
    def computed(u):
        flat = u.ravel()
        # Any real numbers are coordinates of a value in the support.
        moved = u + 0.7 * jnp.cos(jnp.arange(u.size, dtype=u.dtype)).reshape(u.shape)

        def at(u):
            return {"w": bnn.Unconstrained(u, node.edge, node.shape)}

        def value(flat):
            return bnn.constrained(at(flat.reshape(u.shape)))["w"].ravel()[entries]

        w, there = bnn.constrained(at(u)), bnn.constrained(at(moved))
        with lenient_promotion():
            inside = jnp.all(prior.support(there["w"]))
        again = coordinates_of(free, there)["w"].coordinates
        densities = bnn.log_prior(prior, at(u)), bnn.log_prior(prior, w)
        volume, jacobian = log_volume(at(u)), jax.jacfwd(value)(flat)
        return w["w"], inside, again - moved, volume, jacobian, densities

    w, inside, error, volume, jacobian, (density, plain) = computed(node.coordinates)
    assert w.shape == shape
    assert inside
    assert np.allclose(w, drawn, atol=2e-6)
    assert np.allclose(error, 0.0, atol=1e-4)
    assert jacobian.shape[0] == jacobian.shape[1]
    expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    assert np.allclose(volume, expected, rtol=1e-4, atol=1e-4)
    assert np.allclose(density, plain + expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["Gamma", "Uniform", "TruncatedNormal", "below"])
def test_the_density_of_a_coordinate_integrates_to_one(name):
    prior, _ = PRIORS[name]
    model = bnn.unconstrained({"w": jnp.asarray(0.3)}, prior, True)
    grid = np.linspace(-14.0, 8.0, 4001, dtype=np.float32)

    def density(u):
        return bnn.log_prior(prior, jax.tree.map(lambda _: u, model))

    values = np.exp(np.asarray(jax.vmap(density)(grid), np.float64))
    assert np.trapezoid(values, grid) == pytest.approx(1.0, abs=1e-3)


def test_the_jacobian_is_not_tempered():
    """The density divided by T is that of p(w)^(1/T), a density over w."""
    prior = dist.Gamma(3.0, 2.0)
    free = bnn.unconstrained({"w": jnp.asarray(0.3)}, prior, True)
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), prior, 4, temperature=0.5)
    expected = bnn.log_prior(prior, {"w": jnp.asarray(0.3)}) / 0.5 + jnp.log(0.3)
    assert np.allclose(joint.log_prior(free) / 0.5, expected, rtol=1e-5)


def test_a_distribution_pushed_through_the_bijection_is_itself():
    """A LogNormal is a Normal in the logarithm, with all closed forms of one."""
    free = bnn.unconstrained({"w": jnp.asarray(2.0)}, dist.LogNormal(0.3, 0.5), True)
    node = free["w"]
    q = bnn.Gaussian.of(jnp.asarray(0.1), 0.2)
    tree = eqx.tree_at(lambda n: n.coordinates, node, q)
    exact = dist.kl_divergence(dist.Normal(0.1, 0.2), dist.Normal(0.3, 0.5))
    assert np.allclose(bnn.kl(tree, dist.LogNormal(0.3, 0.5)), exact, rtol=1e-5)


def test_the_prior_of_coordinates_draws_coordinates():
    """A uniform number is logistic in its coordinate."""
    bijector = dist.biject_to(dist.constraints.unit_interval)
    draws = UnconstrainedPrior(dist.Uniform(0.0, 1.0), bijector).sample(
        jax.random.key(0), (4000,)
    )
    assert np.mean(draws) == pytest.approx(0.0, abs=0.1)
    assert np.var(draws) == pytest.approx(np.pi**2 / 3, rel=0.1)


def test_an_event_has_one_density():
    """Also where the support is declared for each entry."""
    gamma = dist.Gamma(2.0, 1.0)
    event = gamma.expand([3]).to_event(1)
    u = jnp.array([0.1, 0.2, 0.3])
    found = UnconstrainedPrior(event, dist.transforms.ExpTransform()).log_prob(u)
    expected = jnp.sum(gamma.log_prob(jnp.exp(u)) + u)
    assert found.shape == ()
    assert np.allclose(found, expected, rtol=1e-5)


def test_the_tangent_is_linear_in_the_coordinates():
    free = bnn.unconstrained(
        {"w": jnp.asarray(2.0), "v": jnp.ones(2)},
        bnn.PriorByPath({"w": dist.Gamma(2.0, 1.0), "*": dist.Normal(0.0, 1.0)}),
        True,
    )
    moved = jax.tree.map(lambda u: u + 0.5, free)
    out = tangent(free, moved)
    assert np.allclose(out["w"], 2.0 * (1.0 + 0.5))  # not 2 exp(0.5)
    assert np.allclose(out["v"], 1.5)


def test_what_has_no_coordinates_is_named():
    def reject(prior, value, error, match):
        with pytest.raises(error, match=match):
            bnn.unconstrained({"scale": value}, prior, True)

    half, simplex = dist.HalfNormal(1.0), dist.Dirichlet(jnp.ones(3))
    reject(
        half,
        jnp.array([-1.0, 1.0]),
        ValueError,
        r"prior of scale, HalfNormal with support Positive.*1 of 2 entries",
    )
    reject(half, jnp.array([0.0, 1.0]), ValueError, "scale.*on the edge.*Start inside")
    reject(simplex, jnp.array([0.5, 0.2, 0.2]), ValueError, "scale.*outside")
    reject(ORDERED, jnp.array([0.0, 2.0, 1.0]), ValueError, "scale.*outside")
    reject(SMALL_LKJ, jnp.ones((2, 2)), ValueError, "scale.*(outside|on the edge)")
    reject(
        dist.ProjectedNormal(jnp.ones(2)),
        jnp.array([1.0, 0.0]),
        ValueError,
        r"scale, ProjectedNormal.*no bijection",
    )
    reject(half, jnp.asarray(1.0 + 1.0j), TypeError, "scale is complex64")

    @jax.jit
    def traced(high):
        prior = dist.Uniform(0.0, high)
        return bnn.constrained(bnn.unconstrained({"scale": jnp.ones(())}, prior, True))

    with pytest.raises(
        TypeError, match=r"scale.*bound of the prior's support is traced"
    ):
        traced(jnp.asarray(2.0))
