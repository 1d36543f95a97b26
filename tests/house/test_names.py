"""One word for one thing in all public signatures."""

import importlib
import inspect
from collections.abc import Callable, Iterator

import numpyro.distributions as dist
import pytest

import jaxprob
from jaxprob import bnn, diffusion

PACKAGES = (
    *("jaxprob", "jaxprob.bnn", "jaxprob.diffusion", "jaxprob.diffusion.nn"),
    *("jaxprob.lightning", "jaxprob.tree", "jaxprob.metrics", "jaxprob.recalibrate"),
    *("jaxprob.estimators", "jaxprob.datasets", "jaxprob.plot", "jaxprob.testing"),
    "jaxprob.report",
    "jaxprob.export",
    "jaxprob.cli",
)

INSTEAD = {
    "num": "num_samples for draws, num_rows, num_members, ... for others",
    "sample_batch": "batch_size",
    "chunk": "batch_size",
    "chunk_size": "batch_size",
    "rows_at_once": "batch_size",
    "noise_level": "level",
    "sticking": "stick_the_landing",
    "heat": "noise_scale",
    "prepared": "factorised",
    "expansion": "linearisation_point",
    "diffusion2": "squared_diffusion",
    "drop_cond": "cond_dropout",
    "penalty": "lam",
    "free": "k_reg",
    "share": "mixing_weight",
    "wide": "slab_scale, or a size such as num_hidden",
    "narrow": "spike_scale, or a size such as num_channels",
    "turns": "sequential members, num_turns of a curve",
    "target": "target_acceptance",
    "strong": "the name of the thing",
    "together": "the name of the thing",
    "like": "the name of the thing",
    "held": "the name of the thing",
    "kept": "the name of the thing",
    "told": "the name of the thing",
}

KEY_IS_THE_SUBJECT = {"example_keys", "leaf_keys", "KeyStreams", "FixedDropout"}
"""Functions of keys, and a layer that holds one: there a key is like any argument."""

FREE = {"BNNRegressor": {"target"}}
"""Names with another meaning than in the table: the transform of the target y."""


def public_functions() -> Iterator[tuple[str, Callable]]:
    """Yield each public function and method of ours, by name."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value):
                continue
            if not getattr(value, "__module__", "").startswith("jaxprob"):
                continue
            yield name, value
            # A distribution of numpyro's has the signatures of numpyro.
            ours = inspect.isclass(value) and not issubclass(value, dist.Distribution)
            for part, method in vars(value).items() if ours else ():
                if not part.startswith("_") and inspect.isfunction(method):
                    yield f"{name}.{part}", method


FUNCTIONS = dict(public_functions())


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, of a class those of its constructor."""
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:  # of a class in C, such as an enumeration
        return {}


def wrong_words(name: str, function: Callable) -> list[str]:
    """Return the names of a function that stand in the left column of the table."""
    words = {*parameters(function), name.split(".")[-1]} - FREE.get(name, set())
    return [f"{name}: {word} -> {INSTEAD[word]}" for word in words if word in INSTEAD]


def test_signatures_use_the_words_of_the_table():
    assert not [line for pair in FUNCTIONS.items() for line in wrong_words(*pair)]


def test_a_wrong_word_is_found():
    assert wrong_words("f", lambda *, drop_cond: drop_cond)


def test_keys_are_keywords():
    positional = []
    for name, function in FUNCTIONS.items():
        key = parameters(function).get("key")
        if key is None or name in KEY_IS_THE_SUBJECT:
            continue
        if key.kind is not inspect.Parameter.KEYWORD_ONLY:
            positional.append(name)
    assert not positional


def is_final(value: object, kind: type) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, kind)
        and not inspect.isabstract(value)
        and not value.__name__.startswith("Abstract")
    )


FAMILIES = {
    "methods": [v for v in vars(bnn).values() if is_final(v, bnn.AbstractInference)],
    "posteriors": [v for v in vars(bnn).values() if is_final(v, bnn.AbstractPosterior)],
    "samplers": [
        v for v in vars(diffusion).values() if is_final(v, diffusion.AbstractSampler)
    ],
    "schedules": [
        v for v in vars(diffusion).values() if is_final(v, diffusion.AbstractSchedule)
    ],
    "learners": [
        v
        for v in (getattr(jaxprob, name) for name in dir(jaxprob))
        if is_final(v, jaxprob.AbstractLearner)
    ],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_agree_on_the_kind_of_an_argument(family):
    assert FAMILIES[family]
    kinds: dict[str, dict[object, list[str]]] = {}
    for cls in FAMILIES[family]:
        for name, parameter in parameters(cls).items():
            by_kind = kinds.setdefault(name, {})
            by_kind.setdefault(parameter.kind, []).append(cls.__name__)
    assert not {name: found for name, found in kinds.items() if len(found) > 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_agree_on_the_order_of_arguments(family):
    orders = [
        [
            name
            for name, parameter in parameters(cls).items()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        for cls in FAMILIES[family]
    ]
    for one in orders:
        for other in orders:
            common = [name for name in one if name in other]
            assert common == [name for name in other if name in one]
