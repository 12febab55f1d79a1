"""What a value of the second tier is wrapped in: when it was written, until when it holds, and a checksum."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_HEAD = struct.Struct(">4sI")
_TIMES = struct.Struct(">qq")
_MAGIC = b"rgl1"
_NEVER_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value as it lies in the second tier.

    Attributes:
        written_ns: Time of day, in nanoseconds since 1970.
        expires_ns: The same; None for never.
    """

    payload: bytes
    written_ns: int
    expires_ns: int | None


def seal(sealed: Sealed) -> bytes:
    """The bytes to store."""
    expires_ns = _NEVER_NS if sealed.expires_ns is None else min(sealed.expires_ns, _NEVER_NS)
    body = _TIMES.pack(sealed.written_ns, expires_ns) + sealed.payload
    return _HEAD.pack(_MAGIC, zlib.crc32(body)) + body


def unseal(stored: bytes) -> Sealed | None:
    """What the bytes hold, or None where they are not what `seal` made."""
    if not isinstance(stored, bytes) or len(stored) < _HEAD.size + _TIMES.size:
        return None
    magic, checksum = _HEAD.unpack_from(stored)
    if magic != _MAGIC or checksum != zlib.crc32(stored[_HEAD.size :]):
        return None
    written_ns, expires_ns = _TIMES.unpack_from(stored, _HEAD.size)
    return Sealed(stored[_HEAD.size + _TIMES.size :], written_ns, None if expires_ns == _NEVER_NS else expires_ns)
