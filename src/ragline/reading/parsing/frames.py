"""How the engine and its parser processes talk: frames of 8 bytes of length, then JSON in UTF-8."""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">Q")
OUT_OF_MEMORY = 86
"""Exit status of a parser process that took more memory than it may."""
