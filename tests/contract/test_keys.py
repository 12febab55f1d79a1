"""What a store promises of keys and audit lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragline.errors import InputError
from ragline.storage.keys import hash_of, matches, new_key, parse_key
from ragline.storage.sqlite import SqliteStore


def test_keys_are_random_and_nothing_in_the_store_gives_them_away() -> None:
    made = [new_key("acme", created_at=1.0) for _ in range(200)]
    assert len({text for text, _ in made}) == len({stored.id for _, stored in made}) == 200
    for text, stored in made:
        assert re.fullmatch(r"rl_[0-9a-f]{16}_[0-9a-f]{64}", text)  # 256 bits
        id, secret = parse_key(text) or ("", "")
        assert id == stored.id and secret not in repr(stored) and stored.secret_hash == hash_of(secret)
        assert matches(stored, secret) and not matches(stored, secret[::-1]) and not matches(None, secret)


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "everything"]])
def test_a_key_has_scopes_that_there_are(scopes: list[str]) -> None:
    with pytest.raises(InputError, match="scope"):
        new_key("acme", scopes=scopes, created_at=1.0)


def test_scopes_include_no_more_than_they_say() -> None:
    allowed = {
        scope: {asked for asked in ("read", "write", "admin", "metrics") if new_key("a", scopes=[scope], created_at=1.0)[1].allows(asked)}
        for scope in ("read", "write", "admin", "metrics")
    }
    assert allowed == {"read": {"read"}, "write": {"write"}, "admin": {"read", "write", "admin"}, "metrics": {"metrics"}}
    assert not new_key("a", created_at=1.0)[1].allows("metrics")


async def test_keys_are_found_listed_and_revoked_once(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    keys = store.keys
    assert not await keys.in_force() and await keys.find("0" * 16) is None
    _, mine = new_key("acme", name="mine", scopes=["read"], rate_per_s=2.5, burst=10, created_at=1.0)
    _, theirs = new_key("other", created_at=2.0)
    await keys.add(mine, actor="test")
    await keys.add(theirs, actor="test")
    assert await keys.in_force()
    assert await keys.find(mine.id) == mine
    assert list(await keys.list()) == [mine, theirs] and list(await keys.list("other")) == [theirs]
    assert not await keys.revoke(mine.id, tenant="other", actor="test"), "another tenant's key cannot be revoked"
    assert await keys.revoke(mine.id, tenant="acme", actor="test")
    assert not await keys.revoke(mine.id, tenant="acme", actor="test")
    found = await keys.find(mine.id)
    assert found is not None and found.revoked_at is not None and await keys.in_force()
    await store.close()


async def test_what_another_process_does_holds_at_once(tmp_path: Path) -> None:
    here, there = await SqliteStore.open(tmp_path), await SqliteStore.open(tmp_path)
    _, key = new_key("acme", created_at=1.0)
    assert not await there.keys.in_force() and await there.keys.find(key.id) is None
    await here.keys.add(key, actor="test")
    assert await there.keys.in_force() and await there.keys.find(key.id) == key
    await here.keys.revoke(key.id, tenant="acme", actor="test")
    found = await there.keys.find(key.id)
    assert found is not None and found.revoked_at is not None
    await here.close()
    await there.close()


async def test_last_use_goes_forward_only(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    _, key = new_key("acme", created_at=1.0)
    await store.keys.add(key, actor="test")
    for at, expected in ((5.0, 5.0), (3.0, 5.0), (7.0, 7.0)):
        await store.keys.used({key.id: at, "unknown": at})
        found = await store.keys.find(key.id)
        assert found is not None and found.last_used_at == expected
    await store.close()


async def test_the_audit_tells_each_tenant_of_its_own_the_newest_first(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    keys = store.keys
    _, key = new_key("acme", name="mine", created_at=1.0)
    await keys.add(key, actor="command line")
    for number in range(5):
        await keys.audit("acme" if number % 2 else "other", key.id, "document.delete", f"d{number}", {"collection": "default"})
    await keys.revoke(key.id, tenant="acme", actor="command line")
    lines = await keys.audited("acme")
    assert [(line.act, line.target) for line in lines] == [
        ("key.revoke", key.id),
        ("document.delete", "d3"),
        ("document.delete", "d1"),
        ("key.create", key.id),
    ]
    assert lines[1].details == {"collection": "default"} and lines[3].details == {"name": "mine", "scopes": ["read", "write"]}
    page = await keys.audited("acme", before=lines[1].id, limit=1)
    assert [line.target for line in page] == ["d1"]
    assert [line.target for line in await keys.acts_since("document.delete", lines[2].id)] == ["d2", "d3", "d4"]
    assert [line.act for line in await keys.acts_since("anything", None)] == ["key.revoke"]
    await store.close()
