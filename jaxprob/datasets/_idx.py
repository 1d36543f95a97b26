"""The IDX format of MNIST and similar sets."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .._io.paths import local_path
from ._folder import PathLike, existing

# The third byte of the magic number is the dtype; all numbers are big-endian.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class CorruptFileError(ValueError):
    """A file that does not follow its format."""


def _read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    # By content, because names lose and gain ".gz" in downloads.
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorruptFileError(
            f"{path} is a gzip file that cannot be unpacked ({error}): its download "
            "may be incomplete. Download it again"
        ) from error


def read_idx(path: PathLike) -> np.ndarray:
    """Read the array of an IDX file, compressed by gzip or not.

    The file holds two zero bytes, the code of the dtype, the number of axes d, d
    lengths of 32 bits and the numbers with the last axis fastest, all big-endian. The
    MNIST database of handwritten digits (LeCun, Cortes, Burges, 1998).

    ```python
    images = read_idx("train-images-idx3-ubyte.gz")     # uint8, (60000, 28, 28)
    ```

    **Returns:** the array, in the byte order of this machine.

    **Raises:** `FileNotFoundError`; `CorruptFileError` for a wrong magic number, an
    unknown dtype, or a number of bytes that differs from the header.
    """
    path = existing(
        "path", local_path("path", path), "It must be an IDX file, gzipped or not."
    )
    content = _read_bytes(path)
    if len(content) < 4:
        raise CorruptFileError(f"{path} has {len(content)} bytes, fewer than a header")
    zero, code, axes = struct.unpack(">HBB", content[:4])
    if zero != 0 or code not in _DTYPES or axes == 0:
        raise CorruptFileError(
            f"{path} begins with {content[:4].hex(' ')}: an IDX file begins with "
            f"00 00, then one of {', '.join(f'{c:02x}' for c in _DTYPES)}, then its "
            "number of axes. It may be an image, or the page of a failed download"
        )
    start = 4 + 4 * axes
    if len(content) < start:
        raise CorruptFileError(f"{path} ends within its header of {start} bytes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    dtype = np.dtype(_DTYPES[code])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise CorruptFileError(
            f"{path} has {len(content)} bytes, and its header says {dtype.name} "
            f"{list(shape)}, which is {expected} bytes. Download it again"
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return array.astype(dtype.newbyteorder("="))
