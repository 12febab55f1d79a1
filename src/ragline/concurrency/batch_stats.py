"""What a `BatchProcessor` has done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What a `BatchProcessor` has done since it was made.

    Attributes:
        submitted: Items let in.
        completed, failed: Items that got a result, or an error.
        refused: Items turned away at the door: the queue was full, or they were too large.
        dropped: Items whose caller left before they were processed.
        batches: Calls of `process`; where a batch was split to find the item that fails, each part counts.
        queue_length: Items that wait now.
        under_way: Batches that are processed now.
        average_batch_size: Items in a batch; 0 before the first.
        average_wait_s, longest_wait_s: From being let in to being taken into a batch.
        average_batch_s: How long a call of `process` took.
        max_size: What the items of a batch may be together now; None where that is not bounded.
    """

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    batches: int = 0
    queue_length: int = 0
    under_way: int = 0
    average_batch_size: float = 0.0
    average_wait_s: float = 0.0
    longest_wait_s: float = 0.0
    average_batch_s: float = 0.0
    max_size: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


@dataclass(slots=True)
class BatchCounts:
    """What `BatchStats` are made from."""

    submitted: int = 0
    completed: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    batches: int = 0
    items: int = 0
    drawn: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    took_s: float = 0.0

    def draw(self, waited_s: float) -> None:
        """An item was taken into a batch after so long."""
        self.drawn += 1
        self.waited_s += waited_s
        self.longest_wait_s = max(self.longest_wait_s, waited_s)

    def stats(self, *, queue_length: int, under_way: int, max_size: int | None) -> BatchStats:
        """These counts, with what is the case now."""
        return BatchStats(
            submitted=self.submitted,
            completed=self.completed,
            failed=self.failed,
            refused=self.refused,
            dropped=self.dropped,
            batches=self.batches,
            queue_length=queue_length,
            under_way=under_way,
            average_batch_size=self.items / max(1, self.batches),
            average_wait_s=self.waited_s / max(1, self.drawn),
            longest_wait_s=self.longest_wait_s,
            average_batch_s=self.took_s / max(1, self.batches),
            max_size=max_size,
        )
