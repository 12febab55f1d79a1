"""Settings of jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ragline.settings.kinds import Number, Positive, Seconds, Whole
from ragline.settings.section import Section

_DAY_S = 86_400.0


class JobsSettings(Section):
    """Uploads that were accepted and are worked on in the background."""

    parallel: Whole = Field(
        2, ge=1, le=64, description="How many batches of uploads are worked on at once, so that one is read while another is embedded."
    )
    max_attempts: Whole = Field(
        5, ge=1, le=1000, description="How often a job is begun, by failures that may pass or by processes that died, before it has failed."
    )
    first_wait_s: Seconds = Field(
        2.0, description="How long a job waits after its first failure that may pass; four times longer each time."
    )
    longest_wait_s: Seconds = Field(600.0, description="The longest wait between two attempts.")
    lease_s: Seconds = Field(
        30.0, description="A job is taken from a process that has shown no sign of life for so long. It shows three within that time."
    )
    keep_s: Annotated[Number, Field(gt=0, le=3650 * _DAY_S)] = Field(
        7 * _DAY_S, description="How long jobs that have ended are remembered; of failed ones the files are kept for as long."
    )
    max_queued: Positive = Field(10_000, description="How many jobs may wait before further uploads are refused.")
    max_queued_bytes: Positive = Field(4 * 1024**3, description="How many bytes may wait before further uploads are refused.")
