"""Kaggle credentials in every form that the client takes, and what is wrong with those that do not work.

Nothing is sent, and no message holds a token or a key. Order and places: kaggle 2.2.4 (`authenticate`), kagglesdk
0.1.38 (`get_access_token_from_env`, `KaggleCredentials`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sac_kernel.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN, KEY, OAUTH = "access token", "key", "kaggle auth login"  # forms, no secrets
TOKEN_FILE = "~/.kaggle/access_token"  # noqa: S105
_RENEW = f"Make a token at kaggle.com/settings/api and put it alone into {TOKEN_FILE}"
_AGAIN = "Download the file again at kaggle.com/settings/api (Create Legacy API Key), or use a token"
_LARGEST_BYTES = 1 << 16
_MISNAMED = re.compile(
    r"(kaggle|access[_ -]?token|credentials)\W.*|kaggle|access-?token|token(\.txt)?", re.IGNORECASE
)
_READ = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")


class Credential(NamedTuple):
    """One place that has credentials or should; in the order in which the client looks.

    `problem` is '' where they look usable, `todo` what to do, `note` a weakness that does not stop the client.
    """

    form: str
    where: str
    problem: str = ""
    todo: str = ""
    note: str = ""


def find(environ: Mapping[str, str]) -> list[Credential]:
    """Return all credentials of an environment and its home folder, the first that the client takes first."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    folder = home / ".kaggle"
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    chosen = environ.get("KAGGLE_CONFIG_DIR")
    own = Path(chosen) if chosen else folder if folder.exists() or os.name == "nt" else config
    found = list(_tokens(environ, folder))
    found += _keys(environ, own / "kaggle.json")
    found += _oauth(folder / "credentials.json")
    for place in dict.fromkeys((folder, own, config)):
        found += _misplaced(place, folder, own)
    return found


def usable(found: list[Credential]) -> Credential | None:
    """Return the credentials that the client takes; None if there are none.

    A damaged file that the client meets before them counts as the one it takes: it would stop there.
    """
    taken = [c for c in found if c.form]
    stops = (c for c in taken if not c.problem or c.form == TOKEN)
    return next(stops, taken[0] if taken else next((c for c in found if c.problem), None))


def _tokens(environ: Mapping[str, str], folder: Path) -> Iterator[Credential]:
    name = "KAGGLE_API_TOKEN"
    if value := environ.get(name, ""):
        path = Path(value)
        if len(value) < 1024 and _exists(path):
            yield from _token_file(path, f"{name} (file {printable(path)})")
        elif re.match(r"[~./\\]|[A-Za-z]:[/\\]", value):
            yield Credential(
                TOKEN, name, "it looks like a path, and there is no such file", f"Correct {name}"
            )
        else:
            yield Credential(TOKEN, name, *_token_problem(value))
    for file in ("access_token", "access_token.txt"):
        yield from _token_file(folder / file, str(folder / file))


def _token_file(path: Path, where: str) -> Iterator[Credential]:
    if _exists(path):
        text, problem, todo, note = _text(path)
        if not problem:
            problem, todo = _token_problem(text)
        yield Credential(TOKEN, where, problem, todo, note)


def _token_problem(text: str) -> tuple[str, str]:
    """Return what is wrong with the text of a token, and what to do."""
    token = text.strip()
    if not token:
        return "it is empty", _RENEW
    if token.startswith("{"):
        return (
            "it holds JSON, not a token",
            "Name it kaggle.json if it is the downloaded key, or put the token alone into it",
        )
    if len(token.split()) > 1 or re.match(r"(export|set|KAGGLE_API_TOKEN)\b|Bearer\b|['\"]|xxx", token):
        return "it holds more than the token", "Keep the token alone: no name, no quotes, one line"
    if not token.isascii() or not token.isprintable():
        return "it holds characters that no token has", _RENEW
    return "", ""


def _keys(environ: Mapping[str, str], path: Path) -> Iterator[Credential]:
    user, key = environ.get("KAGGLE_USERNAME", ""), environ.get("KAGGLE_KEY", "")
    if user and key:
        yield Credential(KEY, "KAGGLE_USERNAME and KAGGLE_KEY", *_key_problem(user, key))
    elif (user or key) and not _exists(path):
        have, lacks = ("KAGGLE_USERNAME", "KAGGLE_KEY") if user else ("KAGGLE_KEY", "KAGGLE_USERNAME")
        yield Credential(KEY, have, f"{lacks} is not set", f"Set both, or neither. {_RENEW}")
    if not _exists(path):
        return
    text, problem, todo, note = _text(path)
    if not problem:
        problem, todo = _json_problem(text, user, key)
    if problem and user and key:
        return  # the pair of variables replaces it
    yield Credential(KEY, str(path), problem, todo, note)


