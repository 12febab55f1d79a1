"""What the web reader asks a parser process beside texts: the links of a page, the entries of a sitemap."""

from __future__ import annotations

from typing import Any

from .links import LINKS, read_links
from .packages import UnreadableError
from .sitemaps import SITEMAP, read_sitemap
from .texts import NotTextError, decode

OUTLINES = frozenset({LINKS, SITEMAP})


def read_outline(data: bytes, kind: str) -> dict[str, Any]:
    """What `read_links` or `read_sitemap` gives, or `error` and `hint`."""
    try:
        return read_links(decode(data, markup=True).text) if kind == LINKS else read_sitemap(data)
    except (UnreadableError, NotTextError) as exc:
        return {"error": str(exc), "hint": ""}
    except MemoryError:
        raise
    except Exception as exc:  # whatever a parser raises concerns this page only
        return {"error": f"it is damaged: {exc}"[:300], "hint": ""}
