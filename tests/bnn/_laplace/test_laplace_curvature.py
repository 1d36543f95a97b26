"""Curvature: units, constant outputs, forms of one likelihood, what is lost."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._laplace import curvature_pass as _laplace_pass


def fit(joint, model, batch, structure: Any = "full", **kwargs) -> Any:
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, **kwargs)
    return method.posterior(method.init(model), [batch])


def covariance(posterior):
    tau = posterior.tau()
    return np.asarray(
        posterior.curvature.covariance(tau, jnp.eye(tau.size, dtype=tau.dtype))
    )


class Weighted(dist.Distribution):
    """A row whose log-likelihood counts so much: no class of numpyro's."""

    support: Any = dist.constraints.real

    def __init__(self, base, weight):
        self.base, self.weight = base, weight
        super().__init__(base.batch_shape)

    def log_prob(self, value):
        return self.weight * self.base.log_prob(value)


class Beside(eqx.Module):
    """A prediction, and a known number of the row's own."""

    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(x[0])[0], x[1]


ROWS = {
    "weights": (lambda o: Weighted(dist.Normal(o[0], 1.0), o[1]), lambda n: n),
    "known noise": (lambda o: dist.Normal(*o), lambda n: 1.0 / n**2),
    "weights of learned noise": (
        lambda o: Weighted(dist.Normal(o[0], jax.nn.softplus(0.0 * o[1])), o[1]),
        lambda n: n / np.log(2.0) ** 2,
    ),
}


@pytest.mark.parametrize("unit", [1e-3, 1e3])
@pytest.mark.parametrize("name", ROWS)
def test_a_constant_output_changes_no_curvature(name, unit, getkey):
    """Exact: the sum of the rows' precisions times x x'."""
    likelihood, precision = ROWS[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2)).astype(np.float32)
    number = (unit * rng.uniform(0.1, 5.0, 50)).astype(np.float32)
    y = (unit * rng.normal(size=50)).astype(np.float32)
    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(1.0), num_data=50)
    model = Beside(eqx.nn.Linear(2, 1, key=getkey()))
    posterior = fit(joint, model, ((x, number), y))
    design = np.c_[x, np.ones(50)].astype(float)
    expected = design.T @ (precision(number.astype(float))[:, None] * design)
    assert np.allclose(posterior.curvature.matrix, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "unit"), [("student", 1e3), ("learned noise", 1e-3)]
)
def test_the_full_hessian_is_met_in_any_units_of_y(x64, likelihood, unit):
    """A linear model at its maximum: variances of f within 2.4 %."""
    rng = np.random.default_rng(1)
    num = 20_000
    x = rng.normal(size=(num, 2))
    noise = (
        rng.standard_t(4.0, num) if likelihood == "student" else rng.normal(size=num)
    )
    y = unit * (x @ [1.0, -0.5] + 0.3 * noise)
    design = np.c_[x, np.ones(num)]
    mode = np.linalg.lstsq(design, y, rcond=None)[0]
    scale = 0.3 * unit
    if likelihood != "student":
        scale = float(np.sqrt(np.mean((y - design @ mode) ** 2)))
    linear = eqx.nn.Linear(2, "scalar", key=jax.random.key(0))
    linear = eqx.tree_at(
        lambda m: (m.weight, m.bias), linear, (jnp.asarray(mode[None, :2]), mode[2])
    )
    linear = jax.tree.map(jnp.asarray, linear)
    model = linear
    if likelihood == "student":
        joint = bnn.LogJoint(
            bnn.StudentTLikelihood(scale, 4.0), bnn.IsotropicNormal(unit), num
        )
    else:
        model = bnn.LearnedNoise(linear, scale=max(scale, 2e-4))
        joint = bnn.LogJoint(
            bnn.HeteroscedasticNormal(), bnn.IsotropicNormal(unit), num
        )
    batch = (jnp.asarray(x), jnp.asarray(y))
    exact = fit(joint, model, batch, kind="hessian")
    posterior = fit(joint, model, batch)
    _, found = posterior.output_distribution(x[:5])
    _, expected = exact.output_distribution(x[:5])
    ratio = found[:, 0, 0] / expected[:, 0, 0]
    assert np.all(np.abs(ratio - 1) < 0.024)


