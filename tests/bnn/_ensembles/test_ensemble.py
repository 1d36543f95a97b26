"""Ensembles: vectorised is the loop, anchored members are posterior draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian


@pytest.fixture
def data(getkey):
    x = jax.random.normal(getkey(), (20, 2))
    return x, jnp.sin(x[:, 0])


@pytest.fixture
def model(getkey):
    return eqx.nn.MLP(2, "scalar", 8, 1, key=getkey())


def method(**kwargs):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), 20)
    return bnn.MAP(joint, optax.adam(1e-2), **kwargs)


def run(learner, state, data, num, key):
    """Steps in a loop inside one program, as `jaxprob.Stepper` runs them."""
    stepper = jaxprob.Stepper(learner, state, key=key, steps_per_dispatch=4)
    metrics = stepper([tuple(np.asarray(a) for a in data)] * num)
    return stepper.state, metrics


class Member(jaxprob.AbstractLearner):
    """One member's method with the keys it has in the ensemble."""

    method: bnn.AbstractInference
    index: int

    def init(self, model, *, key):
        raise NotImplementedError

    def update(self, state, batch, *, key):
        return self.method.update(state, batch, key=jax.random.fold_in(key, self.index))

    def evaluate(self, state, batch, *, key):
        raise NotImplementedError

    def model(self, state):
        return self.method.model(state)


def assert_equal(a, b, atol):
    a, b = eqx.filter(a, eqx.is_array), eqx.filter(b, eqx.is_array)
    for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(p, q) if atol == 0 else np.allclose(p, q, atol=atol)


def regularised(key):
    keys = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 16, key=keys[0]),
            eqx.nn.LayerNorm(16),
            eqx.nn.Lambda(jax.nn.gelu),
            eqx.nn.Dropout(0.2),
            eqx.nn.Linear(16, "scalar", key=keys[1]),
        ]
    )


def perceptron(key):
    return eqx.nn.MLP(2, "scalar", 8, 1, key=key)


def convolution(key):
    keys = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Lambda(lambda x: x[None]),
            eqx.nn.Conv1d(1, 3, 2, key=keys[0]),
            eqx.nn.Lambda(lambda x: jnp.tanh(x).ravel()),
            eqx.nn.Linear(3, "scalar", key=keys[1]),
        ]
    )


def mean_field():
    return bnn.MeanFieldVI(method().log_joint, optax.adam(1e-2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "inner", "members"),
    [
        (perceptron, method, "loop"),
        (perceptron, method, "vmap"),
        pytest.param(perceptron, mean_field, "loop", marks=pytest.mark.slow),
        pytest.param(regularised, method, "loop", marks=pytest.mark.slow),
        pytest.param(regularised, method, "vmap", marks=pytest.mark.slow),
        pytest.param(convolution, method, "loop", marks=pytest.mark.slow),
    ],
)
def test_members_are_those_trained_alone(make, inner, data, members, getkey):
    """One after the other to the bit, side by side up to rounding."""
    model = make(getkey())
    ensemble = bnn.DeepEnsemble(inner(), 3, members=members)
    key = jax.random.key(7)
    state = eqx.filter_jit(lambda: ensemble.init(model, key=key))()
    starts = [ensemble.member(state, i) for i in range(3)]
    assert not np.array_equal(
        *(jax.tree.leaves(eqx.filter(s.model, eqx.is_array))[0] for s in starts[:2])
    )
    after, metrics = run(ensemble, state, data, 10, key)
    losses = []
    for i, start in enumerate(starts):
        alone, own = run(Member(inner(), i), start, data, 10, key)
        atol = 0.0 if members == "loop" else 1e-5
        assert_equal(alone, ensemble.member(after, i), atol)
        losses.append(own["loss"])
    assert np.allclose(np.mean(losses, 0), metrics["loss"], rtol=1e-5)


@pytest.mark.slow
def test_each_member_has_masks_of_its_own(data, getkey):
    """The draws of its key, as when it is trained alone."""
    model = eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 8, key=getkey()),
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(8, "scalar", key=getkey()),
        ]
    )
    ensemble = bnn.DeepEnsemble(method(), 2)
    key = jax.random.key(7)
    state = eqx.filter_jit(lambda: ensemble.init(model, key=key))()
    after, _ = run(ensemble, state, data, 3, key)
    alone, _ = run(Member(method(), 1), ensemble.member(state, 1), data, 3, key)
    assert_equal(alone, ensemble.member(after, 1), 1e-5)
    # With the masks of the other member it would have gone elsewhere.
    other, _ = run(Member(method(), 0), ensemble.member(state, 1), data, 3, key)
    gap = other.model.layers[0].weight - alone.model.layers[0].weight
    assert np.abs(gap).max() > 1e-3


