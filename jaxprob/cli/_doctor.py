"""`jaxprob doctor`: is this machine ready?"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ._arguments import parser
from ._errors import one_line
from ._versions import versions

LEAST_FREE = 2**30


@dataclass(frozen=True)
class Finding:
    """A line of the check.

    **Fields:**

    - `name`, `value`: subject and state of it.
    - `advice`: remedy of a problem; '' if there is none.
    """

    name: str
    value: str
    advice: str = ""


def run(words: Sequence[str]) -> int:
    """Print all findings; the exit code is 1 if one has an advice."""
    made = parser("doctor", "Check versions, devices, speed and folders.")
    made.add_argument("--no-timing", action="store_true", help="leave out the timing")
    given = made.parse_args(words)
    findings = [*of_versions(), *of_combinations(), *of_folders(), *of_devices()]
    if not given.no_timing:
        findings += of_speed()
    for finding in findings:
        mark = "!!" if finding.advice else "ok"
        print(f"{mark}  {finding.name}: {finding.value}")
        if finding.advice:
            print(f"      {finding.advice}")
    problems = sum(bool(finding.advice) for finding in findings)
    print(f"{problems} problems" if problems else "no problems")
    return 1 if problems else 0


def of_versions() -> Iterator[Finding]:
    """Yield the installed versions against the requirements of the package."""
    from packaging.requirements import Requirement

    installed = versions()
    yield Finding("python", installed.pop("python"))
    for line in metadata.requires("jaxprob") or []:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            yield Finding(need.name, "missing", f'pip install "{need.name}"')
            continue
        fits = need.specifier.contains(version, prereleases=True)
        advice = "" if fits else f'pip install "{need.name}{need.specifier}"'
        yield Finding(need.name, version, advice)
    for name in ("matplotlib", "pandas", "pyarrow", "pillow"):
        if not _is_installed(name):
            yield Finding(name, "not installed", 'pip install "jaxprob[command,plot]"')
    if not _is_installed("flatbuffers"):
        yield Finding("flatbuffers", "not installed", 'pip install "jaxprob[export]"')


def of_combinations() -> Iterator[Finding]:
    """Yield combinations that are known not to work together."""
    if _is_installed("lightning"):
        yield Finding(
            "lightning",
            "installed beside pytorch-lightning",
            "callbacks of one are not those of the other: pip uninstall lightning",
        )
    cuda = [
        dist.metadata["Name"]
        for dist in metadata.distributions()
        if str(dist.metadata["Name"]).lower().startswith(("jax-cuda", "jax_cuda"))
    ]
    torch = metadata.version("torch") if _is_installed("torch") else ""
    if cuda and "+cu" in torch:
        yield Finding(
            "torch and JAX",
            "both are builds for a GPU",
            "they may need different CUDA libraries, and torch only drives the loop: "
            "install torch's CPU build",
        )
    if shutil.which("nvidia-smi") and not cuda:
        yield Finding(
            "JAX", "a CPU build on a machine with a GPU", 'pip install "jax[cuda12]"'
        )
    if os.environ.get("JAX_DISABLE_JIT", "").lower() in ("1", "true"):
        yield Finding(
            "JAX_DISABLE_JIT", "set", "nothing is compiled: unset it for training"
        )
    if os.environ.get("JAX_DEBUG_NANS", "").lower() in ("1", "true"):
        yield Finding(
            "JAX_DEBUG_NANS",
            "set",
            "each operation is checked and training is slow: unset it",
        )


def of_folders() -> Iterator[Finding]:
    """Yield whether folders can be written, and their free space."""
    places = {
        "working folder": Path.cwd(),
        "temporary folder": Path(tempfile.gettempdir()),
    }
    if cache := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        places["compilation cache"] = Path(cache)
    for name, place in places.items():
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place) as file:
                file.write(b"jaxprob")
                file.flush()
            free = shutil.disk_usage(place).free
        except OSError as error:
            yield Finding(name, f"{place} cannot be written", one_line(error))
            continue
        advice = "" if free >= LEAST_FREE else "free some space before a long run"
        yield Finding(name, f"{place}, {free / 2**30:.0f} GiB free", advice)


def of_devices() -> Iterator[Finding]:
    """Yield the devices of JAX."""
    import jax

    try:
        devices = jax.devices()
    except RuntimeError as error:
        yield Finding("JAX devices", "none", one_line(ValueError(error)))
        return
    kinds = ", ".join(f"{d.platform} {d.id} ({d.device_kind})" for d in devices)
    yield Finding("JAX devices", kinds)
    yield Finding("cores", str(os.cpu_count()))
    precision = "float64" if jax.config.jax_enable_x64 else "float32"  # pyright: ignore
    yield Finding("default precision", precision)


def of_speed() -> Iterator[Finding]:
    """Yield the seconds of a compilation and the speed of a product of matrices."""
    import jax
    import jax.numpy as jnp

    size, repeats = 1024, 5
    a = jnp.ones((size, size))
    product = jax.jit(lambda a, b: a @ b)
    begin = time.perf_counter()
    product(a, a).block_until_ready()
    yield Finding("first compilation", f"{time.perf_counter() - begin:.2f} s")
    begin = time.perf_counter()
    for _ in range(repeats):
        a = product(a, a) / size
    a.block_until_ready()
    seconds = (time.perf_counter() - begin) / repeats
    yield Finding("matrix product", f"{2e-9 * size**3 / seconds:.0f} GFLOP/s")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
