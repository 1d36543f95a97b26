"""Preparation of a Trainer before each of its runs with a `LearnerModule`."""

from typing import Any

from pytorch_lightning.callbacks import ModelSummary

from .._checkpoint.checkpoint_io import make_atomic
from .._checkpoint.save_on_signal import SaveOnSignal
from .._logging.summary import TreeSummary
from .._trainer.devices import check_devices
from .._trainer.options import Options, take_over
from .._trainer.packages import check_trainer
from .._trainer.reject_callbacks import reject_callbacks
from .._trainer.reject_overrides import reject_overrides
from .._trainer.signals import hold_signals
from .._trainer.warnings import silence_false_alarms
from .bridge import attach
from .engine import Engine


def prepare_trainer(engine: Engine) -> None:
    """Take over what the Trainer asks of the optimiser, and add our callbacks.

    It may be called twice in a run: first all options are as the user gave them.

    **Raises:** `ValueError` or `TypeError` for options and callbacks of the Trainer
    that could not be honoured.
    """
    silence_false_alarms()
    trainer: Any = engine.trainer
    check_trainer(trainer)
    bridge = attach(trainer, engine)
    bridge.give_back()
    hold_signals(trainer, engine.dispatcher.leave)
    for callback in trainer.callbacks:
        if isinstance(callback, SaveOnSignal):
            callback.listen()
    check_devices(trainer, engine.run.layout)
    shows_each_batch = engine.dispatcher.each_batch.shows_each_batch
    reject_callbacks(trainer, shows_each_batch=shows_each_batch)
    options, bridge.undo = take_over(trainer, engine.take_loader)
    make_atomic(trainer.strategy)
    if trainer.training:
        _prepare_fit(trainer, engine, options)
    elif engine.run.fresh:
        # Any other is evaluated in the precision it has, and stays as it is.
        engine.adopt(Options(precision=options.precision))


def _prepare_fit(trainer, engine, options):
    reject_overrides(engine.module, engine.overrides)
    if engine.frozen:
        raise ValueError(
            "module.freeze() holds torch parameters, and the module has none. State "
            "what is trained in the learner, trainable=jaxprob.tree.freeze(model, "
            "'layers.0'), or call module.unfreeze() before the fit"
        )
    engine.adopt(options)
    trainer.callbacks = [
        TreeSummary(callback) if _is_torch_summary(callback) else callback
        for callback in trainer.callbacks
    ]


def _is_torch_summary(callback):
    return isinstance(callback, ModelSummary) and not isinstance(callback, TreeSummary)
