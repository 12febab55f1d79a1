"""Uploads on their way in: until a job counts their bytes, these are counted here, or many at once would fill the disk."""

from __future__ import annotations

from types import TracebackType

from ragline.server.errors import HttpError

_RETRY_S = 5


class Reception:
    """How much a process receives at once. Use it on one event loop.

    Args:
        max_uploads: How many.
        max_bytes: How many bytes, announced or come, all together.

    Attributes:
        uploads, size_bytes: How much that is now.

    Examples:
        with reception.begin(announced_bytes=10_000) as arrival: ...
    """

    def __init__(self, max_uploads: int, max_bytes: int) -> None:
        self._max_uploads = max_uploads
        self._max_bytes = max_bytes
        self.uploads = 0
        self.size_bytes = 0

    def begin(self, announced_bytes: int = 0) -> Arrival:
        """An upload of at least so many bytes, which counts until it is left.

        Raises:
            HttpError: 503 where too much is being received already.
        """
        if self.uploads >= self._max_uploads:
            raise _full(f"{self.uploads:,} uploads are being received", "max_receiving")
        self.take(announced_bytes)
        self.uploads += 1
        return Arrival(self, announced_bytes)

    def take(self, size_bytes: int) -> None:
        """Counts so many bytes more. Raises HttpError, 503, where they are too many."""
        if self.size_bytes + size_bytes > self._max_bytes:
            raise _full(f"uploads of {self.size_bytes:,} bytes are being received", "max_receiving_bytes")
        self.size_bytes += size_bytes


class Arrival:
    """One upload that is being received; its end, whatever it is, gives back what it took."""

    def __init__(self, reception: Reception, taken_bytes: int) -> None:
        self._reception = reception
        self._taken_bytes = taken_bytes
        self._come_bytes = 0

    def came(self, size_bytes: int) -> None:
        """So many bytes more have come. Raises HttpError, 503, where these were not announced and are too many."""
        self._come_bytes += size_bytes
        beyond = self._come_bytes - self._taken_bytes
        if beyond > 0:
            self._reception.take(beyond)
            self._taken_bytes = self._come_bytes

    def __enter__(self) -> Arrival:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reception.uploads -= 1
        self._reception.size_bytes -= self._taken_bytes


def _full(what: str, setting: str) -> HttpError:
    return HttpError(
        503,
        "overloaded",
        f"{what} already",
        hint=f"try again in {_RETRY_S} s; the server's setting is server.{setting}",
        headers={"retry-after": str(_RETRY_S), "connection": "close"},  # the rest of the body is not read
    )
