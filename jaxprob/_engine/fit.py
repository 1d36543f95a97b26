"""Training without Lightning: a plain JAX loop with a progress bar."""

import itertools
import math
from collections.abc import Iterable, Sequence, Sized
from typing import Literal

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from .._random.keys import as_seed, check_key
from .._training.carry_over import carry_over
from .._training.divergence import warn_of_divergence
from .._training.learner import AbstractLearner
from .._training.loader import ArrayLoader
from .._training.non_finite import NonFiniteError
from .._training.plateau import check_monitors
from .._training.total_steps import needs_total_steps
from .._types import Model, PRNGKey, State
from .between_steps import begin_epoch, show_metrics, waits_for
from .data_sets import as_loader, first_pass_check
from .epochs import dispatches, place_of
from .evaluate import Evaluator
from .held_signals import HELD
from .layout import Layout
from .stepper import Stepper
from .total_steps import with_total_steps
from .totals import Totals

History = list[dict[str, float]]


def fit(
    learner: AbstractLearner,
    model: Model,
    data: PyTree | Iterable[PyTree],
    *,
    key: PRNGKey,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    batch_size: int = 32,
    validation: PyTree | Iterable[PyTree] | None = None,
    state: State | None = None,
    step: int | None = None,
    reset: str | Sequence[str] = (),
    steps_per_dispatch: int | Literal["auto"] = "auto",
    layout: Layout | None = None,
    progress: bool = True,
) -> tuple[State, History]:
    """Train a model, and return the learner's state and a history of metrics.

    ```python
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3))
    state, history = jaxprob.fit(learner, model, (x, y), key=key, num_epochs=20)
    model = learner.model(state)
    ```

    **Arguments:**

    - `learner`: any `AbstractLearner`: gradient descent or an inference method. Another
        `fit` of the same object compiles nothing, unless a Python value that its
        functions read beside their arguments has changed, which raises a warning.
    - `model`: what to train. It is copied, never changed.
    - `data`: arrays with one leading axis, such as `(x, y)`, which are shuffled anew in
        each epoch; or any re-iterable of batches, such as a list of pairs or
        torch's `DataLoader`, used as it is.
    - `key`: everything random in the run.
    - `num_steps`, `num_epochs`: how long; one of the two. They count from the beginning
        of the run, also where it goes on from a state.
    - `batch_size`: rows in a batch, when `data` are arrays.
    - `validation`: arrays or batches to evaluate after each epoch.
    - `state`, `step`: of an earlier run with the same `key` and `data`, from which this
        one goes on with the bits of one longer run (see below).
    - `reset`: paths of parts of the state that begin anew, such as `"opt_state"` for
        another optimiser. The learner may have another learning rate, clipping or
        schedule in any case: its settings are those of now.
    - `steps_per_dispatch`, `layout`: as in `jaxprob.Stepper`.
    - `progress`: whether to show a progress bar on standard error.

    **Returns:** `(state, history)`. The state is on one device, or split over several
    as `Layout(shard=4)` places it. History has one entry for each epoch (the last one
    may be cut short by `num_steps`): `"step"`, the means of the training metrics over
    the epoch, and those of the validation under `"val_" + name`.

    **Raises:** errors of the learner's `AbstractDataCheck` and of `ArrayLoader`;
    `NonFiniteError`, a `FloatingPointError` that holds the last good state, when a step
    breaks the state (see `Stepper.check_state`), with the step and the leaf; or when
    the mean loss over an epoch is not finite. Warns where it ends far above where it
    was. Batches of an iterable are checked as they come, in the first epoch.

    Whatever else ends the training is raised as itself: an error of the user's code
    inside a step, an error of the data, Ctrl-C. Each of them has the learner's state as
    `error.state`, the number of steps that it has seen as `error.step`, and the epochs
    before as `error.history`. Where no memory is left, the state is a copy that is
    older by at most 1024 steps or 20 seconds:

    ```python
    try:
        state, history = jaxprob.fit(learner, model, (x, y), key=key, num_epochs=20)
    except KeyboardInterrupt as error:  # later, in a notebook: sys.last_value.state
        state = error.state
    ```

    A run goes on from a state and its number of steps:

    ```python
    run = dict(model=model, data=(x, y), key=key)
    state, history = jaxprob.fit(learner, num_epochs=10, **run)
    step = int(history[-1]["step"])
    run |= {"state": state, "step": step}
    state, more = jaxprob.fit(learner, num_epochs=2 * 10, **run)
    ```

    The state and `history + more` are those of one run of 20 epochs. Where the first
    run ends in the middle of an epoch, both histories have an entry for it, the means
    over their parts. An iterable has to yield the same batches again.
    """
    check_key(key)
    _check_arguments(learner, num_steps, num_epochs, batch_size, state, step)
    begin = 0 if step is None else step
    init_key, train_key, data_key, eval_key = jax.random.split(key, 4)
    loader = as_loader(data, batch_size, shuffle=True, seed=as_seed(data_key))
    held_out = None
    if validation is not None:
        held_out = as_loader(validation, batch_size, shuffle=False, seed=0)
    for rows in (loader, held_out):
        if isinstance(rows, ArrayLoader):
            rows.process_rows = (layout or Layout()).process_rows()
    training_check = first_pass_check(loader, learner, model, training=True)
    validation_check = first_pass_check(held_out, learner, model, training=False)
    total = num_steps if num_steps is not None else _total(loader, num_epochs)
    learner = _built(learner, total)
    fresh = learner.init(model, key=init_key)
    stepper = Stepper(
        learner,
        fresh if state is None else carry_over(state, fresh, reset=reset),
        key=train_key,
        step=begin,
        steps_per_dispatch=steps_per_dispatch,
        layout=layout,
    )
    if isinstance(loader, Sized):
        stepper.bound(len(loader))
    if held_out is None:
        unknown = [name for name in waits_for(stepper) if name.startswith("val_")]
        check_monitors(unknown, ["train_loss"])
    place = place_of(loader, begin)
    if _finished(begin, place[0], num_steps, num_epochs):
        length = "num_steps" if num_epochs is None else "num_epochs"
        raise ValueError(
            f"{length}={num_epochs or num_steps}, and the state has made {begin} steps "
            f"already: {length} counts from the beginning of the run, so give more"
        )
    shown = progress and jax.process_index() == 0
    history: History = []
    evaluator = Evaluator(learner, layout)

    def evaluate():
        if held_out is None:
            return {}
        batches = validation_check.over(held_out)
        means = evaluator(stepper.live, batches, key=eval_key)
        return {f"val_{name}": value for name, value in means.items()}

    HELD.install()
    try:
        with tqdm(total=total, initial=begin, disable=not shown, unit="step") as bar:
            _train(
                stepper,
                loader,
                training_check,
                history,
                key=train_key,
                place=place,
                num_steps=num_steps,
                num_epochs=num_epochs,
                evaluate=evaluate,
                bar=bar,
            )
        stepper.check_state()
        warn_of_divergence([entry["loss"] for entry in history if "loss" in entry])
        return stepper.fetch(), history
    except BaseException as error:
        _give_state(error, stepper, history)
        raise
    finally:
        HELD.uninstall()


