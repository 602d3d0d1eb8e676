"""The Kaggle client's way when all goes well, with the real `kaggle` command line, and how it reads answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sac_kernel.core.errors import KaggleError
from sac_kernel.kaggle import client as kaggle_client
from sac_kernel.kaggle.client import KaggleClient, Published, Quota, Status
from tests.kaggle_standin import KaggleStandin, client_python, kaggle_env
from tests.kaggle_standin.samples import notebook_of, rules, write_dataset, write_kernel
from tests.support import says

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["tests.kaggle_standin.fixtures"]

SLEEP = "import time\ntime.sleep(600)"
WRITES_25_FILES = """
import hashlib, json
listed = {}
for number in range(25):
    content = bytes([number]) * number
    open(f"part {number}.bin", "wb").write(content)
    listed[f"part {number}.bin"] = {"bytes": number, "sha256": hashlib.sha256(content).hexdigest()}
open("unlisted.txt", "w").write("stays away")
json.dump({"files": listed, "end": "complete", "step": 7}, open("manifest.json", "w"))
print("first")
print("second")
"""


@pytest.fixture
def client(kaggle: KaggleStandin, tmp_path: Path) -> KaggleClient:
    return new_client(kaggle_env(kaggle, tmp_path / "home"))


def new_client(env: dict[str, str]) -> KaggleClient:
    return KaggleClient(env, client_python(), poll_s=0.01)


def write_data(folder: Path, content: str, **more: bytes) -> Path:
    """Return the folder of dataset tester/x-data with this content as its fingerprint."""
    mark = json.dumps({"content_hash": content}).encode()
    return write_dataset(
        folder, "tester/x-data", {"fingerprint.json": mark, "bars.bin": content.encode(), **more}
    )


@rules(dataset_delay_s=0.5)
def test_dataset_is_created_left_alone_and_gets_a_version(
    kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path
) -> None:
    folder = write_data(tmp_path / "data", "one")
    before = sorted(path.name for path in folder.iterdir())
    assert client.dataset_version("tester/x-data") is None
    assert client.publish_dataset(folder, "one", "first") == Published("tester/x-data", 1, changed=True)
    assert kaggle.datasets["tester/x-data"].private
    assert kaggle.datasets["tester/x-data"].latest.ready

    kaggle.requests.clear()
    assert client.publish_dataset(folder, "one", "again") == Published("tester/x-data", 1, changed=False)
    assert kaggle.calls("StartBlobUpload") == kaggle.calls("CreateDatasetVersion") == []

    write_data(folder, "two")
    assert client.publish_dataset(folder, "two", "-m second").version == 2
    latest = kaggle.datasets["tester/x-data"].latest
    assert (latest.notes, (latest.folder / "bars.bin").read_bytes()) == ("-m second", b"two")
    assert client.dataset_version("tester/x-data") == 2
    assert sorted(path.name for path in folder.iterdir()) == before


def test_publishing_goes_on_where_a_killed_one_stopped(
    kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path
) -> None:
    """A version with the right fingerprint but without a file is not taken for whole."""
    folder = write_data(tmp_path / "data", "one")
    kaggle.add_dataset("tester/x-data", {"fingerprint.json": (folder / "fingerprint.json").read_bytes()})
    assert client.publish_dataset(folder, "one", "n") == Published("tester/x-data", 2, changed=True)
    assert len(kaggle.datasets["tester/x-data"].latest.files()) == 2


def test_kernel_is_pushed_followed_and_fetched(
    kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path
) -> None:
    kaggle.add_dataset("tester/x-data", {"a": b"1"})
    settings = {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4", "dataset_sources": ["tester/x-data"]}
    folder = write_kernel(tmp_path / "kernel", "tester/x-train", WRITES_25_FILES, **settings)
    pushed = client.push_kernel(folder)
    assert pushed == ("tester/x-train", 1, "https://www.kaggle.com/code/tester/x-train")
    kaggle.wait_idle()
    assert client.kernel_status("tester/x-train") == Status("COMPLETE", "")
    assert "".join(record["data"] for record in client.kernel_log("tester/x-train")) == "first\nsecond\n"

    out = tmp_path / "outputs"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    manifest = client.fetch_outputs("tester/x-train", out)
    assert (manifest["step"], len(manifest["files"])) == (7, 25)
    assert {path.name for path in out.iterdir()} == {*manifest["files"], "manifest.json", "mine.txt"}
    assert (out / "part 24.bin").read_bytes() == bytes([24]) * 24

    kaggle.requests.clear()
    client.fetch_outputs("tester/x-train", out)
    assert len(kaggle.calls("output")) == 1  # the manifest alone

    client.delete_kernel("tester/x-train")
    assert kaggle.kernels == {}
    with pytest.raises(KaggleError, match=says("tester/x-train")) as caught:
        client.delete_kernel("tester/x-train")
    assert caught.value.kind == "absent"


def test_second_push_waits_for_the_first_run(
    kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path
) -> None:
    folder = write_kernel(tmp_path / "kernel", "tester/x-train", SLEEP)
    client.push_kernel(folder)
    with pytest.raises(KaggleError, match=says("active")) as caught:
        client.push_kernel(folder)
    assert caught.value.kind == "active"
    assert kaggle.kernels["tester/x-train"].versions == 1


def test_third_gpu_run_is_refused_by_name(
    kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path
) -> None:
    for name in ("x-first", "x-second"):
        client.push_kernel(write_kernel(tmp_path / name, f"tester/{name}", SLEEP, enable_gpu=True))
    third = write_kernel(tmp_path / "third", "tester/x-third", SLEEP, enable_gpu=True)
    with pytest.raises(KaggleError, match=says("GPU")) as caught:
        client.push_kernel(third)
    assert caught.value.kind == "gpu_busy"


@rules(gpu_quota_s=0.0, without_quota="cpu")
def test_run_that_got_no_gpu_is_named(kaggle: KaggleStandin, client: KaggleClient, tmp_path: Path) -> None:
    shape = {"enable_gpu": True, "machine_shape": "NvidiaTeslaT4"}
    with pytest.raises(KaggleError, match=says("machine_shape", "'NvidiaTeslaT4'", "version 1")) as caught:
        client.push_kernel(write_kernel(tmp_path / "kernel", "tester/x-train", SLEEP, **shape))
    assert caught.value.kind == "stored"


def test_quota_is_read_in_hours(kaggle: KaggleStandin, client: KaggleClient) -> None:
    kaggle.use_gpu_quota(5400.0)
    found = client.quota()
    assert found is not None
    assert (found.used_h, found.total_h) == (1.5, 30.0)
    assert found.refresh.startswith("20")


@pytest.mark.parametrize("auth", ["legacy", "token"])
def test_owner_is_the_user_of_the_login(kaggle: KaggleStandin, tmp_path: Path, auth: str) -> None:
    client = new_client(kaggle_env(kaggle, tmp_path / "home", auth=auth))
    assert client.owner() == client.owner() == "tester"
    assert len(kaggle.requests) == (auth == "token")  # asked once


def test_owner_is_read_from_the_chosen_config_folder(kaggle: KaggleStandin, tmp_path: Path) -> None:
    env = kaggle_env(kaggle, tmp_path / "home", auth="none")
    env["KAGGLE_CONFIG_DIR"] = str(tmp_path / "chosen")
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "kaggle.json").write_text('{"username": "tester", "key": "0123456789abcdef"}')
    assert new_client(env).owner() == "tester"


def test_client_that_announces_a_newer_version_and_a_readable_key_are_read_alike(tmp_path: Path) -> None:
    with KaggleStandin(tmp_path / "platform", newest_client="99.0.0") as kaggle:
        kaggle.add_dataset("tester/x-data", {"a": b"1"})
        env = kaggle_env(kaggle, tmp_path / "home", auth="none")
        key = tmp_path / "home" / ".kaggle" / "kaggle.json"
        key.write_text(json.dumps({"username": "tester", "key": kaggle.rules.key}))
        key.chmod(0o644)  # the client warns on stdout
        assert new_client(env).dataset_version("tester/x-data") == 1


def test_secrets_are_taken_out_of_any_text(tmp_path: Path) -> None:
    home = tmp_path / ".kaggle"
    home.mkdir()
    (home / "kaggle.json").write_text('{"username": "u", "key": "planted-in-the-file"}')
    (home / "access_token").write_text("planted-as-token\n")
    said: list[str] = []
    client = KaggleClient(
        {"HOME": str(tmp_path), "KAGGLE_KEY": "planted-in-the-environment"}, say=said.append
    )
    client._say(
        "planted-in-the-file planted-as-token planted-in-the-environment Bearer abc https://u:pw@h/p?sig=s"
    )
    assert said == ["*** *** *** Bearer *** https://***@h/p?***"]


def test_notebook_is_measured_as_the_client_sends_it(tmp_path: Path) -> None:
    """Outputs do not count; a letter beyond ASCII counts six."""
    folder = write_kernel(tmp_path / "kernel", "tester/x-train", ["x = 1"])
    notebook = notebook_of(["x = 1"])
    notebook["cells"][0]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "y" * 10**6}]
    (folder / "kernel.ipynb").write_text(json.dumps(notebook))
    assert kaggle_client._checked_kernel(folder)["id"] == "tester/x-train"
    notebook["cells"][0]["source"] = ["é" * 75_000, "é" * 75_000]
    (folder / "kernel.ipynb").write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(KaggleError, match=says("900,000 bytes")):
        kaggle_client._checked_kernel(folder)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", []),
        ('[{"data": "a"}\n,{"data": "b"}\n]\n', ["a", "b"]),
        ('Warning: readable by others\n[{"data": "a {"},{"data": "b"}]', ["a {", "b"]),
        ('{"data": "a"}\n{"da\n{"data": "b"}\n', ["a", "b"]),
    ],
)
def test_log_is_read_as_a_list_or_as_lines(text: str, data: list[str]) -> None:
    assert [record["data"] for record in kaggle_client._log_records(text)] == data


def test_quota_table_without_a_gpu_row_is_unknown() -> None:
    rows = [{"resource": "GPU", "used": "1.25h", "total": "30.00h", "refreshAt": "2026-10-10T00:00:00"}]
    assert kaggle_client._gpu_quota(json.dumps(rows)) == Quota(1.25, 30.0, "2026-10-10T00:00:00")
    assert kaggle_client._gpu_quota(json.dumps([{"resource": "TPU"}])) is None


@pytest.mark.parametrize(
    ("source", "short"),
    [("tester/x-data", "tester/x-data"), ("datasets/tester/x-data/3", "tester/x-data"), ("/code/t/k", "t/k")],
)
def test_source_is_compared_without_prefix_and_version(source: str, short: str) -> None:
    assert kaggle_client._short(source) == short
