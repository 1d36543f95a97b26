"""All rows by name, and the record of one."""

import time
import warnings

from ._bnn import ROWS as BNN
from ._diffusion import ROWS as DIFFUSION
from ._distributions import ROWS as DISTRIBUTIONS
from ._lightning import ROWS as LIGHTNING
from ._metrics import ROWS as METRICS
from ._networks import ROWS as NETWORKS
from ._record import record
from ._sampling import ROWS as SAMPLING
from ._training import ROWS as TRAINING

ROWS = {
    **METRICS,
    **NETWORKS,
    **DIFFUSION,
    **SAMPLING,
    **TRAINING,
    **DISTRIBUTIONS,
    **BNN,
    **LIGHTNING,
}


def measure(name):
    """Return the record of a row, the error that it raised, and its CPU seconds."""
    begin = time.process_time()
    found, error = None, None
    try:
        with warnings.catch_warnings():
            # A few steps are no training, and the methods say so.
            warnings.simplefilter("ignore")
            found = record(ROWS[name]())
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    return name, found, error, time.process_time() - begin
