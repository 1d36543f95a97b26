"""What users write: it runs, and the type checker has nothing to say of it."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import optax

import jaxprob
from jaxprob import bnn, diffusion

model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(0))
joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), 10)
adam = optax.adam(1e-3)
point = bnn.MAP(joint, adam)
methods: list[bnn.AbstractInference] = [
    point,
    bnn.DeepEnsemble(point, 3),
    bnn.DeepEnsemble(bnn.AnchoredMAP(joint, adam), 3),
    bnn.MCDropout(point),
    bnn.MeanFieldVI(joint, adam, estimator="local"),
    bnn.LowRankVI(joint, adam),
    bnn.FullRankVI(joint, adam),
    bnn.IVON(joint, 1e-2),
    bnn.Laplace(point, "kronecker"),
    bnn.SWAG(point, num_warmup=10, thin=2),
    bnn.SGLD(joint, 1e-2, num_warmup=10, thin=2, num_draws=5),
    bnn.SGHMC(joint, 1e-2, num_warmup=10, thin=2, num_draws=5),
    bnn.HMC(joint, num_leapfrog=8, num_warmup=10, num_draws=10),
    bnn.NUTS(joint, num_warmup=10, num_draws=10),
    bnn.Blocks(point, {"layers.1": bnn.Laplace(point)}),
]
state = methods[1].init(model, key=jax.random.key(1))
posterior: bnn.AbstractPosterior = methods[1].posterior(state)
draw = posterior.sample(key=jax.random.key(2))

samplers: list[diffusion.AbstractSampler] = [
    diffusion.DDIM(20),
    diffusion.Heun(18),
    diffusion.ODESampler(),
    diffusion.SDESampler(),
]
schedule: diffusion.AbstractSchedule = diffusion.EDM()
fit = jaxprob.fit
if TYPE_CHECKING:  # a slip is one to the type checker
    slip = jaxprob.fitt  # pyright: ignore[reportAttributeAccessIssue]
