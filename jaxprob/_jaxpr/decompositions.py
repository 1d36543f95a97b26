"""Batches of matrix decompositions that cannot block each other on a CPU.

jaxlib shares the matrices of a large batched LAPACK call out over the threads of XLA's
pool, and the call waits for them on a thread of the same pool. As many such calls as
there are threads, in one program and none needing another, wait for ever (seen with
0.10.2 on two cores: conditioned samplers, curvatures of many outputs; not with 0.12).
One matrix is decomposed on the thread of its call. So a large batch is lowered as a
loop over its matrices, with the same bits, for all programs of this process.

It is done where the pool is small. On more cores as many calls at once are rare, and a
loop would be slow.
"""

import functools
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src.interpreters.mlir import (
    LoweringRuleEntry,
    _platform_specific_lowerings as LOWERINGS,
)
from jax._src.lax import linalg
from jax.interpreters import mlir

MOST_CORES = 16
"""Threads of the pool up to which batches are loops."""

LEAST_WORK = 2**17
"""Cubes of the sizes of all matrices of a batch, summed, from which it is a loop.

Calls of a million and less were never seen to use the pool.
"""

PRIMITIVES: tuple[Any, ...] = (
    *(linalg.cholesky_p, linalg.eig_p, linalg.eigh_p, linalg.geqrf_p, linalg.lu_p),
    *(linalg.hessenberg_p, linalg.householder_product_p, linalg.schur_p, linalg.svd_p),
    *(linalg.triangular_solve_p, linalg.tridiagonal_p),
)
"""Operations that LAPACK or BLAS computes, on matrices along the two last axes."""


def lower_in_turn(primitive: Any) -> None:
    """Lower large batches of a primitive as loops, in programs for a CPU."""
    entry = LOWERINGS["cpu"][primitive]
    mlir.register_lowering(primitive, _in_turn(primitive, entry), platform="cpu")


def is_large(shape: Sequence[int]) -> bool:
    """Return whether matrices of this shape, with leading axes, are a large batch."""
    *lead, rows, columns = shape
    num = math.prod(lead)
    return num > 1 and num * max(rows, columns) ** 3 >= LEAST_WORK


def _in_turn(primitive: Any, entry: LoweringRuleEntry) -> Callable[..., Any]:
    def rule(ctx: Any, *operands: Any, **params: Any) -> Any:
        shape = ctx.avals_in[0].shape
        if not is_large(shape):
            return entry.rule(ctx, *operands, **params)
        loop = functools.partial(_loop, primitive, len(shape) - 2, params)
        lower = mlir.lower_fun(loop, multiple_results=primitive.multiple_results)
        return lower(ctx, *operands)

    return rule


def _loop(primitive, num_lead, params, *operands):
    lead = operands[0].shape[:num_lead]

    def one(matrices):
        return primitive.bind(*matrices, **params)

    flat = [a.reshape(-1, *a.shape[num_lead:]) for a in operands]
    out = jax.lax.map(one, flat)
    return jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), out)


def pool_size() -> int:
    """Return the number of threads of XLA's pool."""
    told = os.environ.get("NPROC", "")
    if told.isdigit() and int(told):
        return int(told)
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if jax.__version_info__ < (0, 12) and pool_size() <= MOST_CORES:
    for _primitive in PRIMITIVES:
        lower_in_turn(_primitive)
