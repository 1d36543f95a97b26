"""The project's own files agree with each other."""

import pathlib
import re
import tomllib
from importlib import metadata

import jaxprob

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().split("\n")
    if line
)


def name_of(requirement):
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")


def test_the_installed_metadata_are_those_of_the_code():
    assert metadata.version("jaxprob") == jaxprob.__version__
    assert metadata.metadata("jaxprob")["License-Expression"] == "Apache-2.0"
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert (ROOT / "jaxprob" / "py.typed").exists()


def test_every_requirement_is_pinned_and_installed_at_its_pin():
    requirements = list(PROJECT["dependencies"])
    groups = PROJECT["optional-dependencies"]
    for group in groups.values():
        requirements += [r for r in group if not r.startswith("jaxprob[")]
    # `make docs` installs these; the tests need none of them.
    absent = {name_of(r) for r in groups["docs"]}
    pins = {name.lower().replace("_", "-"): version for name, version in PINS.items()}
    for requirement in requirements:
        name = name_of(requirement)
        assert name in pins, f"{name} is not in constraints.txt"
        if name in absent:
            continue
        installed = metadata.version(name).split("+")[0]
        assert installed == pins[name], f"{name}: {installed} is not {pins[name]}"


def test_the_changelog_tells_of_this_version():
    assert f"## {jaxprob.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_from_lightning_s_second_distribution():
    # Two releases of the `lightning` distribution carried malware; only
    # `pytorch-lightning` is ever asked for.
    assert "lightning" not in {name_of(r) for r in PROJECT["dependencies"]}
