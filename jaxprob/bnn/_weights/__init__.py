"""TODO jaxprob/bnn/_weights."""
