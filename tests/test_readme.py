"""The README's code runs as it stands, with few epochs."""

import pathlib
import re

import jax
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted((README.parent / "docs").glob("**/*.md"))]


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
    for epochs in ("num_epochs=200", "max_epochs=200"):
        assert epochs in code
        code = code.replace(epochs, epochs.split("=")[0] + "=2")
    names: dict = {}
    # optax's optimisers are run as a user runs them.
    with jax.numpy_dtype_promotion("standard"):
        exec(code, names)
    assert names["predictive"].mean.shape == (88, 1)
    assert names["draws"].x_0.shape == (359, 1, 8, 8)


def headings(page):
    """Anchors of a page's headings, as they are made by the hosts of Markdown."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_heading_that_a_page_names_is_there(page):
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} names {link}"
        if anchor:
            assert anchor in headings(target), f"{page.name} names {link}"
