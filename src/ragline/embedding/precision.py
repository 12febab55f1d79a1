"""Which numbers to compute with: int8 where the processor multiplies it quickly and exactly, else fp32."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Literal, TypeAlias

from ragline.errors import SettingsError

Precision: TypeAlias = Literal["int8", "fp32"]
WeightBits: TypeAlias = Literal[7, 8]

# Instructions that add up products of 8-bit numbers in 32 bits, as /proc/cpuinfo names them.
_X86 = ("avx512_vnni", "avx_vnni", "amx_int8")
_ARM = ("asimddp", "i8mm")
# Without one of them onnxruntime adds up pairs of products in 16 bits on x86. That overflows, unless the weights have 7 bits; with
# these it is still quicker than fp32 where the processor takes 32 of them at a time.
_WIDE = ("avx2",)


def int8_instructions(cpuinfo: str | None = None) -> str | None:
    """The processor's instructions that make int8 the quicker choice, by name, or None where it has none or does not tell.

    Args:
        cpuinfo: Text in the form of Linux's /proc/cpuinfo; None asks this machine.
    """
    if cpuinfo is None:
        if sys.platform == "darwin":
            # Every Apple processor with the ARM instruction set has them; no Mac with an Intel one reports them here.
            return "asimddp" if platform.machine() == "arm64" else None
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text()
        except OSError:
            return None
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return next((name for name in (*_X86, *_ARM, *_WIDE) if name in flags), None)
    return None


def int8_weight_bits(instructions: str | None) -> WeightBits:
    """How many bits of an int8 weight a processor with these instructions can use.

    8 where it has dot products. Else 7: the sum of two products with an 8-bit activation then fits 16 bits, 2 x 255 x 63 < 2^15, so
    that vectors made elsewhere can be searched here, and the other way round. Source: docs/decisions/0013, with what it costs.
    """
    return 8 if instructions in (*_X86, *_ARM) else 7


def choose_precision(setting: Literal["auto", "int8", "fp32", "fp16"]) -> Precision:
    """What the setting `precision` means for onnxruntime on this machine.

    Raises:
        SettingsError: It is fp16, which is for graphics cards.
    """
    if setting == "fp16":
        raise SettingsError(
            "the precision fp16 is for sentence-transformers on a graphics card; onnx has int8 and fp32",
            hint='set the precision to "auto", or the runtime to "sentence-transformers"',
        )
    if setting == "auto":
        return "int8" if int8_instructions() else "fp32"
    return setting
