"""The Python blocks of docstrings and documents run, with few steps."""

import ast
import re
from collections.abc import Iterator

import jax
import pytest

from . import scene
from .source import FILES, PACKAGE, tree_of

FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)

SHORTER = {
    r"num_epochs=\d+": "num_epochs=1",
    r"max_epochs=\d+": "max_epochs=1",
    r"Trainer\(callbacks=\[Save": "Trainer(max_epochs=1, callbacks=[Save",
    r"num_steps=\d[\d_]*": "num_steps=2",
    r"num_warmup=[1-9]\d*": "num_warmup=50",
    r"num_draws=[\d *]+": "num_draws=8",
    r"num_null=\d+": "num_null=2",
    r"num_leapfrog=\d+": "num_leapfrog=2",
    r"NUTS\(log_joint\)": "NUTS(log_joint, num_warmup=50, num_draws=8)",
    r"BNN(\w+)\((effort=.fast., )?random": r"BNN\1('map', num_steps=20, random",
    r"length=\d+": "length=8",
    r"thin=\d+": "thin=1",
    r"\(1, 28, 28\)": "(1, 8, 8)",
    r"\(3, 32, 32\)": "(3, 8, 8)",
    r"attention_at=\(7,\)": "attention_at=(4,)",
}
"""What takes long in earnest, and what a test needs of it."""

ELSEWHERE = {
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


# The page of the command is run with its shell lines, in tests/cli.
PAGES = {
    path.name: FENCE.findall(path.read_text())
    for path in sorted((PACKAGE.parent / "docs").glob("*.md"))
    if FENCE.search(path.read_text()) and path.name != "command.md"
}


def run(codes: list[str], names: scene.Names) -> None:
    """Run blocks in order, in one scope, as a user without strict promotion does."""
    scope: dict = {}
    for code in map(shortened, codes):
        for name, value in scene.bound(code, names).items():
            scope.setdefault(name, value)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(code, scope)


def shortened(code: str) -> str:
    for pattern, short in SHORTER.items():
        code = re.sub(pattern, short, code)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
# Two steps leave every network untrained, which several functions warn of.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Joining processes takes several: test_distributed.
    codes = [code for code in PAGES[page] if "join_processes(" not in code]
    run(codes, {**scene.COMMON, **scene.PAGES.get(page, {})})


@pytest.mark.slow
@pytest.mark.parametrize("place", BLOCKS)
# Two steps leave every network untrained, which several functions warn of.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_block_of_a_docstring_runs(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(BLOCKS[place], names_for(place))
