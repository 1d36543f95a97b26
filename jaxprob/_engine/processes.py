"""Several processes that train one model: one for each host, each with its devices."""

import jax


def join_processes(
    coordinator: str,
    num_processes: int,
    process_id: int,
    *,
    heartbeat: int = 10,
    timeout: int = 60,
) -> None:
    """Make this process one of several that run the same program.

    Call it before anything else touches JAX, in every process, then train with a
    `jaxprob.Layout` over the devices of all:

    ```python
    jaxprob.join_processes("host0:1234", num_processes=2, process_id=rank)
    layout = jaxprob.Layout(data=jax.device_count())
    ```

    On CPU the processes exchange gradients by gloo. When one of them dies the others
    cannot go on: each ends with a message within its heartbeat, and the run is resumed
    from its last checkpoint, with as many processes as there are then.

    **Arguments:**

    - `coordinator`: address and port of the first process, which listens there.
    - `num_processes`: of all.
    - `process_id`: of this one, from 0; the first one writes checkpoints and logs.
    - `heartbeat`: seconds after which a silent process is given up.
    - `timeout`: seconds to wait for all of them at the start.
    """
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id={process_id}: the {num_processes} processes are numbered "
            f"0, ..., {num_processes - 1}"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        heartbeat_timeout_seconds=heartbeat,
        initialization_timeout=timeout,
        shutdown_timeout_seconds=heartbeat,
    )
