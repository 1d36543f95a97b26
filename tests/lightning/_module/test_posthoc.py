"""Changing the method is one line where its posterior needs the rows again, too."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob import ArrayLoader, bnn
from jaxprob.lightning import ArrayDataModule, BNNModule
from jaxprob.lightning._module import posterior_judge, posterior_store

from ..scene import arrays, make_trainer

LIKELIHOOD = bnn.NormalLikelihood(0.3)


def laplace(likelihood: Any = LIKELIHOOD, structure: Any = "full", **kwargs):
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=50)
    model = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    point = bnn.MAP(joint, optax.sgd(1e-2))
    return BNNModule(bnn.Laplace(point, structure), model, **kwargs)


def both():
    return ArrayDataModule(train=arrays(50), validation=arrays(20, 1), batch_size=8)


class Epochs(pl.Callback):
    """Epochs whose validation logged predictive metrics."""

    def __init__(self):
        self.found, self.values = [], []

    def on_validation_end(self, trainer, pl_module):
        value = trainer.callback_metrics.get("val_predictive_nll")
        if value is not None and value not in self.values:
            self.values.append(value)
            self.found.append(trainer.current_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("with_data_module", [True, False])
def test_the_rows_in_memory_are_what_the_posterior_sees(tmp_path, with_data_module):
    module, trainer = laplace(), make_trainer(tmp_path, max_epochs=1)
    if with_data_module:
        data = ArrayDataModule(train=arrays(50), test=arrays(20, 1), batch_size=8)
        trainer.fit(module, data)
        loader = data.train_dataloader()
    else:
        loader = ArrayLoader(arrays(50), batch_size=8, shuffle=True)
        trainer.fit(module, loader)
    found: Any = module.posterior()
    exact: Any = module.inference.posterior(module.state, [arrays(50)])
    assert np.allclose(found.curvature.matrix, exact.curvature.matrix, rtol=1e-4)
    assert np.allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-5)
    if with_data_module:
        figures = trainer.test(module, data, verbose=False)[0]
        assert np.isfinite(figures["test_predictive_nll"])


@pytest.mark.slow
def test_a_checkpoint_serves_without_data(tmp_path):
    """Also one of weights alone. The posterior is that of the state in the file."""
    module = laplace(structure="kronecker")
    keep = ModelCheckpoint(tmp_path, save_last=True)
    trainer = make_trainer(tmp_path, callbacks=[keep], enable_checkpointing=True)
    trainer.fit(module, both())
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    exact: Any = module.inference.posterior(module.state, [arrays(50)])
    x = arrays(5, 3)[0]
    for name in ("last.ckpt", "weights.ckpt"):
        served = BNNModule.load_from_checkpoint(tmp_path / name)
        posterior: Any = served.posterior()
        blocks = posterior.curvature.blocks
        for found, expected in zip(blocks, exact.curvature.blocks, strict=True):
            assert np.allclose(found.inputs, expected.inputs, rtol=1e-4)
            assert np.allclose(found.outputs, expected.outputs, rtol=1e-4)
        assert np.array_equal(served.predictive(x).mean, module.predictive(x).mean)
    # A step further the stored posterior is that of other weights.
    served = BNNModule.load_from_checkpoint(
        tmp_path / "last.ckpt", inference=module.inference
    )
    loader = iter([arrays(50)])
    make_trainer(tmp_path, max_epochs=1).fit(served, loader)
    with pytest.raises(ValueError, match=r"batches=\[\(x, y\)\]"):
        served.posterior()
    served.batches = [arrays(50)]
    assert np.all(np.isfinite(served.predictive(x).mean))


@pytest.mark.slow
def test_a_likelihood_that_is_a_function_is_taken_from_the_module(tmp_path):
    def normal(out):
        return dist.Normal(out, 0.3).to_event(1)

    module, trainer = laplace(normal), make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, both())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    served = BNNModule.load_from_checkpoint(
        tmp_path / "a.ckpt", inference=module.inference, likelihood=normal
    )
    expected: Any = module.inference.posterior(module.state, [arrays(50)])
    found: Any = served.posterior()
    assert np.allclose(found.curvature.matrix, expected.curvature.matrix, rtol=1e-4)
    assert found.likelihood is normal
    without = laplace(normal, save_posterior=False)
    make_trainer(tmp_path, max_epochs=1).fit(without, both())
    assert not any(name.startswith("posterior.") for name in without.state_dict())


@pytest.mark.slow
def test_predictive_metrics_of_every_second_epoch(tmp_path):
    module, seen = laplace(predictive_every_n_epochs=2), Epochs()
    make_trainer(tmp_path, max_epochs=4, callbacks=[seen]).fit(module, both())
    assert seen.found == [1, 3]
    with pytest.raises(ValueError, match="predictive_every_n_epochs=0"):
        laplace(predictive_every_n_epochs=0)


@pytest.mark.slow
def test_validations_in_a_fit_make_no_pass_and_say_so_once(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(posterior_judge, "rank_zero_info", lines.append)
    module, trainer = laplace(), make_trainer(tmp_path, max_epochs=3)
    data = both()
    trainer.fit(module, data)
    assert len(lines) == 1
    assert "predictive_every_n_epochs=5" in lines[0]
    assert "val_nll" in trainer.callback_metrics
    assert "val_predictive_nll" not in trainer.callback_metrics
    figures = trainer.validate(module, data, verbose=False)[0]
    assert np.isfinite(figures["val_predictive_nll"])


@pytest.mark.slow
def test_rows_that_nobody_holds_are_asked_for(tmp_path):
    module, trainer = laplace(), make_trainer(tmp_path, max_epochs=1)
    x, y = arrays(50)
    trainer.fit(module, iter([(x, y)]))
    for nobody in (module, laplace()):
        with pytest.raises(ValueError, match=r"BNNModule\(..., batches=\[\(x, y\)\]"):
            nobody.posterior()


@pytest.mark.slow
def test_a_checkpoint_holds_draws_whose_likelihood_is_a_function():
    """The likelihood is not in the file: it is that of the method."""
    joint = bnn.LogJoint(
        lambda output: dist.Normal(output, 0.3).to_event(), bnn.FanInNormal(), 50
    )
    model = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    method = bnn.MatrixFreeLaplace(bnn.MAP(joint, optax.sgd(1e-2)), num_samples=2)
    state = method.init(model)
    posterior = method.posterior(state, [arrays(50)], key=jax.random.key(1))
    tensors = posterior_store.posterior_tensors(posterior)
    again: Any = posterior_store.posterior_of_tensors(tensors, method, model)
    assert again.likelihood is joint.likelihood
    assert np.array_equal(again.deviations, posterior.deviations)
