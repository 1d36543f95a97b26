"""The machinery of a module is one private object: no name of a user's meets ours."""

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from jaxprob.lightning import LearnerModule
from jaxprob.lightning._loop.dispatcher import Dispatcher
from jaxprob.lightning._loop.engine import Engine
from jaxprob.lightning._loop.fit import Fit
from jaxprob.lightning._loop.run import Run
from jaxprob.lightning._module.posterior_judge import PosteriorJudge

from ..scene import bits, make_data, make_learner, make_module, make_trainer, network
from .test_bnn import regression
from .test_diffusion import make_module as denoising

INTERFACE = {
    *("learner", "lr_schedule", "layout", "seed"),  # arguments
    *("state", "model", "learning_rate", "x_scaler", "y_scaler", "gradient"),
    *("argument_names", "sees_every_batch", "predicted_rows"),
    "_engine",
}
MORE = {
    make_module: set(),
    regression: {
        *("inference", "likelihood", "num_samples", "level", "batches"),
        *("posterior", "predictive", "training_batches", "needs_batches"),
        *("predictive_every_n_epochs", "save_posterior"),
    },
    denoising: {
        *("shape", "sampler", "conditional", "guidance"),
        *("num_previews", "preview_cond", "previews_every_n_epochs"),
        *("sample", "previews"),
    },
}


def names(module):
    """Attributes of a class, and those that its constructors set on the object."""
    found = {*dir(type(module)), *vars(module)}
    return {name for name in found if not name.startswith("__")}


@pytest.mark.parametrize("make", MORE)
def test_a_module_adds_few_names_to_those_of_lightning(make):
    added = names(make()) - names(pl.LightningModule())
    assert added == INTERFACE | MORE[make]


def machinery():
    """All names of the objects behind a module, and some that stood in it before."""
    module = make_module()
    engine = module._engine
    parts = [engine, engine.run, engine.run.stepper, engine.dispatcher, engine.fit]
    found = {name for part in parts for name in (*dir(part), *vars(part))}
    found |= set(dir(PosteriorJudge))
    found |= {"run", "place", "stepper", "state_arrays", "settle", "receive", "bound"}
    found |= {"_run", "_waiting", "_dispatch", "_evaluate", "_predict", "_adopt"}
    taken = set(dir(pl.LightningModule)) | INTERFACE
    return sorted(name for name in found - taken if not name.startswith("__"))


def test_the_names_of_the_machinery_are_many():
    found = set(machinery())
    for cls in (Engine, Run, Dispatcher, Fit):
        assert len(found & set(dir(cls))) > 5, cls


def clashing(base):
    def wrong(self, *args, **kwargs):
        raise AssertionError("a method of the user's was called")

    return type("Clashing", (base,), dict.fromkeys(machinery(), wrong))


def test_methods_of_a_subclass_with_names_of_ours_change_nothing(tmp_path):
    def run(kind, folder):
        module = kind(make_learner(), network(), seed=0, steps_per_dispatch=8)
        trainer = make_trainer(folder, gradient_clip_val=0.1)
        trainer.fit(module, make_data())
        metrics = dict(trainer.callback_metrics)
        trainer.save_checkpoint(folder / "a.ckpt")
        (test,) = trainer.test(module, make_data(), verbose=False)
        predictions: Any = trainer.predict(module, make_data())
        again = kind(make_learner(), network(), seed=1, steps_per_dispatch=8)
        make_trainer(folder, max_epochs=3).fit(
            again, make_data(), ckpt_path=folder / "a.ckpt"
        )
        return bits(module), bits(again), metrics, test, predictions

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours = run(LearnerModule, tmp_path / "a")
    users = run(clashing(LearnerModule), tmp_path / "b")
    assert users[:2] == ours[:2]
    assert users[2] == ours[2]
    assert users[3] == ours[3]
    for mine, theirs in zip(ours[4], users[4], strict=True):
        assert np.array_equal(mine, theirs)
