"""Changing the method is one line where its posterior needs the rows again, too."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

from jaxprob import ArrayLoader, bnn
from jaxprob.lightning import ArrayDataModule, BNNModule

from ..scene import arrays, make_trainer

LIKELIHOOD = bnn.NormalLikelihood(0.3)


def laplace():
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=50)
    model = eqx.nn.MLP(1, 1, 4, 1, key=jax.random.key(0))
    return BNNModule(bnn.Laplace(bnn.MAP(joint, optax.sgd(1e-2))), model)


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
    found = module.posterior()
    exact = module.inference.posterior(module.state, [arrays(50)])
    assert np.allclose(found.curvature.matrix, exact.curvature.matrix, rtol=1e-4)
    assert np.allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-5)
    if with_data_module:
        figures = trainer.test(module, data, verbose=False)[0]
        assert np.isfinite(figures["test_predictive_nll"])


@pytest.mark.slow
def test_validations_in_a_fit_make_no_pass(tmp_path):
    module, trainer = laplace(), make_trainer(tmp_path, max_epochs=1)
    data = ArrayDataModule(train=arrays(50), validation=arrays(20, 1), batch_size=8)
    trainer.fit(module, data)
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
        with pytest.raises(
            ValueError, match="computes the curvature from the training"
        ):
            nobody.posterior()
