"""A folder of a model reads back whole, or says what is wrong with it."""

import json
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
import yaml

import jaxprob
from jaxprob import bnn
from jaxprob.export import from_pretrained, save_pretrained

ABOUT = {"name": "Two layers", "description": "A test."}


@pytest.fixture(scope="module")
def model():
    return bnn.PointPosterior(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)))


@pytest.fixture
def folder(model, tmp_path):
    figures = {"log-likelihood | test": -1.25}
    save_pretrained(tmp_path / "m", model, **ABOUT, figures=figures, license="mit")
    return tmp_path / "m"


def test_the_model_comes_back_bit_for_bit(folder, model):
    again = from_pretrained(folder)
    assert type(again) is type(model)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(model), strict=True):
        if eqx.is_array(one):
            np.testing.assert_array_equal(one, other)


def test_the_folder_has_the_layout_of_the_hub(folder):
    files = {path.name for path in folder.iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert config["library_name"] == "jaxprob"
    assert config["model_type"] == "PointPosterior"
    assert config["versions"]["jaxprob"] == jaxprob.__version__
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "mit"
    assert metadata["library_name"] == "jaxprob"
    assert r"| log-likelihood \| test | -1.25 |" in body
    # 2 x 4 + 4 + 4 x 1 + 1
    assert "17 weights" in body


def test_weights_of_another_model_are_rejected(folder, tmp_path):
    other = bnn.PointPosterior(eqx.nn.MLP(2, 1, 5, 1, key=jax.random.key(0)))
    save_pretrained(tmp_path / "other", other, **ABOUT)
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(jaxprob.FileMismatchError, match="another model"):
        from_pretrained(folder)


def test_what_is_missing_or_damaged_is_named(folder, model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json.*local folder"):
        from_pretrained(tmp_path / "nowhere")
    (folder / "config.json").write_text("{")
    with pytest.raises(jaxprob.DamagedFileError, match=r"config\.json"):
        from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        from_pretrained(folder)
    with pytest.raises(ValueError, match=r"hf://org/model"):
        from_pretrained("hf://org/model")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"figures": {"rmse": float("nan")}}, r"figures\['rmse'\]=nan"),
        ({"name": " "}, "name is empty"),
        ({"license": "MIT license"}, "license='MIT license'"),
    ],
)
def test_wrong_arguments_write_nothing(model, tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        save_pretrained(tmp_path / "m", model, **{**ABOUT, **wrong})
    assert not (tmp_path / "m").exists()


def test_a_file_is_no_folder(model, tmp_path):
    (tmp_path / "m").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        save_pretrained(tmp_path / "m", model, **ABOUT)
