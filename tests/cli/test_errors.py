"""A mistake is one line that says what to do, an exit code, and no file."""

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

from jaxprob.cli import main
from jaxprob.cli._config import DiffusionConfig, TableConfig
from jaxprob.cli._errors import one_line
from jaxprob.cli._run import Run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(30, 3)), columns=["area", "rooms", "price"])
    table["kind"] = np.where(table["area"] > 0, "house", "flat")
    table.to_csv("houses.csv", index=False)
    table.assign(price=table["price"].where(table.index != 4)).to_csv("gaps.csv")
    table.rename(columns={"area": "aera"}).to_csv("renamed.csv", index=False)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "broken.parquet").write_text("no table")
    (tmp_path / "notes.txt").write_text("text")
    np.save("points.npy", rng.normal(size=(20, 2)))
    np.save("odd.npy", rng.normal(size=(20, 2, 2, 2, 2)))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    np.savez("unnamed.npz", points=np.zeros((9, 2)))
    (tmp_path / "images").mkdir()
    (tmp_path / "nan.npy").touch()
    np.save("nan.npy", np.full((9, 2), np.nan))
    (tmp_path / "wrong.yaml").write_text(
        "data: houses.csv\ntarget: price\nefort: fast\n"
    )
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    (tmp_path / "text.yaml").write_text("data: houses.csv\ntarget: price\nseed: one\n")
    return tmp_path


FIT = "fit houses.csv --target price"
CASES = {
    "fitt": "did you mean 'fit'?",
    "fit missing.csv --target price": "missing.csv does not exist",
    "fit notes.txt --target price": "no kind of data",
    "fit empty.csv --target price": "empty.csv is no table",
    "fit broken.parquet --target price": "broken.parquet is no table",
    "fit houses.csv": "no target",
    "fit houses.csv --target prize": "no column 'prize'; did you mean 'price'?",
    "fit houses.csv --target zzz": "its columns are area, rooms, price, kind",
    "fit houses.csv --target kind --task regression": "is not of numbers, e.g. 'house'",
    "fit gaps.csv --target price": "no 'price', the first is row 4",
    f"{FIT} --features area,room": "no column 'room'; did you mean 'rooms'?",
    f"{FIT} --features price": "features holds the target",
    f"{FIT} --epochs 3": "no option '--epochs' for this kind of data",
    f"{FIT} --sed 3": "did you mean '--seed'?",
    f"{FIT} --seed one": "seed=one: give a whole number",
    f"{FIT} --effort fats": "did you mean 'fast'?",
    f"{FIT} --test 1.0": "test=1.0",
    f"{FIT} --test 0.99": "leave fewer than 2 for training",
    f"{FIT} --learning-rate 0.0": "learning_rate=0.0: give a positive number",
    f"{FIT} --out images": "images exists: give another --out",
    "fit --config wrong.yaml": "a table has; did you mean 'effort'?",
    "fit --config list.yaml": "list.yaml holds no keys",
    "fit --config bad.yaml": "bad.yaml is no YAML",
    "fit --config text.yaml": "seed=one: give a whole number",
    "fit --config missing.yaml": "missing.yaml does not exist",
    "fit odd.npy": "odd.npy has shape (20, 2, 2, 2, 2)",
    "fit objects.npy": "no array of numbers",
    "fit unnamed.npz": "no array 'x'; its arrays are points",
    "fit nan.npy": "NaN or infinite values, first in row 0",
    "fit points.npy --classes": "needs labels",
    "fit points.npy --network unet": "network: unet is for images",
    "fit images": "holds no images",
    "predict runs/none houses.csv": "runs/none is no folder",
    "predict images houses.csv": "holds no config.yaml, so it is no run",
    "predict images": "the following arguments are required: DATA",
    "sample images --num-samples 0": "0 is below 1",
    "report images --otu x": "unrecognized arguments",
}  # fmt: skip


def lines_of(capsys):
    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.splitlines()


@pytest.mark.parametrize("line", CASES)
def test_a_mistake_is_one_line_and_leaves_no_file(line, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main(line.split()) == 2
    (message,) = lines_of(capsys)
    assert message.startswith("jaxprob: error: ")
    assert CASES[line] in message
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk of here"),
        (errno.EACCES, "no permission for here"),
        (errno.ENOENT, "here does not exist"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_of_the_system(number, words):
    assert words in one_line(OSError(number, os.strerror(number), "here"))


def test_a_folder_that_cannot_be_made_leaves_nothing(folder, monkeypatch, capsys):
    def fails(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "runs/houses")

    monkeypatch.setattr("jaxprob.cli._run.os.rename", fails)
    before = set(folder.rglob("*")) | {folder / "runs"}
    assert main(FIT.split()) == 1
    (message,) = lines_of(capsys)
    assert "no permission for runs/houses" in message
    assert set(folder.rglob("*")) <= before


def test_a_run_without_a_model_says_how_to_go_on(folder, capsys):
    Run.create(TableConfig("houses.csv", "price", out="r"), {"task": "regression"})
    assert main(["predict", "r", "houses.csv"]) == 2
    (message,) = lines_of(capsys)
    assert "`jaxprob resume r`" in message
    made = Run.create(DiffusionConfig("points.npy", out="d"), {"sha256": "0"})
    assert main(["predict", "d", "houses.csv"]) == 2
    assert "is a diffusion model" in lines_of(capsys)[0]
    assert main(["resume", "d"]) == 2
    assert "points.npy has changed since the fit" in lines_of(capsys)[0]
    made.note(status="failed")
    assert json.loads((folder / "d" / "run.json").read_text())["status"] == "failed"


def test_an_unexpected_error_is_one_line_too(folder, monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("jaxprob.cli._tables.read_table", fails)
    monkeypatch.setattr("jaxprob.cli._fit.trainer_of", fails)
    assert main(FIT.split()) == 1
    (message,) = lines_of(capsys)
    assert "RuntimeError: two lines (set JAXPROB_TRACEBACK=1" in message
    monkeypatch.setenv("JAXPROB_TRACEBACK", "1")
    with pytest.raises(RuntimeError):
        main(FIT.split())