FORMS = {
    "a sharpness": (
        lambda o: jnp.stack([0.0 * o[0], o[0] * jnp.exp(o[1])]),
        lambda z: dist.Categorical(logits=z),
        lambda z: dist.Categorical(probs=jax.nn.softmax(z)),
    ),
    "one logit": (
        lambda o: o[0] * jnp.exp(o[1]),
        lambda z: dist.Bernoulli(logits=z),
        lambda z: dist.Bernoulli(probs=jax.nn.sigmoid(z)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "structure"),
    [("a sharpness", "full"), ("one logit", "kronecker")],
)
def test_a_likelihood_written_twice_has_one_posterior(x64, getkey, name, structure):
    inner, first, second = FORMS[name]
    x = jax.random.normal(getkey(), (40, 2))
    y = (x[:, 0] > 0.2).astype(jnp.int32)
    model = eqx.nn.Linear(2, 2, key=getkey())
    found = []
    for outer in (first, second):
        joint = bnn.LogJoint(
            lambda o, outer=outer: outer(inner(o)), bnn.IsotropicNormal(1.0), 40
        )
        posterior = fit(joint, model, (x, y), structure)
        found.append((posterior.log_evidence(), covariance(posterior)))
    for a, b in zip(*found, strict=True):
        assert np.allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_zero_inflated_counts_have_the_hessian_of_the_log_joint(x64):
    """Two weights at their mode, beside quadrature of the posterior itself."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(60) < 0.45, 0, rng.poisson(1.2, 60)).astype(np.int32)
    batch = (jnp.ones((60, 1)), jnp.asarray(y))
    joint = bnn.LogJoint(
        lambda w: dist.ZeroInflatedPoisson(jax.nn.sigmoid(w[0]), jnp.exp(w[1])),
        bnn.IsotropicNormal(1.5),
        num_data=60,
    )

    class Two(eqx.Module):
        w: jax.Array

        def __call__(self, x):
            return self.w

    def log_joint(w):
        return joint(Two(w), batch, key=jax.random.key(0))

    def newton(mode, _):
        step = jnp.linalg.solve(jax.hessian(log_joint)(mode), jax.grad(log_joint)(mode))
        return mode - step, None

    mode, _ = jax.jit(lambda w: jax.lax.scan(newton, w, length=20))(jnp.zeros(2))
    expected = np.linalg.inv(-jax.jit(jax.hessian(log_joint))(mode))
    for kind in ("ggn", "hessian"):
        posterior = fit(joint, Two(mode), batch, kind=kind)
        assert np.allclose(covariance(posterior), expected, rtol=1e-8)
    grid = jnp.linspace(-6.0, 6.0, 121)
    values = jax.jit(jax.vmap(jax.vmap(log_joint)))(
        jnp.stack(jnp.meshgrid(grid, grid), -1)
    )
    evidence = jax.nn.logsumexp(values) + 2 * jnp.log(grid[1] - grid[0])
    assert abs(posterior.log_evidence() - evidence) < 0.1


@pytest.mark.slow
def test_the_exact_hessian_holds_the_network_s_own_curvature(x64, getkey):
    model = eqx.nn.MLP(2, 3, 4, 1, jnp.tanh, key=getkey())
    x = jax.random.normal(getkey(), (20, 2))
    y = jax.random.randint(getkey(), (20,), 0, 3)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(), 20)
    vector, unravel = jaxprob.tree.ravel(model)

    def negative(vector):
        return -joint(unravel(vector), (x, y), key=jax.random.key(0))

    slope, hessian = jax.jit(jax.grad(negative)), jax.jit(jax.hessian(negative))
    optimum = vector
    for _ in range(60):
        # Newton's method, damped until the Hessian is positive.
        values, vectors = np.linalg.eigh(hessian(optimum))
        step = vectors @ ((vectors.T @ slope(optimum)) / np.maximum(values, 1.0))
        optimum = optimum - step
    assert jnp.linalg.norm(slope(optimum)) < 1e-6
    exact = np.asarray(hessian(optimum))
    posterior = fit(joint, unravel(optimum), (x, y), kind="hessian")
    assert np.allclose(covariance(posterior), np.linalg.inv(exact), rtol=1e-6)
    with pytest.raises(FloatingPointError, match=r"not at a mode. Train longer"):
        fit(joint, unravel(10.0 * vector), (x, y), kind="hessian")
    with pytest.raises(ValueError, match=r"kind='hessian' with structure='diagonal'"):
        fit(joint, model, (x, y), "diagonal", kind="hessian")


def mixture(f):
    """Two noises beside each other: not log-concave in the output."""
    components = dist.Normal(jnp.stack([f[0], f[1]]), 0.2)
    return dist.MixtureSameFamily(dist.Categorical(probs=jnp.full(2, 0.5)), components)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_curvature_that_is_set_to_zero_is_told_of_with_its_share(structure):
    """Two components of a mixture that lie on one another pull apart."""
    linear = eqx.nn.Linear(1, 2, use_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.weight, linear, jnp.array([[0.001], [-0.001]]))
    x = jnp.ones((30, 1))
    y = jnp.where(jnp.arange(30) % 2 == 0, 1.0, -1.0)
    joint = bnn.LogJoint(mixture, bnn.IsotropicNormal(1.0), num_data=30)
    with pytest.warns(UserWarning, match=r"\d\d%.*negative.*kind='hessian'"):
        posterior = fit(joint, model, (x, y), structure)
    eigenvalues = np.linalg.eigvalsh(covariance(posterior))
    assert eigenvalues.min() > 0
    assert eigenvalues.max() < 1.001


@pytest.mark.slow
def test_a_low_rank_says_what_it_leaves_out(getkey):
    """The trace of what is left out, against the whole matrix; a warning where the
    data determine it."""
    model = eqx.nn.MLP(4, 3, 8, 1, key=getkey())
    x = jax.random.normal(getkey(), (60, 4))
    y = jax.random.randint(getkey(), (60,), 0, 3)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.IsotropicNormal(3.0), 60)
    full = np.asarray(fit(joint, model, (x, y)).curvature.matrix, float)
    with pytest.warns(UserWarning, match=r"rank=2 leaves out \d\d% of the curvature"):
        low = fit(joint, model, (x, y), "low_rank", rank=2)
    kept = np.sum(np.asarray(low.curvature.factor, float) ** 2)
    share = 1 - kept / np.trace(full)
    assert abs(low.curvature.left_out - share) < 0.1 * share


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["diagonal", "low_rank"])
def test_a_thousand_classes_take_bounded_memory(structure, getkey):
    """500 rows of 66,000 weights: Jacobians at once would be 130 GB."""
    model = eqx.nn.MLP(16, 1000, 64, 1, key=getkey())
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(), 500)
    flags = jax.tree.map(eqx.is_inexact_array, model)
    batch = (jnp.zeros((500, 16)), jnp.zeros(500, jnp.int32))
    columns = jnp.zeros((jaxprob.tree.count(model), 4))

    def sums(batch):
        return _laplace_pass._sums(
            joint, model, flags, batch, columns, structure, "ggn"
        )

    compiled = jax.jit(sums).lower(batch).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 2**28
