"""Settings of what is measured while running."""

from __future__ import annotations

from pydantic import Field

from ragline.settings.kinds import Seconds
from ragline.settings.section import Section


class MonitoringSettings(Section):
    """What is measured while running: `engine.stats()`, `engine.monitor`, `/metrics`."""

    enabled: bool = Field(True, description="Whether requests are counted and timed. It costs some microseconds a request.")
    track_latency: bool = Field(
        True, description="Whether durations are kept, of requests and of their stages; without, requests and errors are counted."
    )
    track_memory: bool = Field(True, description="Whether the process's memory and processor time are told too.")
    report_interval_s: Seconds | None = Field(
        None, description="Write a summary to the log ragline.monitoring so often, at level info; unset writes none."
    )
