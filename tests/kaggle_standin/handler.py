"""One HTTP connection: what the client asks, which fault is due, what it gets."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import zipfile
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

from tests.kaggle_standin.faults import Body, Drop, Fault, Partial, Silence, Status
from tests.kaggle_standin.record import Request
from tests.kaggle_standin.rules import RpcError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kaggle_standin.datasets import Blob, DatasetVersion
    from tests.kaggle_standin.server import KaggleStandin

RPC_PATH = re.compile(r"/api/v1/[a-z]+\.\w+/(\w+)$")
LOG_PATH = re.compile(r"/api/v1/kernels/logs/stream/[^/]+/[^/]+(/\d+)?$")
FILE_PATHS = {"/blob/": "blob", "/output/": "output", "/download/": "download"}
JSON = "application/json"


class Handler(BaseHTTPRequestHandler):
    """Answers RPCs (POST), uploads (PUT) and downloads (GET), in absolute or origin form."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    request_record: Request
    where: str

    def do_POST(self) -> None:
        """Answer an RPC."""
        self._serve()

    def do_PUT(self) -> None:
        """Take an upload."""
        self._serve()

    def do_GET(self) -> None:
        """Send a file or a log."""
        self._serve()

    def do_CONNECT(self) -> None:
        """Refuse a tunnel: it would lead to another host."""
        self.standin.record(Request("CONNECT", self.path, "", "", {}, "", status=403))
        self.close_connection = True
        self._send(403, b"this server leads nowhere else", "text/plain")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing to the terminal."""

    @property
    def standin(self) -> KaggleStandin:
        """The platform behind this connection."""
        return cast("KaggleStandin", self.server.standin)  # type: ignore[attr-defined]

    # -- one request

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.route = parts.path
        content = self._read_body()
        self.where = self._place()
        self.request_record = Request(
            method=self.command,
            host=parts.netloc or self.headers.get("Host", ""),
            path=self.route,
            rpc=self.where,
            body=self._body_record(content),
            auth=self.headers.get("Authorization", "").split(" ")[0],
        )
        self.standin.record(self.request_record)
        if not self.standin.is_own_host(self.request_record.host):
            self._send(403, b"this server leads nowhere else", "text/plain")
            return
        try:
            fault = self.standin.faults.take(self.where)
            if fault is None or not self._apply(fault, content):
                self._answer(content)
        except RpcError as err:
            self._send_json(err.status, {"code": err.status, "message": err.message})

    def _place(self) -> str:
        """Return the RPC name, or blob, output, download, logs; '' for an unknown path."""
        if match := RPC_PATH.match(self.route):
            return match[1] if self.command == "POST" else ""
        if LOG_PATH.match(self.route):
            return "logs"
        return next((n for prefix, n in FILE_PATHS.items() if self.route.startswith(prefix)), "")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _body_record(self, content: bytes) -> dict[str, Any]:
        if self.where == "blob":
            return {"bytes": len(content), "range": self.headers.get("Content-Range", "")}
        try:
            body = json.loads(content or b"{}")
        except ValueError:
            return {"bytes": len(content)}
        return body if isinstance(body, dict) else {"body": body}

    def _answer(self, content: bytes) -> None:
        """Answer as the platform does when nothing is wrong with it."""
        if self.where == "blob":
            self._take_upload(content)
        elif self.where in ("output", "download"):
            self._send_file(self._requested_file())
        elif self.where == "logs":
            self._send_log()
        elif self.where == "DownloadDataset":
            self._redirect_to_download()
        else:
            self._send_json(200, self._rpc())

    # -- faults

    def _apply(self, fault: Fault, content: bytes) -> bool:
        """Act out a fault; return False if the normal answer is still to come."""
        match fault:
            case Status():
                self._send_status(fault)
            case Body():
                self._send_json(200, fault.body)
            case Silence():
                self.standin.closing.wait(fault.seconds)
                self._hang_up()
            case Drop():
                self._drop(fault, content)
            case Partial() if self.where == "blob":
                self._take_part(content[: fault.n_bytes])
            case Partial():
                self._send_file(self._requested_file(), fault.n_bytes)
            case _:
                return False
        return True

    def _send_status(self, fault: Status) -> None:
        extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        message = fault.message or f"injected {fault.code}"
        if fault.html or self.where in ("blob", "output", "download"):
            self._send(fault.code, message.encode(), "text/html", extra)
        else:
            self._send_json(fault.code, {"code": fault.code, "message": message}, extra)

    def _drop(self, fault: Drop, content: bytes) -> None:
        if fault.processed:
            sent, self.wfile = self.wfile, io.BytesIO()  # the answer is made and lost
            self._answer(content)
            self.wfile = sent
            self.request_record.status = 0
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    # -- RPCs

    def _user(self) -> str | None:
        """Return who asks, None without a login; a wrong secret is refused."""
        header = self.headers.get("Authorization", "")
        kind, _, secret = header.partition(" ")
        if kind == "Basic":
            secret = base64.b64decode(secret).decode(errors="replace")
        user = self.standin.platform.user_of(kind, secret)
        if header and user is None and self.where != "IntrospectToken":
            raise RpcError(401, "Unauthorized")
        return user

    def _rpc(self) -> dict[str, Any]:
        answer = self.standin.platform.call(self.where, self._user(), self.request_record.body)
        if self.where == "StartBlobUpload":
            answer["createUrl"] = f"{self.standin.url}/blob/{answer['token']}"
        if self.where == "ListKernelSessionOutput":
            for file in answer.get("files", []):
                file["url"] = f"{self.standin.url}/output/{quote(file.pop('path'))}"
        return answer

    def _redirect_to_download(self) -> None:
        """Send the client to the file it names, or to the archive of all files."""
        body = self.request_record.body
        version = self._readable_version(body)
        ref = f"{body['ownerSlug']}/{body['datasetSlug']}/{version.number}"
        name = body.get("fileName", "")
        if name and not (version.folder / name).is_file():
            raise RpcError(404, "Not found")
        place = f"{self.standin.url}/download/{quote(f'{ref}/{name}' if name else f'{ref}.zip')}"
        self._send(302, b"", "text/plain", {"Location": place})

    def _readable_version(self, body: dict[str, Any]) -> DatasetVersion:
        platform = self.standin.platform
        with platform.lock:
            return platform.shelf.readable_version(self._user() or "", body)

    # -- files

    def _take_upload(self, content: bytes) -> None:
        """Take the whole file, the rest of it, or the question how much is there."""
        blob = self._blob()
        if not self.headers.get("Content-Range", "").startswith("bytes */"):
            self._write(blob, content)
        if blob.complete:
            self._send(200, b"", "text/plain")
            return
        have = {"Range": f"bytes=0-{blob.received - 1}"} if blob.received else {}
        self._send(308, b"", "text/plain", have)

    def _take_part(self, content: bytes) -> None:
        """Keep `content`, then fail: the client has to ask how much arrived."""
        self._write(self._blob(), content)
        self._send(503, b"Service Unavailable", "text/plain")

    def _blob(self) -> Blob:
        blob = self.standin.platform.shelf.blobs.get(self.route.rpartition("/")[2])
        if blob is None:
            raise RpcError(404, "Not found")
        return blob

    def _write(self, blob: Blob, content: bytes) -> None:
        start = re.match(r"bytes (\d+)-", self.headers.get("Content-Range", ""))
        blob.write(int(start[1]) if start else 0, content)

    def _requested_file(self) -> Path | bytes:
        """Return the output file, dataset file or archive behind an address."""
        address = unquote(self.route).removeprefix(f"/{self.where}/")
        platform = self.standin.platform
        with platform.lock:
            if self.where == "output":
                path = platform.desk.output_path(address)
            else:
                return self._dataset_file(address)
        if path is None or not path.is_file():
            raise RpcError(404, "Not found")
        return path

    def _dataset_file(self, address: str) -> Path | bytes:
        owner, slug, number, *name = address.split("/", 3)
        dataset = self.standin.datasets.get(f"{owner}/{slug}")
        versions = dataset.versions if dataset else []
        found = [v for v in versions if str(v.number) == number.removesuffix(".zip")]
        if not found:
            raise RpcError(404, "Not found")
        if name:
            return found[0].folder / name[0]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in found[0].files():
                archive.write(path, path.relative_to(found[0].folder).as_posix())
        return buffer.getvalue()

    def _send_file(self, found: Path | bytes, cut_bytes: int | None = None) -> None:
        extra = {}
        if isinstance(found, bytes):
            content = found
        else:
            content = found.read_bytes()
            extra["Last-Modified"] = formatdate(found.stat().st_mtime, usegmt=True)
        if cut_bytes is None:
            self._send(200, content, "application/octet-stream", extra)
            return
        self._send(200, content[:cut_bytes], "application/octet-stream", extra, len(content))
        self._hang_up()

    def _send_log(self) -> None:
        """Send a finished log as a JSON list, a running one as events until it ends."""
        owner, slug, *version = self.route.split("/logs/stream/")[1].split("/")
        user, platform = self._user(), self.standin.platform
        platform.require("logs", user)
        body = {"userName": owner, "kernelSlug": slug, "versionLabel": "".join(version)}
        with platform.lock:
            session = platform.desk.session(user or "", body)
        if session is None or not session.active:
            self._send(200, (session.log() if session else "[]").encode(), JSON)
            return
        self.request_record.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        sent, active = 0, True
        while active and not self.standin.closing.wait(0.05):
            active = session.active
            for line in session.log_records()[sent:]:
                self.wfile.write(f"data: {line}\n\n".encode())
                sent += 1
            self.wfile.flush()
        self.wfile.write(b"data: END_OF_LOG\n\n")
        self.close_connection = True

    # -- answers

    def _send_json(self, status: int, answer: object, extra: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(answer).encode(), JSON, extra)

    def _send(
        self,
        status: int,
        content: bytes,
        kind: str,
        extra: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send one answer; a `length` beyond the content announces what never comes."""
        if hasattr(self, "request_record"):
            self.request_record.status = status
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if newest := self.standin.rules.newest_client:
            self.send_header("X-Kaggle-APIVersion", newest)
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