@pytest.mark.slow
def test_the_default_start_is_another_draw_of_the_initialisation(model, getkey):
    ensemble = bnn.DeepEnsemble(method(), 4)
    state = eqx.filter_jit(lambda: ensemble.init(model, key=getkey()))()
    weights = np.asarray(state.model.layers[0].weight)
    for w in weights:
        assert np.array_equal(
            np.sort(w.ravel()), np.sort(model.layers[0].weight.ravel())
        )
    assert len({w.tobytes() for w in weights}) == 4
    made = bnn.DeepEnsemble(
        method(), 2, make=lambda k: eqx.nn.MLP(2, "scalar", 8, 1, key=k)
    )
    state = eqx.filter_jit(lambda: made.init(model, key=getkey()))()
    first = np.asarray(state.model.layers[0].weight)
    assert not np.isin(first, model.layers[0].weight).any()


@pytest.mark.slow
def test_predict_uses_each_member_once(model, data, getkey):
    ensemble = bnn.DeepEnsemble(method(), 5)
    state = eqx.filter_jit(lambda: ensemble.init(model, key=getkey()))()
    posterior = ensemble.posterior(state)
    assert posterior.num_atoms == 5
    predictive = bnn.predict(
        posterior, bnn.NormalLikelihood(0.3), data[0], key=getkey()
    )
    members = [ensemble.method.model(ensemble.member(state, i)) for i in range(5)]
    outputs = np.stack([jax.vmap(m)(data[0]) for m in members])
    assert np.allclose(predictive.mean, outputs.mean(0), atol=1e-5)
    assert np.allclose(predictive.epistemic, outputs.var(0), atol=1e-5)
    drawn = posterior.sample(key=getkey()).layers[0].weight
    assert any(np.array_equal(drawn, m.layers[0].weight) for m in members)


@pytest.mark.slow
def test_an_ensemble_of_variational_posteriors_is_their_mixture(model, data, getkey):
    joint = method().log_joint
    ensemble = bnn.DeepEnsemble(bnn.MeanFieldVI(joint, optax.adam(1e-2)), 3)
    state = eqx.filter_jit(lambda: ensemble.init(model, key=getkey()))()
    posterior = ensemble.posterior(state)
    assert posterior.num_atoms is None
    drawn = posterior.sample(key=getkey())
    parts = np.array([posterior.member(i).log_prob(drawn) for i in range(3)])
    expected = parts.max() + np.log(np.mean(np.exp(parts - parts.max())))
    assert np.allclose(posterior.log_prob(drawn), expected, rtol=1e-5)
    mixture = bnn.Mixture([posterior.member(i) for i in range(3)])
    assert np.allclose(mixture.log_prob(drawn), expected, rtol=1e-5)
    mean = np.mean([posterior.member(i).mean().layers[0].bias for i in range(3)], 0)
    assert np.allclose(posterior.mean().layers[0].bias, mean, atol=1e-6)
    assert np.allclose(mixture.mean().layers[0].bias, mean, atol=1e-6)


