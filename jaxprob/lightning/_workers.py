"""Worker processes of a torch DataLoader beside JAX."""

import multiprocessing
from typing import Any

from torch.utils.data import DataLoader


def check_workers(loader: Any) -> Any:
    """The loader, if its workers are started in a way that cannot hang.

    JAX runs threads; a forked child has their locks and not the threads, and waits for
    ever when it touches one of them.

    **Raises:** `ValueError` for a DataLoader whose workers would be forked.
    """
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return loader
    context = loader.multiprocessing_context
    if context is None:
        method = multiprocessing.get_start_method(allow_none=True) or _default()
    else:
        method = context.get_start_method()
    if method == "fork":
        raise ValueError(
            f"DataLoader(num_workers={loader.num_workers}) forks this process, in "
            "which JAX runs: its workers may hang for ever. Write DataLoader(..., "
            "multiprocessing_context='forkserver', persistent_workers=True), or take "
            "no workers: ArrayDataModule needs none for data in memory"
        )
    return loader


def _default():
    return multiprocessing.get_all_start_methods()[0]
