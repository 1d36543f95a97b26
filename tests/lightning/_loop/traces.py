"""What can be observed of a run, and the configurations under which it is compared."""

import datetime
import functools

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from jaxprob.lightning import ArrayDataModule

from ..scene import arrays, make_module


class Recorder(Logger):
    """A logger that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    @property
    def name(self):
        return "recorder"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.seen += [(step, key) for key in metrics]


class Watch(pl.Callback):
    """Notes where validation and epochs happen."""

    def __init__(self):
        self.validations = []
        self.epochs = []

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.validations.append((trainer.global_step, trainer.current_epoch))

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append((trainer.global_step, trainer.current_epoch))


class TorchModule(pl.LightningModule):
    """The same regression in torch and automatic optimisation, logging the same names.

    Its epoch means are logged where a user of torch logs them, with `on_epoch=True`.
    """

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
        )

    def loss(self, batch):
        x, y = batch
        error = torch.mean((self.net(x) - y) ** 2)
        return {"loss": error, "rmse": error.sqrt()}

    def training_step(self, batch, batch_idx):
        values = self.loss(batch)
        for name, value in values.items():
            self.log(f"train_{name}_step", value.detach(), on_step=True, on_epoch=False)
            self.log(f"train_{name}", value.detach(), on_step=False, on_epoch=True)
        return values["loss"]

    def validation_step(self, batch, batch_idx):
        for name, value in self.loss(batch).items():
            self.log(f"val_{name}", value)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class TorchRows:
    """Batches of tensors: sized, and in the same number as those of ours."""

    def __init__(self, data, batch_size, sized=True):
        self.data = [torch.from_numpy(a) for a in data]
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.data[0]) // self.batch_size)

    def __iter__(self):
        for i in range(len(self)):
            cut = slice(i * self.batch_size, (i + 1) * self.batch_size)
            yield tuple(a[cut] for a in self.data)


class Unsized:
    """Hides the length of a loader."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


class TorchData(pl.LightningDataModule):
    def __init__(self, rows, wrap):
        super().__init__()
        self.rows, self.wrap = rows, wrap

    def train_dataloader(self):
        return self.wrap(TorchRows(arrays(self.rows), 8))

    def val_dataloader(self):
        return TorchRows(arrays(20, 1), 8)


class OurData(ArrayDataModule):
    def __init__(self, rows, wrap):
        super().__init__(train=arrays(rows), validation=arrays(20, 1), batch_size=8)
        self.wrap = wrap

    def train_dataloader(self):
        return self.wrap(super().train_dataloader())


def same(loader):
    return loader


def checkpoint(**kwargs):
    return lambda: ModelCheckpoint(**kwargs)


def stop_early(**kwargs):
    # A threshold that every run passes at once: when it stops is then a matter of
    # counting, not of what the two networks learn.
    return lambda: EarlyStopping(stopping_threshold=1e9, patience=1000, **kwargs)


EVERY_STEP = checkpoint(
    every_n_train_steps=7, save_top_k=-1, save_on_train_epoch_end=False
)