def _check_arguments(learner, num_steps, num_epochs, batch_size, state, step):
    if (num_steps is None) == (num_epochs is None):
        raise ValueError(
            "say how long to train: give num_steps or num_epochs, not both"
        )
    if not isinstance(learner, AbstractLearner):
        raise TypeError(
            f"learner is a {type(learner).__name__}: fit(learner, model, data), where "
            "the learner is a method such as MAP(log_joint, optimizer)"
        )
    for name, value in (
        ("num_steps", num_steps),
        ("num_epochs", num_epochs),
        ("batch_size", batch_size),
        ("step", step),
    ):
        whole = isinstance(value, int | np.integer)
        least = 0 if name == "step" else 1
        if value is not None and not (whole and value >= least):
            raise ValueError(f"{name}={value}: a whole number, at least {least}")
    if (state is None) != (step is None):
        given, other = ("step", "state") if state is None else ("state", "step")
        raise ValueError(
            f"{given} is given without {other}: a run goes on from a state and the "
            "number of steps that made it, state=state, step=int(history[-1]['step'])"
        )


def _train(
    stepper, loader, check, history, *, key, place, num_steps, num_epochs, evaluate, bar
):
    done, (first, skip) = stepper.step, place
    for epoch in itertools.count(first):
        if _finished(done, epoch, num_steps, num_epochs):
            return
        begin_epoch(stepper, epoch, key=key)
        before = done
        limit = math.inf if num_steps is None else num_steps - done
        for batches in dispatches(
            loader, stepper, check, limit=limit, epoch=epoch, skip=skip
        ):
            stepper(batches)
            done += len(batches)
            bar.update(len(batches))
        skip = 0
        if done == before:
            raise ValueError(
                f"data gave no batch in epoch {epoch}: is it a generator? Give "
                "arrays, or an iterable that can be iterated again"
            )
        entry = {"step": float(done), **_means(stepper.totals)}
        _check_loss(entry, stepper)
        entry |= evaluate()
        if waited := waits_for(stepper):
            measured = entry | {f"train_{k}": v for k, v in entry.items()}
            check_monitors(waited, measured)
            show_metrics(stepper, measured, key=key)
        history.append(entry)
        figures = {k: f"{v:.4g}" for k, v in entry.items() if k != "step"}
        bar.set_postfix(figures, refresh=False)


def _give_state(error, stepper, history):
    """Hand the state over with an error that ends a training."""
    if isinstance(error, NonFiniteError) or jax.process_count() > 1:
        return  # it has the state; or only one process may have failed
    try:
        if stepper.is_readable():
            state, step = stepper.fetch(), stepper.step
        else:
            state, step = stepper.last_copy()
        vars(error).update(state=state, step=step, history=history)
    except Exception as lost:
        error.add_note(f"jaxprob.fit cannot give the state: {lost}")
        return
    note = f"jaxprob.fit: the state after {step} steps is error.state"
    if step < stepper.step:
        note += f". There is no memory to repeat the {stepper.step - step} after it"
    error.add_note(note)


def _means(totals: Totals | None) -> dict[str, float]:
    assert totals is not None  # at least one step has run
    return totals.means()


def _total(loader, num_epochs):
    return len(loader) * num_epochs if isinstance(loader, Sized) else None


def _built(learner, total):
    """Return the learner with the optimisers that wait for the number of steps."""
    if total is None and needs_total_steps(learner):
        raise ValueError(
            "jaxprob.from_total_steps needs the number of steps of the run, and data "
            "without a length do not give it: give num_steps instead of num_epochs"
        )
    return learner if total is None else with_total_steps(learner, total)


def _finished(done, epoch, num_steps, num_epochs):
    return epoch >= num_epochs if num_steps is None else done >= num_steps


def _check_loss(entry, stepper):
    if math.isfinite(entry.get("loss", 0.0)):
        return
    stepper.check_state()
    step = int(entry["step"])
    raise NonFiniteError(
        f"the mean loss over the epoch that ended at step {step} is {entry['loss']}, "
        "and the state is finite: lower the learning rate or clip the gradient "
        "(optax.clip_by_global_norm), and look at the scale of the data",
        state=stepper.fetch(),
        step=step,
        leaves=[],
    )
