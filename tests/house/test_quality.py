"""The linter, the formatter and the type checker have nothing to say."""

import pathlib
import runpy
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize("check", [("check",), ("format", "--check")])
def test_ruff(check):
    done = run("ruff", *check, ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright():
    paths = ("jaxprob", "tests/house/typed_user.py")
    done = run("pyright", "--pythonpath", sys.executable, *paths)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_the_type_checker_allows_runs():
    runpy.run_path(str(ROOT / "tests/house/typed_user.py"))


def test_ruff_would_find_an_error(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "bad.py").write_text("import os\n")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "F401" in done.stdout


@pytest.mark.slow
def test_pyright_would_find_an_error(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import jaxprob\n\nx: int = jaxprob.__version__\n")
    done = run("pyright", "--pythonpath", sys.executable, str(bad))
    assert "reportAssignmentType" in done.stdout
