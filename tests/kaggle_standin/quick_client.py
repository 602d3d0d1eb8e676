"""The client without its second of imports: each call is forked from a process that has made them.

`QuickClient.python` stands in for a Python interpreter. For `python -P -m kaggle ARGS` it hands arguments,
environment, folder and streams to the server, and ends as the forked client ends; when it is killed, so is the
client. Anything else goes to the interpreter itself. The client's own modules are imported anew in each fork, so
that they read its environment. Where a process cannot fork, the interpreter itself does it all.
"""

import atexit
import contextlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

# Run as a script this file is one of the two ends; imported, the class below starts them.


class QuickClient:
    """The server of the client of one interpreter, started when first asked for, ended with this process."""

    def __init__(self, python):
        self._real, self._folder, self._server = python, None, None

    @property
    def python(self):
        """Return the path to call in the interpreter's place."""
        if not hasattr(os, "fork") or not hasattr(socket, "send_fds"):
            return self._real
        if self._folder is None:
            self._start()
        return str(self._folder / "python")

    @property
    def server_pid(self):
        """Return the process id of the server, once `python` was asked for."""
        return self._server.pid

    def _start(self):
        self._folder = Path(tempfile.mkdtemp(prefix="kq-"))
        (self._folder / "home").mkdir()
        stub = self._folder / "python"
        words = [self._real, "-I", "-S", __file__, "call", str(self._folder / "s")]
        script = f"""#!/bin/sh
case "$1 $2 $3" in
    "-P -m kaggle") exec {shlex.join(map(str, words))} "$@" ;;
    *) exec {shlex.quote(str(self._real))} "$@" ;;
esac
"""
        stub.write_text(script, encoding="utf-8")
        stub.chmod(0o755)
        env = {k: v for k, v in os.environ.items() if "KAGGLE" not in k and not k.startswith("XDG_")}
        env |= {"KAGGLE_USERNAME": "nobody", "KAGGLE_KEY": "none"}  # on import it wants a login
        self._server = subprocess.Popen(
            [self._real, "-P", __file__, "serve", str(self._folder / "s")],
            env={**env, "HOME": str(self._folder / "home"), "PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,  # its end is the server's end
            stdout=subprocess.PIPE,
        )
        self._server.stdout.readline()  # ready
        atexit.register(self._stop)

    def _stop(self):
        self._server.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


def call(address, arguments):
    """Have the client called, and return the status it ended with."""
    request = json.dumps([arguments, dict(os.environ), str(Path.cwd())]).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [struct.pack("!I", len(request))], [0, 1, 2])
        server.sendall(request)
        answer = server.recv(1)
    return answer[0] if answer else 1


def serve(address):
    """Fork a client for each connection, until standard input ends."""
    import_what_the_client_needs()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        os.write(1, b"\n")
        while listener in select.select([listener, 0], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                watch(connection)
            connection.close()
            reap(os.WNOHANG)
    reap(0)


def import_what_the_client_needs():
    """Import the client, and forget its own modules: on import they read the environment."""
    with contextlib.suppress(ImportError):
        import kaggle.cli  # noqa: F401
    for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
        del sys.modules[name]


def reap(options):
    """Collect the processes that have ended, or wait for all of them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            pass


def watch(connection):
    """Run one client; report its status, or kill it if the caller is gone. Does not return."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    length = struct.unpack("!I", header)[0]
    request = b""
    while len(request) < length:
        request += connection.recv(length - len(request))
    alive, held = os.pipe()
    client = os.fork()
    if client == 0:
        os.close(alive)
        connection.close()
        become_the_client(*json.loads(request), streams)
    for number in (*streams, held):
        os.close(number)
    if alive not in select.select([alive, connection], [], [])[0]:
        os.kill(client, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(client, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(bytes([status if status >= 0 else 128 - status]))
    os._exit(0)


def become_the_client(arguments, environment, folder, streams):
    """Do what `python ARGUMENTS` does with this environment, folder and streams. Does not return."""
    status = 0
    try:
        for target, number in enumerate(streams):
            os.dup2(number, target)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = arguments[2:]
        runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "call":
        raise SystemExit(call(sys.argv[2], sys.argv[3:]))
    serve(sys.argv[2])
