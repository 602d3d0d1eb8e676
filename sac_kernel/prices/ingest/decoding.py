"""The bytes of a text file as UTF-8 with unix line ends, whatever program wrote it.

The result stays bytes: a text of three million bars has 150 MB, and pandas parses bytes without a copy.
"""

from __future__ import annotations

from sac_kernel.core.errors import DataError

_MARKS = (  # UTF-32 before UTF-16: its mark begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_SAMPLE_BYTES = 4096


def to_utf8(content: bytes, where: str) -> tuple[bytes, list[str]]:
    r"""Return a text file's content in UTF-8 with `\n` line ends, and notes.

    A byte order mark tells the encoding; without one it is UTF-16 if every second byte is 0, else UTF-8, else
    Windows-1252.

    Raises
    ------
    DataError
        If it is no text, or NUL bytes show that the file was cut while it was written; the line is named.

    Examples
    --------
    >>> to_utf8("Clôture\r\n1,5".encode("cp1252"), "bars.csv")[0].decode()
    'Clôture\n1,5'
    """
    notes: list[str] = []
    encoding = _encoding(content)
    if encoding.startswith(("utf-16", "utf-32")):
        content = _decoded(content, encoding, where).encode("utf-8", "replace")
    elif encoding == "utf-8-sig":
        content = content[3:]
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        msg = (
            f"{where}: line {line} has NUL bytes, which a power cut or a full disk leaves in a file. Delete that "
            "line, or export the file again."
        )
        raise DataError(msg)
    if not content.isascii() and not _is_utf8(content):
        content = _decoded(content, "cp1252", where).encode("utf-8")
        notes.append(f"{where}: text in Windows-1252")
    # pandas' C parser hangs on a lone carriage return before a blank
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return content, notes


def _encoding(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    start = content[: _SAMPLE_BYTES // 2 * 2]
    pairs = len(start) // 2
    for at, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if pairs > 1 and start[at::2].count(0) == pairs and b"\0" not in start[1 - at :: 2]:
            return encoding
    return "utf-8"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decoded(content: bytes, encoding: str, where: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as err:
        msg = f"{where} is not a text table in UTF-8, UTF-16 or Windows-1252: {str(err)[:200]}"
        raise DataError(msg) from err
