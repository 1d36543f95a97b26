"""Ours against torch in automatic optimisation: one trace, whatever the Trainer.

Each configuration runs once with a torch module and with ours at one and at many steps
per dispatch, and everything observable is compared: global step, epoch, where
validation ran, the names of checkpoints, and at which step loggers got which key.
"""

import pytest

from .traces import CONFIGURATIONS, our_trace, torch_trace

# Torch's own `ModelCheckpoint` and data warnings are not what is compared here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*"),
]

QUICK = ("epochs", "steps", "val_every_9_steps", "ckpt_every_7", "stop_mid_epoch")


def compare(tmp_path, name, steps):
    (tmp_path / "torch").mkdir()
    (tmp_path / "ours").mkdir()
    expected = torch_trace(tmp_path / "torch", name)
    found = our_trace(tmp_path / "ours", name, steps)
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_the_trace_is_that_of_torch(tmp_path, name):
    compare(tmp_path, name, 6)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 6, 64])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_trace_is_that_of_torch(tmp_path, name, steps):
    compare(tmp_path, name, steps)
