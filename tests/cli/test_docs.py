"""The blocks of docs/command.md run in their order, with few steps."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from jaxprob.cli import main

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "command.md"
BLOCK = re.compile(r"```(python|bash|yaml)\n(.*?)```", re.DOTALL)
SHORTER = {
    "--effort fast": "--method map --num-steps 20 --quiet",
    "effort: fast": "method: map\nnum_steps: 20\nquiet: true",
    "--epochs 100": "--epochs 1 --quiet",
    "--width 32": "--width 8",
    "--num-samples 40": "--num-samples 8",
    "--num-samples 100": "--num-samples 8",
    # Vectors in place of images, whose convolutions take minutes on a busy machine.
    "x=digits.images / 16, labels=digits.target": "x=digits.data[:80, 20:22] / 16, "
    "labels=digits.target[:80]",
    "threes.png": "threes.npy",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for kind, code in BLOCK.findall(PAGE.read_text()):
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        if kind == "python":
            exec(code, names)
        elif kind == "yaml":
            (tmp_path / code.splitlines()[0].removeprefix("# ")).write_text(code)
        else:
            for line in code.splitlines():
                assert line.startswith("jaxprob "), line
                status = main(shlex.split(line)[1:])
                assert status == 0, line + capsys.readouterr().err
    assert len(names["lower"]) == 442
    for folder in ("diabetes", "digits"):
        assert "<svg" in (tmp_path / "runs" / folder / "report.html").read_text()
    assert np.load(tmp_path / "threes.npy").shape == (8, 2)
    # Nothing temporary is left anywhere.
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]
