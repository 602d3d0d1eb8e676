"""Text from files, fit for a terminal, Markdown or a log: it can neither steer nor forge what surrounds it."""

from __future__ import annotations

import html
import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

# Control characters but tab and line feed, marks without width, changes of direction, halves of pairs
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"([\\`*_\[\]|~$#])")


def printable(text: object) -> str:
    r"""Return text with control characters written out, as in `\x1b`; tabs and line feeds stay."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(text))


def markdown(text: object) -> str:
    """Return one line of Markdown that shows `text` as it is: no markup, no HTML, no formula."""
    line = " ".join(printable(text).split())
    return _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False))


class PlainFormatter(logging.Formatter):
    """Formatter of the message alone, fit for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text with control characters written out."""
        return printable(super().format(record))


def log_to(stream: TextIO) -> None:
    """Show log lines of level INFO on `stream`, each the message alone."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
