"""Processes that find each other by the variables of their launcher."""

import os
import socket
import subprocess
import sys

import pytest

import jaxprob

WORKER = """
import os
os.environ["XLA_FLAGS"] = ""  # one device for each process
import jax, jaxprob
jaxprob.join_processes(timeout=120)
layout = jaxprob.Layout(data=jax.device_count())
import numpy as np
from jax.experimental import multihost_utils
ranks = multihost_utils.process_allgather(np.asarray([jax.process_index()]))
print("found", jax.process_count(), layout.num_devices, ranks.ravel().tolist())
"""


def slurm(rank, port):
    names = {
        "SLURM_JOB_ID": "1234",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
    }
    return {**names, "JAX_COORDINATOR_PORT": port}


def open_mpi(rank, port):
    names = {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    }
    return {**names, "JAX_COORDINATOR_PORT": port}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_a_launcher_says_who_they_are(launcher):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, **launcher(rank, port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [worker.communicate(timeout=180)[0] for worker in workers]
    # Gloo writes a line of its connections before.
    assert [text.splitlines()[-1] for text in found] == ["found 2 2 [0, 1]"] * 2


def test_arguments_that_are_missing_or_wrong():
    with pytest.raises(ValueError, match="num_processes and process_id missing"):
        jaxprob.join_processes("localhost:1")
    with pytest.raises(ValueError, match=r"process_id=2: the 2 processes .* 0, ..., 1"):
        jaxprob.join_processes("localhost:1", 2, 2)


@pytest.mark.slow
def test_without_a_launcher_there_is_a_remedy():
    done = subprocess.run(
        [sys.executable, "-c", "import jaxprob; jaxprob.join_processes()"],
        capture_output=True,
        text=True,
    )
    assert "no launcher is recognised" in done.stderr
    assert "give coordinator, num_processes and process_id" in done.stderr
