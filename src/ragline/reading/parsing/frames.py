"""How the engine and its parser processes talk: two frames a message, each 8 bytes of length and a body.

The first is JSON. The second is a text in UTF-8, often empty: it can be long, and JSON would have to be scanned.
While it reads a file that holds files, a parser sends messages `at`, the member that it reads next.
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">Q")
OUT_OF_MEMORY = 86
"""Exit status of a parser process that took more memory than it may."""
