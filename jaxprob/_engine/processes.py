"""Several processes that train one model: one for each host, each with its devices."""

import jax


def join_processes(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat: int = 10,
    timeout: int = 60,
) -> None:
    """Make this process one of several that run the same program.

    Call it before anything else touches JAX, in every process, then train with a
    `jaxprob.Layout` over the devices of all. Under Slurm (`srun`), Open MPI (`mpirun`)
    and Kubernetes (indexed jobs) the three arguments are found by JAX:

    ```python
    jaxprob.join_processes()
    layout = jaxprob.Layout(data=jax.device_count())
    ```

    Elsewhere all three are given:

    ```python
    jaxprob.join_processes("host0:1234", num_processes=2, process_id=rank)
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

    **Raises:** `ValueError` for some of the three without the others, for a number out
    of range, or without arguments where no launcher is recognised.
    """
    given = {
        "coordinator": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(
            f"{' and '.join(missing)} missing: give coordinator, num_processes and "
            "process_id, or none of them under Slurm, Open MPI or Kubernetes"
        )
    numbers = range(num_processes or 0)
    if not missing and process_id not in numbers:
        raise ValueError(
            f"process_id={process_id}: the {num_processes} processes are numbered "
            f"0, ..., {len(numbers) - 1}"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat,
            initialization_timeout=timeout,
            shutdown_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        if not missing:
            raise
        raise ValueError(
            "no launcher is recognised in the environment (srun of Slurm, mpirun of "
            "Open MPI, an indexed job of Kubernetes): give coordinator, num_processes "
            f"and process_id. JAX says: {error}"
        ) from error
