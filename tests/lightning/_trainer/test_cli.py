"""LightningCLI builds module and data from a file of class paths."""

import pytest
import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningCLI

from jaxprob.lightning import LearnerModule

from .._module.test_objects import Regression
from ..scene import sealed

CONFIG = {
    "seed_everything": 1,
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_train_batches": 3,
    },
    "model": {
        "class_path": "tests.lightning._module.test_objects.Regression",
        "init_args": {"width": 6, "rate": 0.05, "inputs": 10},
    },
    "data": {
        "class_path": "jaxprob.lightning.TabularDataModule",
        "init_args": {"split": "diabetes", "batch_size": 64},
    },
}


def run(tmp_path, config, *command):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return LightningCLI(
        LearnerModule,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        args=[*command, "--config", str(path)],
    )


@pytest.mark.slow
def test_a_yaml_file_builds_module_and_data(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    # LightningCLI calls jsonargparse by names that it has renamed.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    config = CONFIG | {
        "trainer": CONFIG["trainer"] | {"default_root_dir": str(tmp_path)}
    }
    cli = run(tmp_path, config, "fit")
    assert type(cli.model).__name__ == Regression.__name__
    assert cli.model.hparams.width == 6
    assert cli.datamodule.batch_size == 64
    assert cli.trainer.global_step == 3
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert sealed(checkpoint)