@pytest.mark.slow
def test_a_mixture_counts_its_components_equally(getkey):
    parts = [bnn.PointPosterior({"w": jnp.asarray(float(i))}) for i in range(4)]
    mixture = bnn.Mixture([bnn.Mixture(parts[:2]), bnn.Mixture(parts[2:])])
    assert mixture.num_atoms == 4
    atoms = jax.jit(jax.vmap(lambda i: mixture.atom(i)["w"]))(jnp.arange(4))
    assert np.array_equal(atoms, [0.0, 1.0, 2.0, 3.0])
    draws = jax.jit(jax.vmap(lambda k: mixture.sample(key=k)["w"]))(
        jax.random.split(getkey(), 4000)
    )
    counts = np.bincount(np.asarray(draws).astype(int), minlength=4)
    assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75))
    uneven = bnn.Mixture([parts[0], bnn.Mixture(parts[1:3])])
    assert uneven.num_atoms is None
    with pytest.raises(ValueError, match="components 0 and 1 are over different"):
        bnn.Mixture([parts[0], bnn.PointPosterior({"w": jnp.ones(2)})])


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_anchored_members_are_exact_posterior_draws(x64, getkey, temperature):
    """Mean and covariance over members trained to convergence, in 5 s.e."""
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=20, dim=2))
    problem = make(getkey())
    num = 4000
    joint = problem.log_joint(temperature=temperature)
    ensemble = bnn.DeepEnsemble(
        bnn.AnchoredMAP(joint, optax.sgd(0.15 * temperature, momentum=0.7)), num
    )
    model = problem.model(key=getkey())
    batch = (problem.x, problem.y)
    key = getkey()
    state = eqx.filter_jit(lambda: ensemble.init(model, key=key))()

    @eqx.filter_jit
    def converge(state):
        arrays, static = eqx.partition(state, eqx.is_array)

        def body(_, arrays):
            new, _ = ensemble.update(eqx.combine(arrays, static), batch, key=key)
            return eqx.filter(new, eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, 300, body, arrays), static)

    state = converge(state)
    weights = jnp.concatenate(
        [state.train.model.weight[:, 0], state.train.model.bias], axis=1
    )
    covariance = temperature * np.asarray(problem.covariance)
    sd = np.sqrt(np.diag(covariance))
    centred = (np.asarray(weights) - np.asarray(problem.mean)) / sd
    assert np.all(np.abs(centred.mean(0)) < 5 / np.sqrt(num))
    correlation = covariance / np.outer(sd, sd)
    estimate = centred.T @ centred / num
    error = np.sqrt((1 + correlation**2) / num)
    assert np.all(np.abs(estimate - correlation) < 5 * error)


@pytest.mark.slow
def test_held_out_targets_are_taken_as_they_are(getkey):
    """Noise e moves the loss of a row of residual z by z e, and in training alone."""
    num, noise = 20, 0.5
    joint = bnn.LogJoint(bnn.NormalLikelihood(noise), bnn.FanInNormal(), num_data=num)
    model = eqx.nn.Linear(2, "scalar", key=getkey())
    x = jax.random.normal(getkey(), (num, 2))
    batch = (x, jnp.sin(x[:, 0]))
    method = bnn.AnchoredMAP(joint, optax.sgd(0.1))
    state = method.init(model, key=getkey())
    found = method.evaluate(state, batch, key=getkey())["nll"]
    expected = -joint.log_likelihood(model, batch, key=getkey()) / num
    assert np.allclose(found, expected, rtol=1e-5)
    states = [method.init(model, key=getkey()) for _ in range(4)]
    noisy = [method.update(s, batch, key=getkey())[1]["nll"] for s in states]
    off = np.abs(np.array(noisy) - np.asarray(expected))
    z = (np.asarray(jax.vmap(model)(x)) - np.asarray(batch[1])) / noise
    error = np.sqrt(np.mean(z**2) / num)
    assert np.all(off < 5 * error)
    assert np.max(off) > 0.01 * error  # each is below once in a hundred


def test_anchors_need_normal_priors(model):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), dist.Laplace(0.0, 1.0), 20)
    with pytest.raises(TypeError, match=r"prior of layers\.0\.weight is Laplace"):
        bnn.AnchoredMAP(joint, optax.sgd(0.1)).init(model, key=jax.random.key(0))


@pytest.mark.slow
def test_the_noise_of_targets_takes_any_kind_of_key():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=4)
    method = bnn.AnchoredMAP(joint, optax.sgd(0.1))
    model = eqx.nn.Linear(1, "scalar", key=jax.random.key(0))
    batch = (jnp.ones((4, 1)), jnp.zeros(4))
    losses = []
    for kind in ("threefry2x32", "rbg"):
        state = method.init(model, key=jax.random.key(0, impl=kind))
        state, info = method.update(state, batch, key=jax.random.key(1))
        losses.append(info["loss"])
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_an_ensemble_runs_in_fit(model, data, getkey):
    ensemble = bnn.DeepEnsemble(method(), 3)
    numpy = tuple(np.asarray(a) for a in data)
    _, history = jaxprob.fit(
        ensemble, model, numpy, key=getkey(), num_epochs=15, progress=False
    )
    assert history[-1]["loss"] < history[0]["loss"]
    with pytest.raises(ValueError, match="num_members=0"):
        bnn.DeepEnsemble(method(), 0)


