"""Every example runs, with few steps, and gives figures."""

import math
import pathlib
import runpy

import jax
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"

FEW = {
    "01_bnn_regression": {"num_epochs": 2},
    "02_bnn_classification": {"num_epochs": 2},
    "03_diffusion_digits": {"num_epochs": 1, "num_samples": 4},
    "04_layers_in_your_code": {"num_steps": 2},
    "05_your_own_module": {"num_steps": 2},
    "06_any_jax_model": {"max_epochs": 1},
    "07_recurrent_filter": {"num_steps": 8},
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
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 140


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
@pytest.mark.filterwarnings(
    # Lightning's advice on settings that a short example does not need.
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
)
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    figures = main(**FEW[name])
    assert figures
    assert all(math.isfinite(value) for value in figures.values())


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
)
def test_the_demo_runs_and_draws(tmp_path, monkeypatch, capsys):
    from examples.demo.__main__ import main

    main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    for figure in ("RMSE of ridge", "coverage of the 95%", "AUROC", "sliced W2"):
        assert figure in printed
    assert len(list(tmp_path.glob("*.png"))) == 3
