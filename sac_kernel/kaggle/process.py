"""The `kaggle` command line as a process: calls with a time limit, classified failures, no secrets in texts.

The client ends with status 0 after many failures and can wait for ever. Here each call has a time limit, and every
error says what failed and what to do. Sources: kaggle 2.2.4, 2.2.5, run locally.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sac_kernel.core import interrupts
from sac_kernel.core.errors import KaggleError
from sac_kernel.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

T = TypeVar("T")
_log = logging.getLogger(__name__)
Reply = subprocess.CompletedProcess[str]
SLOWEST_BYTES_PER_S = 50_000  # for the time limit of an upload or download
_CHATTER = ("Starting upload", "Upload successful", "Dataset URL", "License(s)", "Warning: Your Kaggle")
AGAIN = "Nothing was lost. Repeat the command, later if it fails again"
GET_A_TOKEN = "Make a token at kaggle.com/settings/api and put it into ~/.kaggle/access_token"  # noqa: S105
# Pattern of the client's text, kind of failure, its meaning, what to do; the first match counts.
_CAUSES = (
    ("No module named", "client", "the kaggle client does not start", "Run pip install -r requirements/run.txt"),
    ("no answer within", "timeout", "Kaggle did not answer in time", AGAIN),
    ("Authentication required", "login", "Kaggle refused the login, or there are no credentials", GET_A_TOKEN),
    ("_introspect_tok", "login_check", "Kaggle could not check the token",
     f"Repeat later, or renew the token. {GET_A_TOKEN}"),
    ("GPU session count", "gpu_busy", "two GPU runs are active, which is the limit",
     "Wait until one ends, or use the CPU"),
    ("quota", "quota", "this week's GPU hours are used up", "Wait for Saturday 00:00 UTC, or build for the CPU"),
    ("phone", "phone", "the account is not verified by phone", "Verify it at kaggle.com/settings, then repeat"),
    ("1 megabyte", "too_large", "the notebook's text is too large", "Move data out of it into a dataset"),
    ("Client Error.*ADDRESS", "address", "the address of a file has expired", AGAIN),
    ("(Notebook|Kernel) not found", "absent", "you have no such kernel", "Check the owner in the id, and remove id_no"),
    (r"\b409\b|Conflict", "conflict", "another notebook or dataset of yours has this name, or it is in use",
     "Give kernel and datasets different names, and close open runs and editors"),
    ("already in use", "exists", "a dataset of this name exists", "Repeat the command: it adds a version"),
    ("Upload unsuccessful|expired", "upload", "a file did not arrive", AGAIN),
    (r"'datasets\.update'", "denied", "Kaggle still processes the last version, or it is not yours",
     "Wait and repeat, or check the owner"),
    (r"Cannot access kernel|'kernels\.", "denied", "there is no such kernel, or it is not yours",
     "Check owner, name and login"),
    (r"was denied|\b403\b", "denied", "Kaggle refused access", "Check the owner of the name, and the login"),
    (r"\b429\b|Too Many", "throttled", "Kaggle asks for fewer calls", "Wait some minutes and repeat"),
    (r"\b404\b|Not found", "absent", "Kaggle knows no such name", "Check owner and name"),
    ("Max retries|Connection|Remote|timed out|Failed to resolve", "connection", "the connection broke", AGAIN),
    (r"\b5\d\d\b|Server Error|Service Unavailable|Expecting value", "server", "Kaggle had an error",
     f"{AGAIN}. The name of a deleted dataset stays reserved: choose another"),
    ("must|Invalid|detected, please|should be", "metadata", "Kaggle refused the metadata", "Correct its file"),
)  # fmt: skip
# FINAL: repeating at once does not help. UNCLEAR: the request may have taken effect. PUSH_FINAL: all kinds but the
# two after which a push cannot have started a run.
FINAL = {"client", "login", "denied", "absent", "conflict", "quota", "phone", "too_large", "metadata"}
FINAL |= {"active", "sources", "stored", "ended"}
ABSENT = {"absent", "denied"}  # Kaggle may answer "denied" for a missing name
UNCLEAR = {"timeout", "connection", "server", "unknown"}
UNKNOWN = UNCLEAR | {"content", "throttled"}
PUSH_FINAL = {c[1] for c in _CAUSES} - {"throttled", "login_check"} | FINAL | {"unknown", "elsewhere"}


class KaggleProcess:
    """The command line, one process a call.

    Parameters
    ----------
    environ, python : environment (without VERBOSE, which prints tokens) and interpreter of the client
    timeout_s, poll_s : seconds; limit of one call (transfers get more, by size), and first pause between two
        tries or looks, doubled with each failed try up to a minute
    sleep, say : functions that wait, until a signal at most, and that show a line of progress
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        python: str = sys.executable,
        *,
        timeout_s: float = 120.0,
        poll_s: float = 5.0,
        sleep: Callable[[float], object] = interrupts.sleep,
        say: Callable[[str], object] = _log.info,
    ) -> None:
        given = os.environ if environ is None else environ
        self._env = {k: v for k, v in given.items() if not k.startswith("VERBOSE")} | {"PYTHONUTF8": "1"}
        self._python, self._timeout_s, self._poll_s, self._sleep = python, timeout_s, poll_s, sleep
        self.tries, self.ready_s = 5, 1800.0  # of one request; limit of processing a version, seconds
        self._secrets = self._find_secrets()
        self._say: Callable[[str], object] = lambda text: say(self._clean(text))
        self._owner: str | None = None

    def _call(self, args: Sequence[str], where: str, n_bytes: int = 0) -> Reply:
        """Run the client once; raise its error unless it ends with status 0, which alone does not prove success."""
        timeout_s = self._timeout_s + n_bytes / SLOWEST_BYTES_PER_S
        command = [self._python, "-P", "-m", "kaggle", "-W", *args]
        with tempfile.TemporaryDirectory(prefix="kaggle-", ignore_cleanup_errors=True) as temporary:
            # In a shared folder the client would resume unfinished uploads of other content.
            env = self._env | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
            # In a session of its own: Ctrl-C must not end it as if Kaggle had failed, which would be tried again.
            with subprocess.Popen(  # noqa: S603  # this interpreter, arguments as a list
                command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                encoding="utf-8", errors="replace", start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    reply = Reply(command, 0, *interrupts.finish(process, timeout_s))
                    reply.returncode = process.returncode
                except subprocess.TimeoutExpired:
                    reply = Reply(command, 1, "", f"no answer within {timeout_s:.0f} s")
        if reply.returncode != 0:
            raise self._error(where, reply)
        return reply

    def is_private(self, ref: str) -> bool | None:
        """Return whether a dataset is private; None if you can read none."""
        with tempfile.TemporaryDirectory() as temporary:
            args = ["datasets", "metadata", ref, "-p", temporary]
            path = Path(temporary, "dataset-metadata.json")
            info = self._unless(lambda: self._ask(args, ref, lambda _: _described(path)), None)
        return None if info is None else bool(info.get("isPrivate"))  # left out where it is false

    def published_mark(self, ref: str, file: str) -> str | None:
        """Return the `content_hash` that a dataset's JSON file names; None if it has no such file."""
        with tempfile.TemporaryDirectory() as temporary:
            args = ["datasets", "download", ref, "-f", file, "-p", temporary, "-o", "-q"]
            read = Path(temporary, file).read_bytes
            return self._unless(
                lambda: self._ask(args, ref, lambda _: str(json.loads(read())["content_hash"])), None
            )

    def _ask(self, args: Sequence[str], where: str, read: Callable[[str], T]) -> T:
        """Run a command, repeating it until it answers; return what `read` makes of the answer."""

        def once() -> T:
            reply = self._call(args, where)
            try:
                return read(reply.stdout)
            except (ValueError, LookupError, TypeError, OSError) as err:
                problem = f"the answer to {' '.join(args[:2])!r} cannot be read: {self._text_of(reply)[:300]}"
                raise failure_of(where, problem, AGAIN, "content") from err

        return self._retry(where, once)

    def _unless(self, act: Callable[[], T], otherwise: T, kinds: Set[str] = ABSENT) -> T:
        """Return what `act` returns, or `otherwise` after a failure of one of these kinds."""
        try:
            return act()
        except KaggleError as err:
            if err.kind not in kinds:
                raise
            return otherwise

    def _retry(self, where: str, act: Callable[[], T], tries: int = 0, final: Set[str] = FINAL) -> T:
        """Return what `act` returns, repeating it with growing pauses after a failure that may pass."""
        for attempt in range(1, tries := tries or self.tries):
            try:
                return act()
            except KaggleError as err:
                if err.kind in final:
                    raise
                self._say(f"{where}: try {attempt} of {tries} failed: {err}")
            self._sleep(min(self._poll_s * 2 ** (attempt - 1), 60.0))
        return act()

    def _error(self, where: str, reply: Reply) -> KaggleError:
        text = self._text_of(reply)
        plain = re.sub(r"port=\d+|\d+ bytes", "", text) + "".join(re.findall("_introspect_tok", reply.stderr))
        plain = re.sub(r"\S*://\S+", lambda url: "RPC" if "Service/" in url[0] else "ADDRESS", plain)
        for pattern, kind, meaning, todo in _CAUSES:
            if re.search(pattern, plain):
                return failure_of(where, f"{meaning} ({text[:300]!r})", todo, kind)
        return failure_of(where, f"the kaggle client failed ({text[:300]!r})", AGAIN, "unknown")

    def _text_of(self, reply: Reply) -> str:
        """Return the lines of a reply that matter, without secrets."""
        errors = [line.strip() for line in reply.stderr.splitlines() if line.strip() and "B/s]" not in line]
        lines = errors[-1:] if "Traceback" in reply.stderr else errors
        lines += [line for line in reply.stdout.splitlines() if line and not line.startswith(_CHATTER)]
        return self._clean(" | ".join(lines))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = re.sub(r"(Bearer|Basic) \S+", r"\1 ***", re.sub(r"://[^\s/@]+@", "://***@", text))
        return printable(re.sub(r"(://[^\s?]*)\?\S+", r"\1?***", text))

    def _credential_files(self) -> list[Path]:
        home = Path(self._env.get("HOME") or self._env.get("USERPROFILE") or Path.home())
        config = Path(self._env.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
        chosen = self._env.get("KAGGLE_CONFIG_DIR")
        paths = [home / ".kaggle" / name for name in ("access_token", "access_token.txt", "credentials.json")]
        paths += [Path(t) for t in [self._env.get("KAGGLE_API_TOKEN", "")] if len(t) < 256]  # may be a path
        paths += [p / "kaggle.json" for p in ([Path(chosen)] if chosen else [home / ".kaggle", config])]
        return [path for path in paths if path.is_file() and path.stat().st_size]

    def _find_secrets(self) -> list[str]:
        """Return the values that must not appear in any text, longest first."""
        secrets = [v for k, v in self._env.items() if re.search("KAGGLE.*(KEY|TOKEN|SECRET|PASSWORD)", k)]
        for path in self._credential_files():
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            secrets += re.findall(r'"\w*(?:key|token)\w*"\s*:\s*"([^"]+)"', text) or [text]
        return sorted({value for value in secrets if len(value) > 5}, key=len, reverse=True)


def _described(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    return dict(content.get("info", content))  # clients differ in what surrounds it


def failure_of(where: str, problem: str, todo: str, kind: str) -> KaggleError:
    """Return the error '<where>: <problem>. <todo>.'; `kind` classifies it in one word."""
    return KaggleError(f"{where}: {problem}. {todo}.", kind)


def need(ok: object, where: str, problem: str, todo: str, kind: str = "metadata") -> None:
    """Raise KaggleError '<where>: <problem>. <todo>.' unless `ok`."""
    if not ok:
        raise failure_of(where, problem, todo, kind)