# name: (Trainer options, callbacks, rows, wrap). 100 rows are 13 batches of 8.
CONFIGURATIONS = {
    "epochs": ({"max_epochs": 3}, [], 100, same),
    "one_epoch": ({"max_epochs": 1}, [], 100, same),
    "steps": ({"max_steps": 20, "max_epochs": -1}, [], 100, same),
    "steps_within_epochs": ({"max_steps": 20, "max_epochs": 5}, [], 100, same),
    "epochs_within_steps": ({"max_steps": 100, "max_epochs": 2}, [], 100, same),
    "one_step": ({"max_steps": 1, "max_epochs": -1}, [], 100, same),
    "zero_steps": ({"max_steps": 0, "max_epochs": -1}, [], 100, same),
    "steps_end_an_epoch": ({"max_steps": 26, "max_epochs": -1}, [], 100, same),
    "min_epochs": ({"min_epochs": 2, "max_epochs": 3}, [], 100, same),
    "log_every_1": ({"log_every_n_steps": 1}, [], 100, same),
    "log_every_3": ({"log_every_n_steps": 3, "max_epochs": 3}, [], 100, same),
    "log_every_13": ({"log_every_n_steps": 13, "max_epochs": 3}, [], 100, same),
    "log_never": ({"log_every_n_steps": 0}, [], 100, same),
    "limit_train_int": ({"limit_train_batches": 5, "max_epochs": 3}, [], 100, same),
    "limit_train_float": ({"limit_train_batches": 0.5}, [], 100, same),
    "limit_val_int": ({"limit_val_batches": 1}, [], 100, same),
    "limit_val_none": ({"limit_val_batches": 0}, [], 100, same),
    "overfit_int": ({"overfit_batches": 2, "max_epochs": 4}, [], 100, same),
    "overfit_float": ({"overfit_batches": 0.5}, [], 100, same),
    "fast_dev_run": ({"fast_dev_run": True}, [], 100, same),
    "fast_dev_run_4": ({"fast_dev_run": 4}, [], 100, same),
    "val_every_4_batches": ({"val_check_interval": 4}, [], 100, same),
    "val_half": ({"val_check_interval": 0.5}, [], 100, same),
    "val_quarter": ({"val_check_interval": 0.25, "max_epochs": 3}, [], 100, same),
    "val_every_2_epochs": (
        {"check_val_every_n_epoch": 2, "max_epochs": 5},
        [],
        100,
        same,
    ),
    "val_every_9_steps": (
        {"check_val_every_n_epoch": None, "val_check_interval": 9, "max_epochs": 3},
        [],
        100,
        same,
    ),
    "val_every_20_steps": (
        {"check_val_every_n_epoch": None, "val_check_interval": 20, "max_epochs": 4},
        [],
        100,
        same,
    ),
    "no_sanity": ({"num_sanity_val_steps": 0}, [], 100, same),
    "all_sanity": ({"num_sanity_val_steps": -1}, [], 100, same),
    "ckpt_default": ({}, [checkpoint()], 100, same),
    "ckpt_last": ({"max_epochs": 3}, [checkpoint(save_last=True)], 100, same),
    "ckpt_all": ({"max_epochs": 3}, [checkpoint(save_top_k=-1)], 100, same),
    "ckpt_every_7": ({"max_epochs": 3}, [EVERY_STEP], 100, same),
    "ckpt_every_13": (
        {"max_epochs": 3},
        [checkpoint(every_n_train_steps=13, save_top_k=-1)],
        100,
        same,
    ),
    "ckpt_every_2_epochs": (
        {"max_epochs": 5},
        [checkpoint(every_n_epochs=2, save_top_k=-1)],
        100,
        same,
    ),
    "ckpt_train_epoch_end": (
        {},
        [checkpoint(save_on_train_epoch_end=True, save_top_k=-1)],
        100,
        same,
    ),
    "ckpt_mid_epoch_validation": (
        {"val_check_interval": 5},
        [checkpoint(save_top_k=-1)],
        100,
        same,
    ),
    "two_checkpoints": (
        {"max_epochs": 3},
        [EVERY_STEP, checkpoint(every_n_epochs=1)],
        100,
        same,
    ),
    "stop_on_validation": (
        {"max_epochs": 9},
        [stop_early(monitor="val_loss")],
        100,
        same,
    ),
    "stop_on_training": (
        {"max_epochs": 9},
        [stop_early(monitor="train_loss", check_on_train_epoch_end=True)],
        100,
        same,
    ),
    "stop_mid_epoch": (
        {"max_epochs": 9, "val_check_interval": 5},
        [stop_early(monitor="val_loss")],
        100,
        same,
    ),
    "stop_after_min_steps": (
        {"max_epochs": 9, "min_steps": 30},
        [stop_early(monitor="val_loss")],
        100,
        same,
    ),
    "stop_after_min_epochs": (
        {"max_epochs": 9, "min_epochs": 3},
        [stop_early(monitor="val_loss")],
        100,
        same,
    ),
    "timer": ({"max_time": datetime.timedelta(hours=1)}, [], 100, same),
    "reload_each_epoch": (
        {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 3},
        [],
        100,
        same,
    ),
    "unsized": ({}, [], 100, Unsized),
    "unsized_limited": ({"limit_train_batches": 5, "max_epochs": 3}, [], 100, Unsized),
    "unsized_val_every_4": ({"val_check_interval": 4}, [], 100, Unsized),
    "accumulate": ({"accumulate_grad_batches": 4, "max_epochs": 3}, [], 100, same),
    "accumulate_steps": (
        {"accumulate_grad_batches": 4, "max_steps": 6, "max_epochs": -1},
        [],
        100,
        same,
    ),
    "accumulate_ckpt_every_2": (
        {"accumulate_grad_batches": 3, "max_epochs": 3, "log_every_n_steps": 1},
        [
            checkpoint(
                every_n_train_steps=2, save_top_k=-1, save_on_train_epoch_end=False
            )
        ],
        100,
        same,
    ),
    "accumulate_val_every_5": (
        {"accumulate_grad_batches": 3, "val_check_interval": 5, "max_epochs": 3},
        [],
        100,
        same,
    ),
    "accumulate_unsized": ({"accumulate_grad_batches": 3}, [], 100, Unsized),
    "whole_batches": ({"max_epochs": 3}, [], 96, same),
    "one_batch": ({"max_epochs": 3, "log_every_n_steps": 1}, [], 8, same),
}


def observe(folder, name, module, data):
    """Runs a configuration and gives all that is compared."""
    options, callbacks, _, _ = CONFIGURATIONS[name]
    recorder, watch = Recorder(), Watch()
    callbacks = [make() for make in callbacks]
    for i, callback in enumerate(callbacks):
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = folder / f"checkpoints_{i}"
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=recorder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=[watch, *callbacks],
        **{"max_epochs": 2, "log_every_n_steps": 4, **options},
    )
    trainer.fit(module, data)
    return {
        "global_step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "validations": watch.validations,
        "epochs": watch.epochs,
        "logged": sorted(recorder.seen, key=str),
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*.ckpt")),
    }


def torch_trace(folder, name):
    _, _, rows, wrap = CONFIGURATIONS[name]
    return observe(folder, name, TorchModule(), TorchData(rows, wrap))


@functools.cache
def shared_module(steps_per_dispatch):
    """One module for all runs: where it stands does not show, its compiling would."""
    return make_module(steps_per_dispatch)


def our_trace(folder, name, steps_per_dispatch):
    _, _, rows, wrap = CONFIGURATIONS[name]
    module = shared_module(steps_per_dispatch)
    return observe(folder, name, module, OurData(rows, wrap))
