"""Profiles: settings that belong together, chosen by one name. Whatever else is set wins over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

ProfileName: TypeAlias = Literal["high-throughput", "low-latency", "memory-constrained", "laptop", "server", "high-traffic", "development"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile is for, and its values by dotted key."""

    purpose: str
    values: Mapping[str, Any]


def _profile(purpose: str, **values: Any) -> Profile:
    return Profile(purpose, MappingProxyType({key.replace("__", "."): value for key, value in values.items()}))


PROFILES: Mapping[ProfileName, Profile] = MappingProxyType(
    {
        "high-throughput": _profile(
            "Many documents to read and embed, or many questions in a batch: the whole matters, not the single one.",
            pool__max_size=50,
            embedding__batch_texts=50,
            embedding__batch_wait_s=1.0,
            retrieval__max_concurrent=100,
            embedding__parallel_requests=8,
            web__parallel=8,
            cache__items=50_000,
            cache__ttl_s=3600.0,
            cache__max_bytes=256 * 1024**2,
        ),
        "low-latency": _profile(
            "Each question is to be answered soon, or to be told so soon: small batches, short waits for servers.",
            pool__max_size=20,
            pool__min_size=10,
            embedding__batch_texts=10,
            embedding__batch_wait_s=0.01,
            retrieval__max_concurrent=20,
            embedding__timeout_s=10.0,
            embedding__retry_s=10.0,
            rerank__timeout_s=2.0,
            generation__first_token_timeout_s=10.0,
            generation__timeout_s=60.0,
            cache__items=10_000,
            cache__ttl_s=1800.0,
        ),
        "memory-constrained": _profile(
            "A small container or computer: one parser, one thread that embeds, few collections held at once.",
            pool__max_size=5,
            pool__min_size=1,
            reading__workers=1,
            reading__max_memory_bytes=256 * 1024**2,
            embedding__threads=1,
            embedding__batch_texts=5,
            embedding__batch_wait_s=0.1,
            retrieval__max_concurrent=5,
            embedding__batch_tokens=2048,
            embedding__parallel_requests=1,
            index__resident_scopes=8,
            web__parallel=1,
            cache__items=1_000,
            cache__ttl_s=900.0,
            cache__max_bytes=16 * 1024**2,
        ),
        "laptop": _profile(
            "One person's computer, which has other things to do.",
            pool__max_size=20,
            pool__min_size=5,
            embedding__batch_texts=32,
            embedding__batch_wait_s=1.0,
            retrieval__max_concurrent=50,
            cache__items=10_000,
            cache__ttl_s=3600.0,
        ),
        "server": _profile(
            "A machine that does this and little else, for a team.",
            pool__max_size=30,
            pool__min_size=10,
            embedding__batch_texts=64,
            embedding__batch_wait_s=1.0,
            retrieval__max_concurrent=50,
            index__resident_scopes=128,
            cache__items=10_000,
            cache__ttl_s=3600.0,
        ),
        "high-traffic": _profile(
            "A machine with many users and collections at once.",
            pool__max_size=50,
            pool__min_size=20,
            embedding__batch_texts=128,
            embedding__batch_wait_s=0.5,
            retrieval__max_concurrent=100,
            embedding__parallel_requests=8,
            index__resident_scopes=256,
            cache__items=50_000,
            cache__ttl_s=3600.0,
            cache__max_bytes=256 * 1024**2,
        ),
        "development": _profile(
            "Work on ragline, or on a program that uses it: small, and slower instructions, so that fallbacks are exercised.",
            pool__max_size=5,
            pool__min_size=1,
            embedding__batch_texts=10,
            embedding__batch_wait_s=0.1,
            retrieval__max_concurrent=5,
            index__simd="lower",
            cache__items=100,
            cache__ttl_s=60.0,
        ),
    }
)


def profile_values(name: object) -> Mapping[str, Any]:
    """A profile's values by dotted key; none for what is no profile's name."""
    return PROFILES[name].values if name in get_args(ProfileName) else {}  # type: ignore[index]
