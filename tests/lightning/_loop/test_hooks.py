"""Which hooks of the user's fire, how often, and what they see."""

import pytest
import pytorch_lightning as pl

from jaxprob.lightning import LearnerModule

from ..scene import make_data, make_learner, make_trainer, network
from .traces import TorchData, TorchModule, same

# There is no backward pass outside the program: these are rejected here.
NEVER_HERE = {"on_before_backward", "on_after_backward"}


def hooks_of(kind):
    return [
        name for name in dir(kind) if name.startswith("on_") and name not in NEVER_HERE
    ]


class Spy(pl.Callback):
    """Counts the calls of every hook of a callback."""

    def __init__(self):
        self.calls = dict.fromkeys(hooks_of(pl.Callback), 0)

        def counting(name):
            def hook(*args, **kwargs):
                self.calls[name] += 1

            return hook

        for name in self.calls:
            setattr(self, name, counting(name))


def spying(kind):
    """A module class of which every hook is counted and then done."""
    calls = dict.fromkeys(hooks_of(pl.LightningModule), 0)

    def counting(name, inherited):
        def hook(self, *args, **kwargs):
            calls[name] += 1
            return inherited(self, *args, **kwargs)

        return hook

    hooks = {name: counting(name, getattr(kind, name)) for name in calls}
    # Lightning deprecated it and calls it nowhere, but rejects who has it.
    hooks.pop("on_validation_model_zero_grad", None)
    return type(kind.__name__, (kind,), hooks), calls


class Torch(TorchModule):
    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch)["loss"])

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])


class Data(TorchData):
    def test_dataloader(self):
        return self.val_dataloader()

    def predict_dataloader(self):
        return self.val_dataloader()


def everything(folder, module, data):
    """All stages, a checkpoint and a resume; the calls of a callback's hooks."""
    spy, resumed = Spy(), Spy()
    trainer = make_trainer(folder, max_epochs=1, callbacks=[spy])
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "a.ckpt")
    for stage in (trainer.validate, trainer.test):
        stage(module, data, verbose=False)
    trainer.predict(module, data)
    trainer = make_trainer(folder, max_epochs=2, callbacks=[resumed])
    trainer.fit(module, data, ckpt_path=folder / "a.ckpt")
    return {name: spy.calls[name] + resumed.calls[name] for name in spy.calls}


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    theirs, theirs_own = spying(Torch)
    ours, ours_own = spying(LearnerModule)
    module = ours(make_learner(), network(), steps_per_dispatch=1)
    torch_calls = everything(
        tmp_path_factory.mktemp("torch"), theirs(), Data(100, same)
    )
    our_calls = everything(tmp_path_factory.mktemp("ours"), module, make_data())
    return torch_calls, our_calls, theirs_own, ours_own


# The torch module's loaders have three batches where ours have three, and so on: with
# one step in a dispatch every count is that of torch.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", hooks_of(pl.Callback))
def test_a_hook_of_a_callback_fires_as_often_as_with_torch(counts, name):
    expected, found, _, _ = counts
    assert found[name] == expected[name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("name", hooks_of(pl.LightningModule))
def test_a_hook_of_the_module_fires_as_often_as_with_torch(counts, name):
    _, _, expected, found = counts
    assert found[name] == expected[name]


@pytest.mark.slow
def test_with_many_steps_a_batch_hook_sees_the_last_batch_of_each_dispatch(tmp_path):
    seen = []

    class Look(pl.Callback):
        sees_every_batch = False

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(("start", trainer.global_step, batch_idx))

        def on_before_optimizer_step(self, trainer, module, optimizer):
            seen.append(("step", trainer.global_step))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(("end", trainer.global_step, batch_idx))

    module = LearnerModule(make_learner(), network(), steps_per_dispatch=5)
    make_trainer(tmp_path, max_epochs=1, callbacks=[Look()]).fit(module, make_data())
    assert [s for s in seen if s[0] == "start"] == [
        ("start", 4, 4),
        ("start", 9, 9),
        ("start", 12, 12),
    ]
    assert [s for s in seen if s[0] == "end"] == [
        ("end", 5, 4),
        ("end", 10, 9),
        ("end", 13, 12),
    ]
