"""No test can reach a real host: not from its own process, not from one it starts, not from the real client."""

import socket
import subprocess
import sys

import pytest

from tests.kaggle_standin import KaggleStandin, kaggle_env, run_kaggle
from tests.support import says

CONNECT = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=2)"
LOOK_UP = "import socket; socket.getaddrinfo('www.kaggle.com', 443)"


def test_this_process_reaches_nobody():
    with pytest.raises(OSError, match=says("192.0.2.1")):
        socket.create_connection(("192.0.2.1", 443), timeout=2)
    with pytest.raises(OSError, match=says("www.kaggle.com")):
        socket.getaddrinfo("www.kaggle.com", 443)


@pytest.mark.parametrize("program", [CONNECT, LOOK_UP])
def test_a_child_process_reaches_nobody(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no test may reach" in done.stderr


def test_the_real_client_without_its_proxy_reaches_nobody(tmp_path):
    """Aimed at the real site, as a test with a mistake would be."""
    with KaggleStandin(tmp_path / "platform") as kaggle:
        env = kaggle_env(kaggle, tmp_path / "home")
        env.pop("KAGGLE_API_ENVIRONMENT")
        for name in [n for n in env if n.lower().endswith("_proxy")]:
            env.pop(name)
        done = run_kaggle(["datasets", "list", "-m"], env, tmp_path)
    assert "no test may reach 'api.kaggle.com'" in done.stdout + done.stderr
    assert done.returncode != 0


def test_loopback_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=2).close()
