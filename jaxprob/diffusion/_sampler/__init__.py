"""TODO jaxprob/diffusion/_sampler."""
