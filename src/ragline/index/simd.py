"""Which of the processor's vector instructions FAISS uses. One choice holds for the whole process."""

from __future__ import annotations

from typing import Any

import faiss

_LADDERS = (
    ("NONE", "AVX2", "AVX512"),
    ("NONE", "ARM_NEON", "ARM_SVE"),
    ("NONE", "RISCV_RVV"),
)
_KINDS_OF_AVX512 = ("AVX512_SPR", "AVX512_VPOPCNT")

# FAISS's type stubs and older builds lack it.
_SIMD: Any = getattr(faiss, "SIMDConfig", None)


def simd_level() -> str:
    """What FAISS computes with now, such as "AVX2"; "NONE" is plain code, "" a build that does not tell."""
    return str(_SIMD.get_level_name()) if _SIMD is not None else ""


def best_simd_level() -> str:
    """The best that this processor and this build of FAISS have, by the same names."""
    return _name(_SIMD.auto_detect_simd_level()) if _SIMD is not None else ""


def lower_simd_level() -> bool:
    """Takes FAISS one level below the best: AVX2 where there is AVX-512, plain code where there is NEON. Twice is once.

    Results stay the same but for the last bits of scores: sums are added up in another order.

    Returns:
        False where there is no lower level, or this build has one level only.
    """
    if _SIMD is None or not _SIMD.has_dynamic_dispatch():
        return False
    below = _below(best_simd_level())
    level = None if below is None else _number(below)
    if level is None or not _SIMD.is_simd_level_available(level):
        return False
    _SIMD.set_level(level)
    return True


def is_lowered() -> bool:
    """Whether FAISS computes below the best level, whoever asked for that (`FAISS_SIMD_LEVEL` is another way)."""
    return simd_level() != best_simd_level()


def _below(level: str) -> str | None:
    level = "AVX512" if level in _KINDS_OF_AVX512 else level
    for ladder in _LADDERS:
        if level in ladder[1:]:
            return ladder[ladder.index(level) - 1]
    return None


def _number(level: str) -> int | None:
    number: int | None = getattr(faiss, f"SIMDLevel_{level}", None)
    return number


def _name(number: int) -> str:
    return next(
        (name.removeprefix("SIMDLevel_") for name in dir(faiss) if name.startswith("SIMDLevel_") and getattr(faiss, name) == number), ""
    )
