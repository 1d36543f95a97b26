"""Wrappers of methods, over every method and over each other: nothing is lost."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._training import learner as contract
from jaxprob._training.wrapper import SAME_STATE, AbstractLearnerWrapper, Withheld
from jaxprob.bnn._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
)
from tests.bnn._inference.wrapping import (
    BATCH,
    CHECKS,
    KEY,
    LEARNERS,
    NET,
    Row,
    ensemble,
    found,
    joint,
    point,
)

ENDS_OTHERWISE = frozenset({AbstractTrainedModels, AbstractConditional})
WRAPPERS = {
    "MCDropout": Row(bnn.MCDropout, lacks=ENDS_OTHERWISE),
    "Laplace": Row(
        bnn.Laplace,
        has=frozenset({AbstractConditional}),
        lacks=frozenset({AbstractTrainedModels}),
        takes=("MAP",),
    ),
    "MatrixFreeLaplace": Row(
        bnn.MatrixFreeLaplace,
        has=frozenset({AbstractConditional}),
        lacks=frozenset({AbstractTrainedModels}),
        takes=("MAP",),
    ),
    "SWAG": Row(
        lambda method: bnn.SWAG(method, num_warmup=0, thin=1),
        lacks=ENDS_OTHERWISE,
        takes=("MAP",),
    ),
    "Blocks": Row(
        lambda method: bnn.Blocks(method, {"head": bnn.Laplace(point())}),
        lacks=ENDS_OTHERWISE,
        takes=("MAP", "AnchoredMAP", "ensemble", "sequential ensemble"),
    ),
    "DeepEnsemble": Row(
        ensemble,
        has=frozenset({jaxprob.AbstractMembers}),
        lacks=frozenset({jaxprob.AbstractSequentialMembers, AbstractConditional}),
    ),
    "DeepEnsemble, sequential": Row(
        lambda method: ensemble(method, members="loop"),
        has=frozenset({jaxprob.AbstractMembers, jaxprob.AbstractSequentialMembers}),
        lacks=frozenset({AbstractConditional}),
    ),
}


def make(wrapper, name) -> tuple[Any, Any]:
    row, learner = WRAPPERS[wrapper], LEARNERS[name]()
    if row.takes is None or name in row.takes:
        return row.make(learner), row.expected(learner)
    with pytest.raises(TypeError, match=type(learner).__name__):
        row.make(learner)
    return None, None


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_has_what_the_method_inside_has(wrapper, name):
    made, expected = make(wrapper, name)
    if made is not None:
        assert found(made) == expected


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize(
    ("outer", "inner"),
    list(itertools.product(WRAPPERS, ["MCDropout", "DeepEnsemble"])),
)
def test_wrappers_over_wrappers_lose_nothing(outer, inner, name):
    row = WRAPPERS[outer]
    middle, _ = make(inner, name)
    assert middle is not None
    points = AbstractTrainedModels in found(middle)
    of_points = outer in ("Laplace", "MatrixFreeLaplace", "SWAG")
    if of_points or (outer == "Blocks" and not points):
        with pytest.raises(TypeError, match=r"takes a method|'method'|needs a trained"):
            row.make(middle)
    else:
        assert found(row.make(middle)) == row.expected(middle)


CASES = [
    (wrapper, name, kind)
    for wrapper, row in WRAPPERS.items()
    for name in ("MAP", "ensemble")
    if row.takes is None or name in row.takes
    for kind in sorted(make(wrapper, name)[1], key=lambda kind: kind.__name__)
]


@pytest.mark.slow
@pytest.mark.parametrize(("wrapper", "name", "kind"), CASES)
def test_a_forwarded_capability_does_what_it_says(wrapper, name, kind):
    made, _ = make(wrapper, name)
    own = wrapper.startswith("DeepEnsemble") or kind not in SAME_STATE
    inner = None if own else made.method.capability(kind)
    CHECKS[kind](made, made.capability(kind), inner)


def test_each_capability_is_in_the_table():
    assert set(contract.CAPABILITIES) == set(CHECKS)


def test_each_wrapper_of_a_method_is_in_the_table():
    wrappers = {
        cls
        for cls in vars(bnn).values()
        if isinstance(cls, type)
        and issubclass(cls, AbstractLearnerWrapper)
        and not cls.__name__.startswith("Abstract")
    }
    assert wrappers == {type(make(name, "MAP")[0]) for name in WRAPPERS}


def test_a_capability_without_an_answer_is_an_error():
    class AbstractNews(jaxprob.AbstractCapability):
        pass

    class Fresh(bnn.AbstractDescent, AbstractNews):
        random = point = ema = None
        optimizer = optax.sgd(1.0)

        log_joint: bnn.LogJoint

        def init(self, model, *, key):
            raise NotImplementedError

        def posterior(self, state, batches=None, *, key=None):
            raise NotImplementedError

        def _descent(self, model):
            raise NotImplementedError

    try:
        with pytest.raises(TypeError, match=r"MCDropout .* no answer to AbstractNews"):
            bnn.MCDropout(Fresh(joint()))
        bnn.MCDropout(point())
        with pytest.raises(TypeError, match=r"Forgetful .* no answer to AbstractNews"):

            class Forgetful(bnn.AbstractPostHoc):
                forwards = dict.fromkeys(ENDS_OTHERWISE, Withheld("it ends so"))
                method: bnn.AbstractInference

                def posterior(self, state, batches=None, *, key=None):
                    raise NotImplementedError
    finally:
        contract.CAPABILITIES.remove(AbstractNews)


def heads(posterior, num=40):
    draws = eqx.filter_jit(jax.vmap(lambda key: posterior.sample(key=key)))(
        jax.random.split(KEY, num)
    )
    return np.asarray(draws.body.weight[:, 0, 0])


@pytest.mark.slow
def test_dropout_over_an_ensemble_has_the_masks_of_each_member():
    method = bnn.MCDropout(ensemble())
    state = method.init(NET, key=KEY)
    posterior = method.posterior(state)
    expected = {float(w) for w in state.model.body.weight[:, 0, 0]}
    assert len(expected) == 3
    assert set(heads(posterior).tolist()) == expected
    mean = np.asarray(state.model.head.weight.mean(0))
    assert np.allclose(posterior.mean().head.weight, mean, rtol=1e-6)


@pytest.mark.slow
def test_dropout_over_laplace_has_its_weights():
    method = bnn.MCDropout(bnn.Laplace(point()))
    state = method.init(NET, key=KEY)
    inner = method.method.posterior(state, [BATCH])
    posterior = method.posterior(state, [BATCH])
    assert posterior.linearized
    assert len(set(heads(posterior).tolist())) == 40
    draw, centre = posterior.linearisation_point(key=KEY)
    x = jnp.asarray(BATCH[0][0])
    assert np.array_equal(draw.dropout(x), centre.dropout(x))
    assert np.array_equal(centre.body.weight, inner.mean().body.weight)


@pytest.mark.slow
def test_blocks_over_an_ensemble_are_inferred_given_each_member():
    laplace = bnn.Laplace(point())
    inner = ensemble()
    method = bnn.Blocks(inner, {"head": laplace})
    state = method.init(NET, key=KEY)
    posterior = method.posterior(state, [BATCH], key=KEY)
    assert isinstance(posterior, bnn.Mixture)
    expected = {float(w) for w in state.model.body.weight[:, 0, 0]}
    assert set(heads(posterior).tolist()) == expected
    for index, part in enumerate(posterior.components):
        member = inner.member(state, index)
        alone = bnn.Blocks(point(), {"head": laplace})
        single = alone.posterior(member, [BATCH], key=KEY)
        assert np.allclose(part.mean().head.weight, single.mean().head.weight)
        draw = single.sample(key=KEY)
        assert np.allclose(part.log_prob(draw), single.log_prob(draw), rtol=1e-5)
