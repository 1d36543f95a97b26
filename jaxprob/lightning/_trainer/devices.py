"""Rejection of devices and processes of torch, where JAX must drive them."""

from typing import Any

import jax
from pytorch_lightning.strategies import SingleDeviceStrategy

from ..._engine.layout import Layout
from .strategy import JaxStrategy


def check_devices(trainer: Any, layout: Layout) -> None:
    """Check that the Trainer leaves devices and processes to JAX.

    **Raises:** `ValueError` with the call to write instead. Of several processes that
    Lightning has started, the first raises it and the others exit.
    """
    strategy = trainer.strategy
    if jax.process_count() > 1:
        _check_processes(strategy, layout)
        return
    wanted = trainer.num_devices * trainer.num_nodes
    spread = wanted > 1 or trainer.world_size > 1
    if spread or not isinstance(strategy, SingleDeviceStrategy):
        if trainer.global_rank > 0:
            # The first process raises the error. Lightning would kill it before that
            # if it saw one of the processes that it started fail.
            raise SystemExit(0)
        remedy = f"LearnerModule(..., layout=jaxprob.Layout(data={max(wanted, 2)}))"
        if trainer.num_nodes > 1:
            remedy = (
                f"jaxprob.join_processes(...) in {trainer.num_nodes} processes, "
                "LearnerModule(..., layout=jaxprob.Layout(data=jax.device_count())) "
                "and Trainer(strategy=JaxStrategy())"
            )
        raise ValueError(
            f"Trainer(devices={trainer.num_devices}, num_nodes={trainer.num_nodes}, "
            f"strategy={type(strategy).__name__}): torch starts a process for each "
            "device, JAX drives all of a host from one. Write "
            f"Trainer(accelerator='cpu', devices=1); for several devices {remedy}"
        )
    if strategy.root_device.type != "cpu":
        raise ValueError(
            f"Trainer(accelerator=...) chose {strategy.root_device}: torch's device "
            "computes nothing here and takes memory from JAX, which chooses its own "
            f"({jax.devices()[0].device_kind}). Write Trainer(accelerator='cpu')"
        )


def _check_processes(strategy, layout):
    processes, devices = jax.process_count(), jax.device_count()
    if not isinstance(strategy, JaxStrategy):
        raise ValueError(
            f"JAX runs in {processes} processes, which Lightning does not know: write "
            "Trainer(accelerator='cpu', strategy=jaxprob.lightning.JaxStrategy())"
        )
    if layout.num_devices != devices:
        raise ValueError(
            f"{layout} leaves out devices of the {processes} processes, which have "
            f"{devices} together: write LearnerModule(..., "
            f"layout=jaxprob.Layout(data={devices}))"
        )
