"""The suite runs strict: no silent promotion, no warning, every array's shape checked.

Four CPU devices are faked before JAX starts, and the jaxtyping hook is installed before
anything of jaxprob is imported.
"""

import os
import signal

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ["MPLBACKEND"] = "agg"
# A shell starts its background jobs with Ctrl-C ignored, which they would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Workers already fill the cores, and OpenMP's threads wait by spinning: trees of
# scikit-learn that take 5 s on one thread burnt 70 s of processor time on two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping

jaxtyping.install_import_hook("jaxprob", "beartype.beartype")

import atexit
import functools
import gc
import shutil
import tempfile

import equinox as eqx
import jax
import optax
import optax.tree
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Each learner is compiled anew, the same program or not; here many are the same. A
# folder for each process: entries are not written atomically.
# JAX's own variable keeps the folder from one run to the next, one process at a time.
_PROGRAMS = os.environ.get("JAX_COMPILATION_CACHE_DIR")
if not _PROGRAMS:
    _PROGRAMS = tempfile.mkdtemp(prefix="jaxprob-programs-")
    atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _leniently(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return inner


def _schedules_leniently(make):
    return lambda *args, **kwargs: _leniently(make(*args, **kwargs))


# Adam's bias correction is `decay**count`, a cosine schedule `count / steps`, of a
# float and an int32: these are optax's own lines, and nothing of ours runs inside them.
optax.tree.bias_correction = _leniently(optax.tree.bias_correction)
optax.cosine_decay_schedule = _schedules_leniently(optax.cosine_decay_schedule)


def pytest_addoption(parser):
    parser.addoption(
        "--reseed",
        type=int,
        default=0,
        help="fold this number into every key that is made of a seed",
    )


def pytest_configure(config):
    number = config.getoption("--reseed")
    if number:
        make = jax.random.key
        jax.random.key = lambda *args, **kwargs: jax.random.fold_in(
            make(*args, **kwargs), number
        )


@pytest.fixture(autouse=True, scope="module")
def programs_are_dropped():
    """Each test file ends with its compiled programs unloaded.

    A program keeps its machine code mapped in a dozen regions or more, and Linux allows
    a process 65,530 of them: the whole suite in one process needs more, and XLA aborts.
    """
    yield
    eqx.clear_caches()
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def no_global_seed(monkeypatch):
    """`pl.seed_everything` of one test, or of LightningCLI, ends with it."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # remembered as it was
    monkeypatch.delenv("PL_GLOBAL_SEED")


class KeyMaker:
    """Calling it gives a new key each time; its repr says how to get the same again."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.count = 0

    def __call__(self):
        self.count += 1
        return jax.random.fold_in(jax.random.key(self.seed), self.count)

    def __repr__(self):
        return f"KeyMaker(seed={self.seed}, count={self.count})"


@pytest.fixture
def getkey():
    return KeyMaker()


@pytest.fixture
def x64():
    """Double precision inside the test, for statements that are exact."""
    with jax.enable_x64(True):
        yield
