"""A page of this machine without its places: the checkout, the home folder, Python and the temporary folder."""

from __future__ import annotations

import html
import json
import re
import sys
import tempfile
from pathlib import Path

from sac_kernel.core import packages

# A home folder of anybody, on Linux, macOS and Windows, also with the backslashes of JSON
_HOMES = re.compile(r"""(?:[A-Za-z]:)?(?:/home/|/Users/|\\{1,2}Users\\{1,2})[^/\\\s"'<>&:,;)]+""")


def without_places(text: str) -> str:
    """Return text, JSON or HTML with the folders of this machine replaced by short names."""
    found = {
        packages.import_root(): "CHECKOUT",
        Path.cwd(): "CHECKOUT",
        Path(sys.prefix): "PYTHON",
        Path(sys.base_prefix): "PYTHON",
        Path(tempfile.gettempdir()): "TEMPORARY",
        Path.home(): "~",
    }
    places = {str(form): name for path, name in found.items() for form in (path, path.resolve())}
    for place in sorted(places, key=len, reverse=True):
        if len(Path(place).parts) < 2:  # the root of a disk, where some systems put the home folder
            continue
        for form in {
            place,
            json.dumps(place, ensure_ascii=False)[1:-1],
            json.dumps(place)[1:-1],
            html.escape(place),
        }:
            text = re.sub(rf"{re.escape(form)}(?![\w-])", lambda _, name=places[place]: name, text)  # type: ignore[misc]
    return _HOMES.sub("~", text)
