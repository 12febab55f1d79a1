"""How an older schema becomes the newest, and what happens to a newer one."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from ragline.errors import SchemaTooNewError
from ragline.storage.sqlite import SqliteStore
from ragline.storage.sqlite.connections import open_writer
from ragline.storage.sqlite.schema import MIGRATIONS, migrate, schema_version
from ragline.storage.sqlite.store import FILE_NAME
from tests.store_documents import SCOPE, document, put

LATER = (*MIGRATIONS, "ALTER TABLE documents ADD COLUMN language TEXT; UPDATE documents SET language = 'en'")


async def filled(folder: Path, count: int) -> None:
    opened = await SqliteStore.open(folder)
    await put(opened, SCOPE, *(document(f"{number}", "text") for number in range(count)))
    await opened.close()


async def test_an_older_schema_is_brought_up_to_date_with_its_data(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    connection = open_writer(tmp_path / FILE_NAME, 1)
    assert schema_version(connection) == len(MIGRATIONS)
    migrate(connection, tmp_path / FILE_NAME, LATER)
    assert schema_version(connection) == len(LATER)
    assert connection.execute("SELECT count(*) FROM documents WHERE language = 'en'").get == 3
    migrate(connection, tmp_path / FILE_NAME, LATER)
    assert connection.execute("SELECT group_concat(number) FROM migrations").get == ",".join(str(n + 1) for n in range(len(LATER)))
    connection.close()


async def test_a_newer_schema_than_the_program_knows_is_refused_with_the_cure(tmp_path: Path) -> None:
    await filled(tmp_path, 1)
    connection = open_writer(tmp_path / FILE_NAME, 1)
    migrate(connection, tmp_path / FILE_NAME, LATER)
    connection.close()
    with pytest.raises(SchemaTooNewError, match=f"schema {len(LATER)}") as raised:
        await SqliteStore.open(tmp_path)
    assert "upgrade ragline" in raised.value.hint


async def test_a_migration_that_fails_leaves_no_trace_and_no_record(tmp_path: Path) -> None:
    await filled(tmp_path, 1)
    connection = open_writer(tmp_path / FILE_NAME, 1)
    broken = (*MIGRATIONS, "ALTER TABLE documents ADD COLUMN language TEXT; SELECT nonsense FROM nowhere")
    with pytest.raises(apsw.SQLError):
        migrate(connection, tmp_path / FILE_NAME, broken)
    assert schema_version(connection) == len(MIGRATIONS)
    migrate(connection, tmp_path / FILE_NAME, LATER)
    connection.close()
