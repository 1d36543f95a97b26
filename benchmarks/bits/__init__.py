"""Bits of every method, network, sampler and metric under fixed keys.

A refactoring that changes no behaviour leaves them as they are:

    python -m benchmarks.bits --write before.json
    python -m benchmarks.bits --against before.json

Files compare only between runs on one machine with one set of packages: XLA chooses
other instructions, and so other rounding, for another processor.
"""

import os

# The same compiler for all, where a machine has an accelerator too.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time is spent in LLVM, which has nothing to gain on eight rows.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
