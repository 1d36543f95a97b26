"""The Python blocks of docstrings run, with few steps."""

import ast
import itertools
from collections.abc import Iterator

import equinox as eqx
import jax
import pytest

from . import scene
from .blocks import FENCE, run
from .source import FILES, tree_of

ELSEWHERE = {
    "diffusion/_sbi/fit.py:fit_posterior": "on the page of simulators, shorter",
    "diffusion/_sbi/posterior.py:SimulatorPosterior": "on the page of simulators",
    "diffusion/_sbi/fit_conditional.py:fit_conditional": "on the page of simulators",
    "diffusion/_sbi/conditional.py:ConditionalDensity": "on the page of simulators",
    "diffusion/_sbi/likelihood.py:SimulatorLikelihood": "in test_likelihood",
    "_engine/processes.py:join_processes": "needs several processes: test_distributed",
    "lightning/_trainer/strategy.py:JaxStrategy": "needs several: test_distributed",
    "datasets/_idx.py:read_idx": "reads a file of MNIST: tests/datasets/test_files",
    "datasets/_uci.py:uci": "reads files of UCI: tests/datasets/test_files",
    "lightning/_data/split_data.py:TabularDataModule": "reads files of UCI",
    "lightning/_data/split_data.py:ImageDataModule": "reads files of MNIST",
}
"""Blocks that run in other tests, and why not here."""


def docstrings(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and docstring of a syntax tree and of all definitions in it."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    if isinstance(node, kinds):
        name = getattr(node, "name", "")
        prefix = f"{prefix}.{name}" if prefix else name
        if text := ast.get_docstring(node):
            yield prefix, text
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child, prefix)


BLOCKS = {
    f"{name}:{owner}": FENCE.findall(text)
    for name in sorted(FILES)
    for owner, text in docstrings(tree_of(name))
    if FENCE.search(text) and f"{name}:{owner}" not in ELSEWHERE
}


def test_the_blocks_are_found():
    assert sum(map(len, BLOCKS.values())) > 80


def names_for(place: str) -> scene.Names:
    folder = place.split("/")[0]
    by_folder = {"diffusion": scene.POINTS, "lightning": scene.LIGHTNING}
    return {**scene.COMMON, **by_folder.get(folder, {}), **scene.SPECIAL.get(place, {})}


@pytest.fixture(autouse=True)
def programs_are_few():
    """Drop compiled programs now and then: see `programs_are_dropped` in conftest."""
    yield
    if next(_RUNS) % 40 == 0:
        eqx.clear_caches()
        jax.clear_caches()


_RUNS = itertools.count(1)


@pytest.mark.slow
@pytest.mark.parametrize("place", BLOCKS)
# Two steps leave every network untrained, which several functions warn of.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_block_of_a_docstring_runs(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(BLOCKS[place], names_for(place))
