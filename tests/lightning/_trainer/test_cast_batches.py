"""The wrapper of low and double precision loses nothing of the learner inside."""

import jax
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.bnn._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
)
from jaxprob.lightning._trainer.precision import CastBatches, in_precision
from tests.bnn._inference.wrapping import (
    BATCH,
    CHECKS,
    KEY,
    LEARNERS,
    NET,
    Row,
    ensemble,
    found,
    point,
)

ROW = Row(
    lambda learner: CastBatches(learner, "float32"),
    lacks=frozenset({AbstractTrainedModels, AbstractConditional}),
)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_has_what_the_learner_inside_has(name):
    made = ROW.make(LEARNERS[name]())
    assert found(made) == ROW.expected(made.learner)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in CHECKS if k not in ROW.lacks])
def test_a_forwarded_capability_does_what_it_says(kind):
    made = ROW.make(ensemble(members="loop"))
    capability = made.capability(kind)
    if kind is jaxprob.AbstractAcceptReject:
        assert capability is None
        made = ROW.make(LEARNERS["NUTS"]())
        capability = made.capability(kind)
    assert isinstance(capability, kind)
    CHECKS[kind](made, capability, made.learner.capability(kind))


def test_gradients_and_checks_see_the_cast_rows():
    learner = jaxprob.GradientDescent(_loss, optax.sgd(1.0))
    low = in_precision(learner, "bf16-true")
    state = low.init(NET, key=KEY)
    gradient = low.capability(jaxprob.AbstractGradient)
    assert gradient is not None
    slopes = jax.eval_shape(
        lambda b: gradient.gradient(state, b, key=KEY).head.weight, BATCH
    )
    assert slopes.dtype == "bfloat16"
    method = in_precision(point(), "bf16-true")
    state = method.init(NET, key=KEY)
    checks = method.capability(jaxprob.AbstractDataCheck)
    assert checks is not None
    checks.check(method.model(state), BATCH)
    y = np.where(np.arange(6) == 4, np.float32(np.nan), BATCH[1])
    with pytest.raises(ValueError, match="row 4"):
        checks.check(method.model(state), (BATCH[0], y))


def _loss(model, batch, *, key):
    (x, y), mask = jaxprob.unpack(batch)
    out = jax.vmap(lambda row: model(row, key=key))(x)
    return jaxprob.masked_mean((out - y) ** 2, mask), {}


@pytest.mark.slow
def test_a_run_in_low_precision_names_the_leaf():
    """Under bf16-true the gradient of the learner inside says where."""
    low = in_precision(jaxprob.GradientDescent(_nan_head, optax.sgd(1.0)), "bf16-true")
    stepper = jaxprob.Stepper(low, low.init(NET, key=KEY), key=KEY)
    stepper([BATCH])
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        stepper.check_state()
    assert caught.value.leaves == ["head.weight"]


def _nan_head(model, batch, *, key):
    value, metrics = _loss(model, batch, key=key)
    return value + (0.0 * model.head.weight / 0.0).sum(), metrics
