"""Runs hold what is needed to repeat them, and the command predicts as Python does."""

import json
import resource
import signal
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

import jaxprob
from jaxprob import metrics
from jaxprob.cli import main
from jaxprob.cli._arrays import read_examples
from jaxprob.cli._config import DiffusionConfig
from jaxprob.cli._doctor import of_combinations
from jaxprob.cli._report_table import pit_of
from jaxprob.cli._score_table import QUANTILES, crps_of_quantiles

SHORT = "--method map --num-steps 20 --quiet"
COMMANDS = (
    "fit",
    "predict",
    "sample",
    "evaluate",
    "report",
    "resume",
    "cost",
    "doctor",
)


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_imports_no_jax_and_takes_less_than_half_a_second(words):
    code = (
        "import sys; from jaxprob.cli import main\n"
        f"try: main({[*words, '--help']!r})\n"
        "except SystemExit: pass\n"
        "assert 'jax' not in sys.modules and 'torch' not in sys.modules"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "usage: jaxprob" in done.stdout
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert seconds < 0.5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    table["kind"] = np.where(rng.uniform(size=60) < 0.5, "x", "y")
    table["y"] = 100 + 5 * table["a"]
    table.to_parquet(folder / "t.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(f"fit t.parquet --target y {SHORT} --seed 3 --out r".split()) == 0
        assert main(f"fit t.parquet --target kind {SHORT} --out c".split()) == 0
    return folder, table


@pytest.mark.slow
def test_a_run_records_how_to_repeat_it(runs):
    folder, _ = runs
    config = yaml.safe_load((folder / "r" / "config.yaml").read_text())
    assert config["seed"] == 3
    assert config["hidden"] == [16, 16, 16, 16]
    record = json.loads((folder / "r" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["versions"]["jaxprob"] == jaxprob.__version__
    assert {"git", "command", "started"} <= set(record)
    assert record["data"]["held_out"] == 12
    assert record["data"]["features"] == ["a", "b", "kind"]


@pytest.mark.slow
def test_a_configuration_gives_the_same_model_again(runs, monkeypatch):
    folder, table = runs
    monkeypatch.chdir(folder)
    assert main(["fit", "--config", "r/config.yaml", "--out", "again"]) == 0
    one, other = (
        jaxprob.load(folder / name / "model.safetensors").predict(
            table.drop(columns="y")
        )
        for name in ("r", "again")
    )
    np.testing.assert_array_equal(one, other)
    # An interrupted run has no model; `resume` gives the same one.
    (folder / "again" / "model.safetensors").unlink()
    assert main(["resume", "again"]) == 0
    other = jaxprob.load(folder / "again" / "model.safetensors").predict(
        table.drop(columns="y")
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_predictions_are_those_of_the_estimator(runs, monkeypatch, capsys):
    folder, table = runs
    monkeypatch.chdir(folder)
    assert main(["predict", "r", "t.parquet", "--out", "p.csv", "--level", "0.8"]) == 0
    found = pd.read_csv("p.csv")
    estimator = jaxprob.load("r/model.safetensors")
    table = table.drop(columns="y")
    mean, std = estimator.predict(table, return_std=True)
    lower, upper = estimator.predict_interval(table, 0.8)
    for name, column in (
        ("mean", mean),
        ("std", std),
        ("lower", lower),
        ("upper", upper),
    ):
        np.testing.assert_allclose(found[name], column, rtol=1e-12)
    np.testing.assert_allclose(
        found["std"],
        np.hypot(found["epistemic_std"], found["aleatoric_std"]),
        rtol=1e-4,
    )
    assert main(["predict", "c", "t.parquet", "--out", "p.parquet"]) == 0
    found = pd.read_parquet("p.parquet")
    np.testing.assert_allclose(found["p(x)"] + found["p(y)"], 1.0, rtol=1e-6)
    assert set(found["predicted"]) <= {"x", "y"}
    capsys.readouterr()
    assert main(["evaluate", "c", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == json.loads((folder / "c" / "scores.json").read_text())
    assert scores["rows"] == 12
    assert main(["predict", "r", "renamed.csv"]) == 2  # no such file


@pytest.mark.slow
def test_a_full_disk_leaves_no_model(runs, monkeypatch, capsys):
    folder, _ = runs
    monkeypatch.chdir(folder)

    def full(*_):
        raise OSError(28, "No space left on device", "full/model.safetensors")

    monkeypatch.setattr("jaxprob._io.tensor_file.write", full)
    assert main(f"fit t.parquet --target y {SHORT} --out full".split()) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "no space left on the disk of full/model.safetensors" in message
    assert sorted(p.name for p in (folder / "full").iterdir()) == [
        "config.yaml",
        "run.json",
    ]
    assert json.loads((folder / "full/run.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_interrupted_diffusion_model_goes_on_bit_for_bit(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", np.random.default_rng(0).normal(size=(40, 2)))
    words = [
        "fit",
        "p.npy",
        "--epochs",
        "4",
        "--width",
        "8",
        "--save-every",
        "1",
        "--quiet",
        "--out",
    ]
    assert main([*words, "whole"]) == 0

    def interrupt(self, trainer, module):
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelCheckpoint, "on_train_epoch_start", interrupt)
        assert main([*words, "parts"]) == 130
    assert "jaxprob resume parts" in capsys.readouterr().err
    assert json.loads((tmp_path / "parts/run.json").read_text())["status"] == (
        "interrupted"
    )
    assert not (tmp_path / "parts/model.safetensors").exists()
    assert main(["resume", "parts"]) == 0
    for name in ("whole", "parts"):
        assert main(f"sample {name} --num-samples 5 --out {name}.npy".split()) == 0
    np.testing.assert_array_equal(np.load("whole.npy"), np.load("parts.npy"))
    assert main(["resume", "parts"]) == 2


def test_the_crps_of_quantiles_is_that_of_the_distribution():
    from scipy.stats import norm

    y = np.array([-1.0, 0.2, 2.5])
    quantiles = norm.ppf(QUANTILES)[None].repeat(3, axis=0)
    exact = metrics.crps_gaussian(y, 0 * y, 0 * y + 1, per_example=True)
    np.testing.assert_allclose(crps_of_quantiles(y, quantiles), exact, atol=0.02)
    assert pit_of(0.0, quantiles[0]) == pytest.approx(0.5, abs=1e-6)
    assert pit_of(-9.0, quantiles[0]) == 0.005


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((9, 4), (9, 4)),
        ((9, 6, 6), (9, 1, 6, 6)),
        ((9, 3, 6, 6), (9, 3, 6, 6)),
        ((9, 6, 6, 3), (9, 3, 6, 6)),
    ],
)
def test_shapes_of_arrays(shape, expected, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    x = read_examples(DiffusionConfig(str(tmp_path / "a.npy"))).x
    assert x.shape == expected
    assert x.max() == pytest.approx(values.max() / 255)
    if shape[-1] == 3:
        np.testing.assert_allclose(x[2, 1], values[2, ..., 1] / 255, rtol=1e-6)


def test_a_folder_of_images_in_classes(tmp_path):
    from PIL import Image

    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for j in range(3):
            grey = np.full((4, 6), 100 * i + j, np.uint8)
            Image.fromarray(grey).save(tmp_path / name / f"{j}.png")
    found = read_examples(DiffusionConfig(str(tmp_path), classes=True))
    assert found.x.shape == (6, 1, 4, 6)
    assert found.names == ("cat", "dog")
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1, 1])
    assert found.x[4].max() == pytest.approx(101 / 255)
    resized = read_examples(DiffusionConfig(str(tmp_path), size=8))
    assert resized.x.shape == (6, 1, 8, 8)


def test_the_doctor_knows_bad_combinations(monkeypatch):
    assert not [f for f in of_combinations() if f.name == "lightning"]
    monkeypatch.setattr(
        "jaxprob.cli._doctor._is_installed", lambda name: name == "lightning"
    )
    (found,) = [f for f in of_combinations() if f.name == "lightning"]
    assert "pip uninstall lightning" in found.advice


@pytest.mark.slow
def test_the_cost_of_a_diffusion_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", np.random.default_rng(0).normal(size=(100, 2)))
    assert (
        main(["cost", "p.npy", "--width", "8", "--batch-size", "30", "--test", "0"])
        == 0
    )
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    found = {words[0]: words[-1].strip() for words in lines}
    net = jaxprob.diffusion.nn.ResidualMLP(2, width=8, key=jax.random.key(0))
    assert int(found["parameters"]) == jaxprob.tree.count(net)
    assert found["steps in an epoch"] == "4"
    step = float(found["processor time of a step"].split()[0]) / 1e3
    assert float(found["processor time of an epoch"].split()[0]) == pytest.approx(
        4 * step, rel=0.02
    )
    assert not list(tmp_path.glob("runs*"))