def _json_problem(text: str, user: str, key: str) -> tuple[str, str]:
    values = _object(text)
    if not text.strip():
        return "it is empty", _AGAIN
    if re.fullmatch(r"\s*[\w.-]{20,}\s*", text):
        return (
            "it holds a bare token or key, not JSON",
            f"Move a token to {TOKEN_FILE}; otherwise: {_AGAIN.lower()}",
        )
    if values is None:
        return "it is not a JSON object", _AGAIN
    name, secret = user or values.get("username"), key or values.get("key")
    if not (isinstance(name, str) and isinstance(secret, str) and name and secret):
        return "it lacks username or key", _AGAIN
    return _key_problem(name, secret)


def _key_problem(user: str, key: str) -> tuple[str, str]:
    if key.strip().startswith("KGAT"):
        return "the key is an access token, which the client takes elsewhere", (
            f"Move it to {TOKEN_FILE} (alone), or set KAGGLE_API_TOKEN, and remove this key"
        )
    if "@" in user or user != user.strip() or not user.isascii():
        return (
            "the username is not a Kaggle user name",
            "Take the name in the address of your profile, kaggle.com/NAME",
        )
    if key != key.strip() or not key.isascii() or not key.isprintable() or len(key.split()) != 1:
        return "the key holds blanks or characters that no key has", _AGAIN
    return "", ""


def _oauth(path: Path) -> Iterator[Credential]:
    if not _exists(path):
        return
    text, problem, todo, note = _text(path)
    again = "Run `kaggle auth login` again"
    if not problem:
        values = _object(text)
        if not text.strip():
            problem, todo = "it is empty", again
        elif values is None:
            problem, todo = "it is not a JSON object", again
        elif not values.get("refresh_token") or not values.get("username"):
            problem, todo = "it lacks refresh_token or username", again
    yield Credential(OAUTH, str(path), problem, todo, note)


def _misplaced(place: Path, folder: Path, own: Path) -> Iterator[Credential]:
    """Yield files that look like credentials and that the client does not read."""
    try:
        names = sorted(p.name for p in place.iterdir())
    except OSError:
        return
    for name in names:
        if name == "kaggle.json" and place != own:
            yield Credential(
                "", str(place / name), f"the client reads kaggle.json in {own} only", f"Move it to {own}"
            )
        elif name in _READ[:2] + _READ[3:] and place != folder:
            yield Credential(
                "", str(place / name), f"the client reads {name} in {folder} only", f"Move it to {folder}"
            )
        elif name not in _READ and _MISNAMED.fullmatch(name):
            right = "kaggle.json" if name.lower().startswith("kaggle") else "access_token"
            right = "credentials.json" if name.lower().startswith("credentials") else right
            todo = f"Rename it to {right}"
            yield Credential(
                "", printable(place / name), f"the client reads no file of this name, but {right}", todo
            )


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> tuple[str, str, str, str]:  # noqa: PLR0911  # one a cause
    """Return a file's text, its problem, what to do, and a weakness."""
    try:
        if not path.is_file():
            return "", "it is not a file", "Remove it", ""
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
        mode = path.stat().st_mode
    except OSError as err:
        return "", f"it cannot be read ({err.strerror})", "Make it yours: chmod 600", ""
    note = "others on this machine can read it: chmod 600" if os.name == "posix" and mode & 0o044 else ""
    plain = "Save it as UTF-8 without a byte order mark (in PowerShell: Set-Content -Encoding ascii)"
    if len(content) > _LARGEST_BYTES:
        return "", f"it is larger than {_LARGEST_BYTES:,} bytes", _RENEW, note
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        return "", "its encoding is UTF-16", plain, note
    if content.startswith(b"\xef\xbb\xbf"):
        return "", "it begins with a byte order mark", plain, note
    try:
        return content.decode("utf-8"), "", "", note
    except UnicodeDecodeError:
        return "", "its encoding is not UTF-8", plain, note


def _object(text: str) -> dict[str, object] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
