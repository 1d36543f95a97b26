"""The README's code runs as it stands, with few epochs."""

import pathlib
import re

import jax
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*smaller than the logging interval:UserWarning",
    # Two epochs in the place of hundreds leave the network as it was drawn.
    "ignore:the denoiser multiplies an error of its network:UserWarning",
)
def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL))
    for epochs in ("num_epochs=200", "num_epochs=300", "max_epochs=200"):
        assert epochs in code
        code = code.replace(epochs, epochs.split("=")[0] + "=2")
    names: dict = {}
    # optax's optimisers are run as a user runs them.
    with jax.numpy_dtype_promotion("standard"):
        exec(code, names)
    assert names["predictive"].mean.shape == (88, 1)
    assert names["draws"].x_0.shape == (64, 1, 8, 8)


@pytest.mark.slow
def test_every_file_that_the_readme_names_is_there():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README.read_text()):
        assert (README.parent / link).exists(), f"the README names {link}"
