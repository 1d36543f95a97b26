"""Arrays and texts in one safetensors file that carries a hash of its content.

Any program reads such a file and none runs anything in it. safetensors itself has no
checksum: a flipped bit of a weight would go unnoticed.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from .arrays import unsigned
from .atomic import replace_whole
from .errors import DamagedFileError

SHA256 = "jaxprob.sha256"
_CODES = {
    **{"BOOL": "bool", "F16": "float16", "F32": "float32", "F64": "float64"},
    **{f"I{n}": f"int{n}" for n in (8, 16, 32, 64)},
    **{f"U{n}": f"uint{n}" for n in (8, 16, 32, 64)},
    **{"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
    "C64": "complex64",
}
"""NumPy's names of the dtypes of the format."""


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a file whole or not at all: what stood there stands until the rename.

    **Arguments:**

    - `path`: the file.
    - `arrays`: by name; dtypes that the format lacks become unsigned integers.
    - `metadata`: texts by name.

    **Raises:** `OSError` as the file system gives it.
    """
    tensors = {name: _storable(array) for name, array in arrays.items()}
    texts = {**metadata, SHA256: _digest(tensors, metadata)}
    replace_whole(path, lambda partial: _save(partial, tensors, texts))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return arrays and texts of a file; the hash, if it has one, is verified.

    **Raises:** `DamagedFileError` for a file that is cut short, is no safetensors file
    or has changed since it was written; `FileNotFoundError`.
    """
    metadata = read_metadata(path)
    try:
        arrays = _arrays(path.read_bytes())
    except (ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    expected = metadata.pop(SHA256, None)
    if expected is not None and _digest(arrays, metadata) != expected:
        raise DamagedFileError(
            f"{path} has changed since it was written: its SHA-256 is not the one it "
            "carries. Take another copy; this one cannot be trusted"
        )
    if expected is None and any(key.startswith("jaxprob.") for key in metadata):
        raise DamagedFileError(f"{path} lacks the SHA-256 that it was written with")
    return arrays, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts of a file, whose sizes and offsets are checked; not its hash.

    **Raises:** `DamagedFileError`, `FileNotFoundError`.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error


def _save(path, tensors, texts):
    """Write a file whose bytes are a function of its content.

    safetensors writes texts in the order of a hash table that is salted in each
    process. Sorting them changes neither the length of the header nor what follows.
    """
    from safetensors.numpy import save_file

    save_file(tensors, path, texts)
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def _unreadable(path, error):
    return DamagedFileError(
        f"{path} cannot be read: {error}. It is cut short or no safetensors file"
    )


def _arrays(raw):
    # safetensors gives bfloat16 and float8 to no NumPy: the bits are taken here.
    end = 8 + int.from_bytes(raw[:8], "little")
    out = {}
    for name, entry in json.loads(raw[8:end]).items():
        if name == "__metadata__":
            continue
        dtype, (start, stop) = np.dtype(_CODES[entry["dtype"]]), entry["data_offsets"]
        count = (stop - start) // dtype.itemsize
        array = np.frombuffer(raw, dtype, count, end + start)
        out[name] = array.reshape(entry["shape"])
    return out


def _storable(array):
    if array.dtype.name in _CODES.values() and array.dtype.kind != "c":
        return array
    if array.dtype.kind == "c":
        # Real and imaginary parts along a new last axis.
        return array[..., None].view(array.real.dtype)
    return unsigned(array)


def _digest(arrays, metadata):
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        head = [name, array.dtype.name, list(array.shape)]
        digest.update(json.dumps(head).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