class Standardised(eqx.Module):
    """A network behind a standardisation that nothing trains."""

    mean: jax.Array
    net: eqx.nn.MLP

    def __call__(self, x):
        return self.net(x - self.mean)


@pytest.mark.slow
@pytest.mark.parametrize(
    "frozen",
    [
        lambda joint: bnn.MAP(joint, optax.adam(1e-2), random="net", point=False),
        lambda joint: bnn.MeanFieldVI(
            joint, optax.adam(1e-2), random="net", point=False
        ),
        lambda joint: bnn.SWAG(
            bnn.MAP(joint, optax.adam(1e-2), random="net", point=False),
            num_warmup=0,
            thin=1,
        ),
        lambda joint: bnn.AnchoredMAP(
            joint, optax.adam(1e-2), random="net", point=False
        ),
        lambda joint: bnn.SGLD(
            joint, 0.1, num_warmup=0, thin=1, num_draws=1, random="net"
        ),
    ],
    ids=["map", "mean field", "swag", "anchored", "sgld"],
)
def test_what_no_member_trains_is_the_same_in_all(frozen, model, getkey):
    whole = Standardised(jnp.arange(2.0), model)
    joint = method().log_joint
    learner = bnn.DeepEnsemble(frozen(joint), 4)
    state = learner.init(whole, key=getkey())
    for index in range(4):
        member = learner.method.model(learner.member(state, index))
        assert np.array_equal(member.mean, whole.mean)
    if not isinstance(learner.method, bnn.SGLD | bnn.SWAG):
        starts = [
            learner.method.model(learner.member(state, i)).net.layers[0].weight
            for i in range(2)
        ]
        assert not np.array_equal(*starts)
        first, second = (np.sort(np.ravel(w)) for w in starts)
        assert np.allclose(first, second)


@pytest.mark.slow
def test_memory_grows_linearly_with_the_members(model, data):
    def peak(num):
        learner = bnn.DeepEnsemble(method(), num)
        state = eqx.filter_jit(learner.init)(model, key=jax.random.key(0))
        arrays, static = eqx.partition(state, eqx.is_array)

        def step(arrays, key):
            state = eqx.combine(arrays, static)
            return eqx.filter(learner.update(state, data, key=key)[0], eqx.is_array)

        compiled = jax.jit(step, donate_argnums=0).lower(arrays, jax.random.key(1))
        memory = compiled.compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes

    eight, sixteen, thirty_two = peak(8), peak(16), peak(32)
    assert sixteen < 2.02 * eight
    assert thirty_two < 2.02 * sixteen


def problem_of_lines(num):
    rng = np.random.default_rng(num)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    weight = np.linspace(-2, 2, 6, dtype=np.float32)
    y = x @ weight + 0.1 * rng.normal(size=40).astype(np.float32)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.IsotropicNormal(1.0), 40)
    model = eqx.nn.Linear(6, "scalar", key=jax.random.key(num))
    drawn = jnp.asarray(rng.normal(size=(1, 6)).astype(np.float32))
    fresh = eqx.tree_at(lambda m: m.weight, model, drawn)
    trained = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(weight[None]))
    return bnn.MAP(joint, optax.adam(1e-2)), fresh, trained, (x, y)


@pytest.mark.slow
def test_a_trained_model_is_not_shuffled_without_a_word():
    for num in range(3):
        method, fresh, trained, data = problem_of_lines(num)
        ensemble = bnn.DeepEnsemble(method, 2)
        ensemble.check_training(fresh, data)
        with pytest.warns(UserWarning, match="seems to be trained"):
            ensemble.check_training(trained, data)
        for make in ("shuffled", "model"):
            bnn.DeepEnsemble(method, 2, make=make).check_training(trained, data)


def test_members_may_start_at_the_model_given(getkey):
    method, _, trained, _ = problem_of_lines(0)
    ensemble = bnn.DeepEnsemble(method, 2, make="model")
    state = ensemble.init(trained, key=getkey())
    for weight in state.model.weight:
        assert np.array_equal(weight, trained.weight)
    with pytest.warns(UserWarning, match="2 members are equal to the bit"):
        ensemble.posterior(state)
