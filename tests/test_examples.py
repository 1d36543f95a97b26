"""Every example runs, with few steps, and gives figures; known facts of its models."""

import math
import pathlib
import runpy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from .data_folder import data_folder

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"

FEW = {
    "01_bnn_regression": {"num_epochs": 2},
    "02_bnn_classification": {"num_epochs": 2},
    "03_diffusion_digits": {"num_epochs": 1, "num_samples": 4},
    "04_layers_in_your_code": {"num_steps": 2},
    "05_your_own_module": {"num_steps": 2},
    "06_any_jax_model": {"max_epochs": 1},
    "07_recurrent_filter": {"num_steps": 8},
    "08_mnist": {"max_steps": 8},
    "09_resnet": {"num_epochs": 8},
    "10_language_model": {"num_steps": 150, "pattern": "[a-c]*.py"},
    "11_bands": {"num_epochs": 2},
    "12_ode": {"num_draws": 20},
}

# What they reach even so.
REACHED = {
    "09_resnet": lambda found: found["accuracy"] > found["of a linear model"],
    "10_language_model": lambda found: found["attention"] < found["1-gram"] - 0.8,
}


@pytest.fixture(autouse=True)
def as_a_user_runs_it():
    # optax's schedules multiply a float by an int32 count, and stax adds a bias to a
    # batch; a user's JAX allows both.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def test_no_example_is_left_out():
    assert {path.stem for path in EXAMPLES.glob("[0-9]*.py")} == set(FEW)


@pytest.mark.parametrize("name", FEW)
def test_an_example_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 120


def names_of(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


# Lightning's advice on settings that a short example does not need.
quiet = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@quiet
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = FEW[name]
    if name == "08_mnist":
        settings = {**settings, "data": str(data_folder("MNIST"))}
    figures = names_of(name)["main"](**settings)
    assert figures
    assert all(math.isfinite(value) for value in figures.values())
    if name in REACHED:
        assert REACHED[name](figures), figures


@pytest.mark.slow
@quiet
def test_the_score_model_of_mnist_trains_and_draws(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = str(data_folder("MNIST"))
    main = names_of("03_diffusion_digits")["main"]
    figures = main(num_epochs=1, num_samples=4, mnist=folder, max_steps=4)
    assert all(math.isfinite(value) for value in figures.values())
    assert (tmp_path / "runs" / "mnist.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_convolutions_of_mnist_move_with_the_image():
    """Along both axes: shifting the image shifts what the first layers give."""
    net = names_of("08_mnist")["convolutional"](jax.random.key(0))
    image = jnp.zeros((1, 28, 28)).at[0, 10:14, 12:16].set(1.0)
    first = eqx.nn.inference_mode(net[:3])
    for axis in (1, 2):
        moved = first(jnp.roll(image, 2, axis))
        np.testing.assert_allclose(moved, jnp.roll(first(image), 1, axis), atol=1e-6)
    assert net.layers[0].weight.shape == (16, 1, 3, 3)


@pytest.mark.slow
def test_the_resnet_predicts_one_image_as_it_predicts_it_among_others():
    """With running statistics; in training the others in a batch have a say."""
    from jaxprob import bnn

    net, state = eqx.nn.make_with_state(names_of("09_resnet")["ResNet"])(
        widths=(4, 4, 8), key=jax.random.key(0)
    )
    model = bnn.Stateful(net, state)
    x = jax.random.normal(jax.random.key(1), (6, 1, 8, 8))

    @eqx.filter_jit
    def batch(model, x):
        advance = jax.vmap(model.advance, axis_name="batch", out_axes=(0, None))
        return advance(x)

    first, state = batch(model, x)
    again, _ = batch(model, x.at[1].set(5.0))
    assert not np.allclose(first[0], again[0], atol=1e-3)
    calm = eqx.nn.inference_mode(eqx.tree_at(lambda m: m.state, model, state))
    alone = eqx.filter_jit(calm)(x[0])
    np.testing.assert_allclose(alone, jax.vmap(calm)(x)[0], atol=1e-5)


@pytest.mark.slow
def test_the_language_model_does_not_see_what_is_to_come():
    names = names_of("10_language_model")
    model = names["LanguageModel"](width=16, depth=2, key=jax.random.key(0))
    text = jax.random.randint(jax.random.key(1), (12,), 0, len(names["ALPHABET"]))
    logits = eqx.filter_jit(lambda model, text: model(text))
    past = logits(model, text)
    for place in (0, 5, 11):
        other = logits(model, text.at[place].add(1))
        same = np.all(np.asarray(past == other), axis=1)
        assert same[:place].all()
        assert not same[place:].any()


def test_counts_of_characters_give_their_entropy():
    names = names_of("10_language_model")
    size, bits = len(names["ALPHABET"]), names["ngram_bits"]
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(size))
    text = rng.choice(size, 200_000, p=chances).astype(np.int32)
    entropy = -np.sum(chances * np.log2(chances))
    error = np.std(-np.log2(chances[text])) / np.sqrt(len(text))
    # Of independent characters those before say nothing; what counts have to learn
    # costs half a bit times log2(e) for each free number and character.
    found = bits(text[:100_000], text[100_000:], 1)
    cost = 0.5 * np.log2(np.e) * size / 100_000
    assert abs(found - entropy - cost) < 5 * np.sqrt(2) * error
    cycle = np.arange(10 * size, dtype=np.int32) % size
    assert bits(cycle, cycle, 1) == pytest.approx(np.log2(size), rel=1e-3)
    assert bits(cycle, cycle, 2) < 0.2


@pytest.mark.slow
@quiet
def test_the_demo_runs_and_draws(tmp_path, monkeypatch, capsys):
    from examples.demo.__main__ import main

    main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    for figure in ("RMSE of ridge", "coverage of the 95%", "AUROC", "sliced W2"):
        assert figure in printed
    assert len(list(tmp_path.glob("*.png"))) == 3
