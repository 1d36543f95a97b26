"""TODO jaxprob/bnn/_predictive."""
