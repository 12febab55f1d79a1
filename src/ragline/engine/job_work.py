"""What is done with an accepted upload: it is ingested, and its outcome settled in the transaction that stores the document."""

from __future__ import annotations

from collections.abc import Sequence

from ragline.concurrency.locks import ProcessLock
from ragline.engine.batches import Met
from ragline.engine.ingestion import new_ingestion
from ragline.engine.resources import Resources
from ragline.errors import ModelMismatchError
from ragline.jobs.runner import JobRunner
from ragline.jobs.uploads import Uploads
from ragline.storage.base import PutOutcome, Transaction
from ragline.storage.jobs import Claim, ClaimedFile, Lease, Settlement
from ragline.types import Document, FailedSource, Finding, Upload

_IDLE_S = 60.0
"""A job that waits for longer makes a health check wonder whether anybody works."""


class ClaimLedger:
    """The account of a claim. See `engine.batches.Ledger`.

    Attributes:
        settled: Files that need nothing more, as far as was committed or attempted.
    """

    def __init__(self, files: Sequence[tuple[ClaimedFile, Document | Upload]]) -> None:
        # By identity: two files of a job may be equal. The sources live as long as this does.
        self._files = {id(source): file for file, source in files}
        self._sources = [source for _, source in files]
        self.settled: set[int] = set()

    async def wanted(self, transaction: Transaction, sources: Sequence[Met]) -> Sequence[bool]:
        """Whether each of the files is still pending, and ours."""
        files = [self._files[id(source)] for source in sources]
        pending = await transaction.unsettled(_leases(files))
        self.settled.update(file.number for file in files if file.number not in pending)
        return [file.number in pending for file in files]

    async def settle(self, transaction: Transaction, outcomes: Sequence[tuple[Met, PutOutcome | FailedSource]]) -> None:
        """Writes down what became of files."""
        files = [self._files[id(source)] for source, _ in outcomes]
        settlements = [_settlement(file, outcome) for file, (_, outcome) in zip(files, outcomes, strict=True)]
        await transaction.settle(_leases(files), settlements)
        self.settled.update(file.number for file in files)


def _leases(files: Sequence[ClaimedFile]) -> list[Lease]:
    return list(dict.fromkeys(file.lease for file in files))


def _settlement(file: ClaimedFile, outcome: PutOutcome | FailedSource) -> Settlement:
    if isinstance(outcome, FailedSource):
        return Settlement(file.number, "failed", outcome.error, outcome.hint)
    return Settlement(file.number, outcome)


def new_job_runner(resources: Resources) -> JobRunner:
    """What works on the accepted uploads of every tenant of a data folder."""

    async def handle(claim: Claim) -> set[int]:
        sources = await resources.bulk_workers.run(lambda: [_source(file, resources.uploads) for file in claim.files])
        ledger = ClaimLedger(list(zip(claim.files, sources, strict=True)))
        while True:
            model = (await resources.store.head(claim.scope)).model
            ingestion = await new_ingestion(resources, claim.scope, ledger=ledger)  # refuses a model that the settings do not allow
            try:
                await ingestion.run(sources)
                return ledger.settled
            except ModelMismatchError:
                if (await resources.store.head(claim.scope)).model == model:
                    raise  # an embedding server has another model than it says; else the collection was switched meanwhile

    store = resources.store
    lock = ProcessLock(resources.settings.data_dir / "jobs.lock")
    return JobRunner(store.jobs, store.version, handle, resources.uploads, resources.settings.jobs, lock=lock)


def _source(file: ClaimedFile, uploads: Uploads) -> Document | Upload:
    if file.kind == "text":
        body = file.body if file.body is not None else uploads.path(file.path).read_bytes()
        return Document(body.decode(), id=file.document_id, source=file.source, metadata=file.metadata)
    path = uploads.path(file.path) if file.body is None else None
    return Upload(path, file.body, name=file.name, id=file.document_id, source=file.source, metadata=file.metadata)


async def jobs_findings(resources: Resources) -> list[Finding]:
    """What a health check says of jobs: those that have failed, and those that wait while nobody works."""
    counted = await resources.store.jobs.counts()
    findings = []
    if counted.failed:
        hint = "GET /api/v1/jobs?state=failed says why; they can be retried as long as they are kept"
        findings.append(Finding("warning", f"{counted.failed:,} jobs have failed", hint))
    if counted.queued and counted.oldest_queued_s > _IDLE_S:
        waiting = f"{counted.queued:,} jobs wait, the oldest for {counted.oldest_queued_s:.0f} s"
        findings.append(Finding("warning", waiting, "`ragline serve` works on them, as does a program that calls `engine.jobs.start()`"))
    return findings
