"""Any pytree is a batch: graphs, scalars, text beside the numbers."""

import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob._training.batch import weight
from jaxprob._training.host_batch import LeftOut, count_rows, host_batch

X = np.arange(24, dtype=np.float32).reshape(8, 3)


def line():
    return eqx.nn.Linear(3, 1, key=jax.random.key(0))


def fitted(batches, loss):
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    _, history = jaxprob.fit(
        learner,
        line(),
        batches,
        key=jax.random.key(0),
        num_epochs=1,
        validation=batches,
        progress=False,
    )
    assert history[-1]["loss"] == history[-1]["val_loss"]
    return history[-1]["loss"]


def test_python_scalars_are_arrays_and_compile_once():
    traces = []

    def loss(model, batch, *, key):
        traces.append(None)
        return 0 * jnp.sum(model.weight) + batch["t"] + batch["n"].astype(
            jnp.float32
        ), {}

    batches = [{"x": X, "t": float(t), "n": t} for t in range(6)]
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    stepper = jaxprob.Stepper(
        learner, learner.init(line()), key=jax.random.key(0), steps_per_dispatch=2
    )
    found = stepper(map(host_batch, batches[:2]))["loss"]
    number = len(traces)
    more = stepper(map(host_batch, batches[2:]))["loss"]
    assert [*found, *more] == [0, 2, 4, 6, 8, 10]
    assert len(traces) == number


@pytest.mark.parametrize(
    "scalar", [3, 3.0, np.float32(3), np.int64(3), np.array(3.0), "torch"]
)
def test_a_scalar_stands_beside_rows(scalar):
    if isinstance(scalar, str):
        scalar = pytest.importorskip("torch").tensor(3.0)

    def loss(model, batch, *, key):
        rows, scalar = batch
        value = jnp.mean(jax.vmap(model)(rows)) * 0
        return value + jnp.asarray(scalar, jnp.float32), {}

    batch = (X, scalar)
    assert fitted([batch, batch], loss) == 3.0
    assert count_rows(batch) == int(weight(host_batch(batch))) == 8


def test_graphs_count_as_their_mask_says():
    def loss(model, batch, *, key):
        nodes = batch.data["nodes"]
        return jnp.sum(model.weight) * 0 + jnp.mean(nodes), {}

    def graphs(value, num):
        nodes = np.full((20, 3), value, np.float32)
        data = {"edges": np.zeros((2, 37), int), "nodes": nodes}
        return jaxprob.Batch(data, np.ones(num, bool))

    # Means over graphs: four of value 1 and one of value 6.
    assert fitted([graphs(1.0, 4), graphs(6.0, 1)], loss) == 2.0
    assert count_rows(graphs(1.0, 4)) == 4


def test_arrays_of_two_lengths_count_as_the_first():
    def loss(model, batch, *, key):
        labelled, unlabelled = batch
        return jnp.mean(unlabelled) + jnp.mean(labelled) + 0 * jnp.sum(model.weight), {}

    rows = np.ones((8, 3), np.float32)
    batches = [(rows[:3], rows), (5 * rows[:1], rows)]
    assert fitted(batches, loss) == (3 * 2 + 1 * 6) / 4
    assert count_rows(batches[0]) == 3
    assert count_rows({"a": 1.0}) == 1


@pytest.mark.parametrize(
    ("text", "path", "kind"),
    [
        (["a"] * 8, r"\['id'\]\[0\]", r"text \(str\)"),
        ("name", r"\['id'\]", r"text \(str\)"),
        (np.array(["a"] * 8), r"\['id'\]", "an array of dtype <U1"),
        (np.array([{}] * 8), r"\['id'\]", "an array of dtype object"),
        (np.zeros(8, "datetime64[s]"), r"\['id'\]", "an array of dtype datetime64"),
        (types.SimpleNamespace(x=X), r"\['id'\]", "a SimpleNamespace"),
    ],
)
def test_what_is_no_array_stays_outside_and_is_named_when_it_is_used(text, path, kind):
    batches = [{"x": X, "id": text}] * 2

    def reads_numbers(model, batch, *, key):
        return jnp.mean(jax.vmap(model)(batch["x"])), {}

    fitted(batches, reads_numbers)
    for use in (jnp.sum, np.sum, lambda leaf: leaf + 1, lambda leaf: leaf.shape, iter):

        def reads_all(model, batch, *, key, use=use):
            leaf = batch["id"][0] if isinstance(batch["id"], list) else batch["id"]
            use(leaf)
            return jnp.mean(jax.vmap(model)(batch["x"])), {}

        with pytest.raises((TypeError, AttributeError), match=f"batch{path} is {kind}"):
            fitted(batches, reads_all)


def test_an_array_loader_names_text():
    with pytest.raises(TypeError, match=r"data\['id'\].*<U1.*np\.arange"):
        jaxprob.ArrayLoader({"id": np.array(["a"] * 8)}, batch_size=4)
    with pytest.raises(TypeError, match=r"data\['id'\] is a str"):
        jaxprob.fit(
            jaxprob.GradientDescent(
                lambda m, b, *, key: (jnp.zeros(()), {}), optax.sgd(0.1)
            ),
            line(),
            {"x": X, "id": "a"},
            key=jax.random.key(0),
            num_steps=1,
        )


def test_tensors_become_arrays_of_their_dtype():
    torch = pytest.importorskip("torch")
    batch = host_batch([torch.ones(2, dtype=torch.bfloat16), torch.arange(3)])
    assert [leaf.dtype.name for leaf in batch] == ["bfloat16", "int64"]
    needs_grad = torch.ones(2, requires_grad=True)
    assert isinstance(host_batch(needs_grad), np.ndarray)
    with pytest.raises(ValueError, match="beyond the range of int32"):
        host_batch({"n": 2**40})
    assert isinstance(host_batch("a"), LeftOut)
