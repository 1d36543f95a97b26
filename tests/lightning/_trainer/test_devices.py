"""Several devices through the Trainer: one Lightning process, one JAX program."""

import subprocess
import sys

import numpy as np
import pytest
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob import Layout
from jaxprob.lightning import JaxStrategy

from ..scene import bits, make_data, make_module, make_trainer, predicted

FOUR = Layout(data=4)

CATCHES = """
import time
import numpy as np, optax, pytorch_lightning as pl
import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

@jaxprob.mean_loss
def loss(w, row, *, key):
    return (w * row) ** 2

learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
trainer = pl.Trainer(accelerator="cpu", devices=2, logger=False)
try:
    trainer.fit(LearnerModule(learner, np.float32(1)), ArrayDataModule(np.ones(8, "f")))
except ValueError as error:
    print(type(error).__name__)
time.sleep(8)
print("alive")
"""

pytestmark = [
    # The Trainer that resumes writes no checkpoints of its own.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three epochs of 13 steps on four devices."""
    folder = tmp_path_factory.mktemp("whole")
    module = make_module(8, layout=FOUR)
    saving = ModelCheckpoint(
        folder, every_n_train_steps=5, save_top_k=-1, save_on_train_epoch_end=False
    )
    trainer = make_trainer(
        folder, max_epochs=3, enable_checkpointing=True, callbacks=[saving]
    )
    trainer.fit(module, make_data())
    return folder, module


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same on one device."""
    module = make_module(8)
    make_trainer(tmp_path_factory.mktemp("alone"), max_epochs=3).fit(
        module, make_data()
    )
    return module


@pytest.mark.slow
def test_four_devices_train_what_one_trains(tmp_path, whole, alone):
    _, many = whole
    one, four = alone.state_dict(), many.state_dict()
    for name in one:
        np.testing.assert_allclose(
            four[name].numpy(), one[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )
    trainer = make_trainer(tmp_path)
    found = trainer.validate(many, make_data(), verbose=False)[0]
    expected = trainer.validate(alone, make_data(), verbose=False)[0]
    assert found == pytest.approx(expected, rel=1e-5)
    rows = [predicted(trainer, m, make_data()) for m in (many, alone)]
    assert rows[0].shape == (20, 1)
    np.testing.assert_allclose(*rows, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("name", ["epoch=0-step=10", "epoch=1-step=20"])
def test_resuming_on_the_same_layout_gives_the_same_bits(tmp_path, whole, name, steps):
    folder, expected = whole
    module = make_module(steps, layout=FOUR)
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(module, make_data(), ckpt_path=folder / f"{name}.ckpt")
    assert bits(module) == bits(expected)


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_goes_on_with_one(tmp_path, whole, alone):
    folder, _ = whole
    module = make_module(8)
    make_trainer(tmp_path, max_epochs=3).fit(
        module, make_data(), ckpt_path=folder / "epoch=1-step=20.ckpt"
    )
    one, other = alone.state_dict(), module.state_dict()
    for name in one:
        np.testing.assert_allclose(
            other[name].numpy(), one[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [
        ({"devices": 2}, r"layout=jaxprob.Layout\(data=2\)"),
        ({"strategy": "ddp"}, r"Trainer\(accelerator='cpu', devices=1\)"),
        ({"num_nodes": 2}, r"jaxprob.join_processes\(...\) in 2 processes"),
    ],
)
def test_devices_asked_of_torch_are_rejected_with_the_call_that_works(
    tmp_path, asked, remedy
):
    trainer = make_trainer(tmp_path, **asked)
    trainer.strategy._launcher = None  # it would start torch's processes first
    with pytest.raises(ValueError, match=remedy):
        trainer.fit(make_module(), make_data())


@pytest.mark.slow
def test_the_strategy_of_one_process_changes_nothing(tmp_path, alone):
    module = make_module(8)
    trainer = make_trainer(tmp_path, max_epochs=3, strategy=JaxStrategy())
    trainer.fit(module, make_data())
    assert bits(module) == bits(alone)
    assert trainer.strategy.broadcast({"a": 1}) == {"a": 1}
    assert trainer.strategy.reduce_boolean_decision(True)


@pytest.mark.slow
def test_a_program_that_catches_the_refusal_lives_on(tmp_path):
    # Lightning starts the script again for the second device, and kills the first
    # process within five seconds if that one fails.
    script = tmp_path / "script.py"
    script.write_text(CATCHES)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stdout) == (0, "ValueError\nalive\n"), done.stderr
