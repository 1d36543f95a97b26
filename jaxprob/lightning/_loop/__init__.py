"""Training under Lightning's loop: many batches in one dispatch, counted one by one.

    fetcher -> Dispatcher -> Run -> jaxprob.Stepper

`Engine` holds these parts for one module, and the callbacks of bridge.py call it. The
state theta_k after step k, its key and its place in the data belong to `Run`, which
may outlive a Trainer.
"""
