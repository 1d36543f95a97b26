"""What may import what: core -> {bnn, diffusion, metrics} -> lightning."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "pytorch_lightning", "lightning", "matplotlib", "sklearn", "blackjax")

LISTING = """
import sys
{statement}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
print(*sorted(name for name in sys.modules if name.startswith("jaxprob.")))
"""


def modules_after(statement: str) -> tuple[set[str], set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LISTING.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
    )
    top, ours = done.stdout.splitlines()
    return set(top.split()), set(ours.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "from jaxprob import fit",
        "import jaxprob.bnn",
        "import jaxprob.diffusion",
        "import jaxprob.metrics",
        "import jaxprob.recalibrate",
        "import jaxprob.testing",
        "import jaxprob.datasets",
    ],
)
def test_the_light_half_imports_nothing_heavy(statement):
    top, _ = modules_after(statement)
    assert not top & set(HEAVY)


@pytest.mark.slow
@pytest.mark.parametrize("heavy", HEAVY[:4])
def test_this_listing_would_show_a_heavy_import(heavy):
    # `lightning` is not installed on purpose: a stand-in of the name is enough.
    statement = (
        f"import types, sys; sys.modules[{heavy!r}] = types.ModuleType('stand-in')"
    )
    top, _ = modules_after(f"{statement}; from jaxprob import fit")
    assert heavy in top


@pytest.mark.slow
def test_importing_the_package_alone_imports_nothing():
    top, ours = modules_after("import jaxprob")
    assert "jax" not in top
    assert ours == {"jaxprob._version"}


@pytest.mark.slow
def test_lightning_is_what_brings_torch():
    top, _ = modules_after("import jaxprob.lightning")
    assert {"torch", "pytorch_lightning"} <= top
    # Only `pytorch_lightning` is asked for, never the distribution `lightning`.
    assert "lightning" not in top


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [("bnn", "diffusion"), ("diffusion", "bnn")])
def test_the_two_halves_do_not_know_each_other(one, other):
    # `import jaxprob` brings both, so the package's own __init__ is left out here.
    statement = (
        "import types, jax, pathlib, importlib.util; "
        "root = pathlib.Path(importlib.util.find_spec('jaxprob').origin).parent; "
        "stub = types.ModuleType('jaxprob'); stub.__path__ = [str(root)]; "
        "sys.modules['jaxprob'] = stub; "
        f"import jaxprob.{one}"
    )
    _, ours = modules_after(statement)
    assert f"jaxprob.{one}" in ours
    assert not {name for name in ours if name.startswith(f"jaxprob.{other}")}


@pytest.mark.slow
def test_importing_takes_little_longer_than_what_it_stands_on():
    timing = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"

    def seconds(statement):
        code = timing.format(statement)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    # In turn, so that a busy moment strikes both; the fastest of each is undisturbed.
    pairs = [
        (
            seconds("import jax, equinox, optax, diffrax"),
            seconds("from jaxprob import fit"),
        )
        for _ in range(5)
    ]
    below, ours = (min(column) for column in zip(*pairs, strict=True))
    assert ours < 1.6 * below
