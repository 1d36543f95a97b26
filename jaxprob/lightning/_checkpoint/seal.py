"""A hash inside a checkpoint, which stays a file that `torch.load` reads.

Torch writes a zip archive and reads it back without verifying its checksums: a flipped
bit in a weight is not detected. A zip archive may end in a comment; ours holds the
SHA-256 of all bytes before it.
"""

import hashlib
import io
import struct
import zipfile

from .._errors import CheckpointCorruptError

_END = b"PK\x05\x06"  # the signature of a zip archive's last record, 22 bytes long
_RECORD = 22
_MARK = b"jaxprob-sha256:"
_SEAL = len(_MARK) + 64


def seal(file: io.BufferedIOBase) -> None:
    """Append the hash to an archive that torch has just written."""
    file.seek(-_RECORD, 2)
    if file.read(4) != _END:
        raise ValueError("the file does not end as a zip archive without a comment")
    file.seek(-2, 2)
    file.write(struct.pack("<H", _SEAL))
    file.flush()
    digest = _digest(file, file.seek(0, 2))
    file.seek(0, 2)
    file.write(_MARK + digest.encode())


def check_seal(file: io.BufferedIOBase, name: str) -> bool:
    """Verify the seal of a file, and return whether it has one.

    **Arguments:**

    - `file`: open for reading, at any place.
    - `name`: of the file, for the error.

    **Raises:** `CheckpointCorruptError` when the seal differs from the bytes, or the
    file is cut short, or claims to unpack to more than it holds.
    """
    size = file.seek(0, 2)
    if _is_plain_archive(file, size):
        _check_claims(file, size, name)
        return False
    if size < _RECORD + _SEAL:
        raise CheckpointCorruptError(_cut_short(name))
    file.seek(-_SEAL, 2)
    mark = file.read(_SEAL)
    if not mark.startswith(_MARK):
        raise CheckpointCorruptError(_cut_short(name))
    digest = _digest(file, size - _SEAL)
    if digest != mark.removeprefix(_MARK).decode("ascii", "replace"):
        raise CheckpointCorruptError(
            f"{name} has changed since it was written: its SHA-256 differs from the "
            "stored one. Use another checkpoint"
        )
    _check_claims(file, size, name)
    return True


def _is_plain_archive(file, size):
    if size < _RECORD:
        return False
    file.seek(-_RECORD, 2)
    return file.read(4) == _END


def _digest(file, count):
    """Return the SHA-256 of the first `count` bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while count:
        block = file.read(min(count, 2**20))
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()


def _check_claims(file, size, name):
    """Reject an archive that unpacks to more than it holds; torch compresses none."""
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, UnicodeDecodeError) as error:
        raise CheckpointCorruptError(f"{name} is no checkpoint: {error}") from error
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > size:
        raise CheckpointCorruptError(
            f"{name} claims to unpack to more than it holds: no checkpoint of torch"
        )


def _cut_short(name):
    return (
        f"{name} is cut short or no checkpoint: it ends neither as torch writes a file "
        "nor with our seal. Use another checkpoint"
    )
