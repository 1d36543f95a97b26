"""The names of Lightning that private.py uses, and a check that they exist.

Each has its use and the version of Lightning that introduced it. The check runs before
each fit and names what is missing, so a new Lightning raises an error and never trains
wrongly.
"""

import operator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

CONTRACT: dict[str, dict[str, str]] = {
    "Trainer": {
        "_logger_connector._callback_metrics": "metrics of a step (1.5)",
        "_logger_connector._logged_metrics": "metrics of a step (1.5)",
        "_logger_connector._progress_bar_metrics": "metrics of a step (1.5)",
        "_logger_connector.should_update_logs": "whether a step is logged (1.5)",
        "_signal_connector._original_handlers": "restoring handlers of signals (1.6)",
        "_signal_connector.register_signal_handlers": "holding signals back (1.6)",
        "_signal_connector.teardown": "holding signals back (1.6)",
        "_val_check_time_interval": "whether validations follow the clock (2.6)",
        "fit_loop._combined_loader": "the place of each loader's batches (2.0)",
        "fit_loop._combined_loader_states_to_load": "the data on resume (2.5)",
        "fit_loop._data_fetcher": "handing out every n-th batch (2.0)",
        "fit_loop._should_accumulate": "whether a batch makes an update (1.6)",
        "fit_loop.epoch_loop._batches_that_stepped": "the loggers' x-axis (1.6)",
        "fit_loop.epoch_loop._should_check_val_fx": "counters after an error (1.6)",
        "fit_loop.epoch_loop.batch_idx": "the place in the epoch (1.5)",
        "fit_loop.epoch_loop.batch_progress.increment_by": "counting batches (2.5)",
        "fit_loop.epoch_loop.batch_progress.is_last_batch": "the epoch's end (1.6)",
        "fit_loop.epoch_loop.manual_optimization.optim_step_progress.increment_by": (
            "`trainer.global_step` (2.5)"
        ),
        "fit_loop.epoch_loop.total_batch_idx": "the place in the run (1.5)",
        "fit_loop.epoch_loop.manual_optimization.optim_step_progress.load_state_dict": (
            "counters of an earlier step (1.5)"
        ),
        "fit_loop.epoch_progress.current.completed": "an earlier epoch (1.5)",
        "fit_loop.epoch_progress.current.started": "an earlier epoch (1.5)",
        "fit_loop.epoch_progress.load_state_dict": "an earlier epoch (1.5)",
        "fit_loop.epoch_progress.total.completed": "an earlier epoch (1.5)",
        "fit_loop.epoch_progress.current.processed": "an error after resuming (1.5)",
        "fit_loop.epoch_progress.current.ready": "an error after resuming (1.5)",
        "fit_loop.epoch_progress.increment_completed": "resuming by `max_steps` (1.5)",
        "fit_loop.is_resuming": "gradients of a window on resume (2.5)",
        "predict_loop._combined_loader": "row numbers of predictions (2.0)",
        "fit_loop.restarted_on_epoch_end": "resuming by `max_steps` (2.5)",
        "fit_loop.update_restart_stage": "resuming by `max_steps` (2.5)",
    },
    "ModelCheckpoint": {
        "_every_n_train_steps": "steps at which it reads metrics (1.3)",
        "_last_time_checked": "`train_time_interval` (1.3)",
        "_monitor_candidates": "`train_time_interval` (2.0)",
        "_save_last_checkpoint": "`train_time_interval` (2.0)",
        "_save_topk_checkpoint": "`train_time_interval` (2.0)",
        "_should_skip_saving_checkpoint": "`train_time_interval` (2.0)",
        "_train_time_interval": "`train_time_interval` (1.3)",
    },
    "ModelSummary": {"_max_depth": "the depth that the user gave (1.5)"},
    "LightningModule": {
        "_on_before_batch_transfer": "the transfer hooks (1.7)",
        "_trainer": "whether a module has a Trainer (2.0)",
    },
    "CombinedLoader": {
        "_iterator": "many batches at once (2.0)",
        "_mode": "the place of each loader's batches (2.0)",
    },
    "_ModeIterator": {
        "_idx": "counting batches (2.0)",
        "iterators": "many batches at once (2.0)",
    },
    "_PrefetchDataFetcher": {
        "batches": "taking the place of Lightning's (2.0)",
        "combined_loader": "many batches at once (2.0)",
        "done": "counting batches (2.0)",
        "fetched": "counting batches (2.0)",
        "iterator": "taking the place of Lightning's (2.0)",
        "length": "counting batches (2.0)",
    },
    "_Loop": {"restarting": "resuming by `max_steps` (2.0)"},
    "_IndexBatchSamplerWrapper": {
        "_batch_sampler": "row numbers in prediction writers (1.4)",
        "seen_batch_indices": "row numbers in prediction writers (1.4)",
    },
    "trainer.call": {
        "_call_and_handle_interrupt": "the function inside which a run is (1.6)",
        "_call_callback_hooks": "`on_before_zero_grad` (1.6)",
        "_call_lightning_module_hook": "`on_before_zero_grad` (1.6)",
        "_call_strategy_hook": "the transfer hooks (1.6)",
    },
}
"""Paths of attributes that must exist, by the class or module that has them."""


def check(trainer: Any) -> None:
    """Check that this Lightning has the private names of the objects of a fit.

    **Raises:** `RuntimeError` that names the first one that is missing.
    """
    objects = [("Trainer", trainer), ("LightningModule", trainer.lightning_module)]
    checkpoints = trainer.checkpoint_callbacks
    objects += [
        ("ModelCheckpoint", c) for c in checkpoints if isinstance(c, ModelCheckpoint)
    ]
    for kind, start in objects:
        missing = next((path for path in CONTRACT[kind] if not has(start, path)), None)
        if missing is not None:
            raise RuntimeError(
                f"pytorch-lightning {pl.__version__} has no {kind}.{missing}, which "
                f"jaxprob.lightning needs for {CONTRACT[kind][missing]}. Install "
                "pytorch-lightning>=2.6.6,<2.8"
            )


def has(start: Any, path: str) -> bool:
    """Return whether a path of attributes exists, such as `"fit_loop.is_resuming"`."""
    try:
        operator.attrgetter(path)(start)
    except AttributeError:
        return False
    return True
