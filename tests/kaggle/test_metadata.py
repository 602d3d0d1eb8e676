"""Kernel and dataset metadata: the constants, the slug rules, and the real client's own checks."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel.kaggle.kernel_notebook import build_notebook, client_text_bytes

ROOT = Path(__file__).resolve().parents[2]
KERNEL = json.loads((ROOT / "kernel-metadata.json").read_text("utf-8"))
DATASET = json.loads((ROOT / "dataset-metadata.json").read_text("utf-8"))
needs_client = pytest.mark.skipif(
    importlib.util.find_spec("kaggle") is None, reason="the kaggle client is not installed"
)


def slug_of(title):
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


# -- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "INSERT_OWNER/sac-trading-train"),
        ("title", "sac trading train"),
        ("code_file", "build/sac-trading/train.ipynb"),
        ("language", "python"),
        ("kernel_type", "notebook"),
        ("is_private", True),
        ("enable_gpu", True),
        ("enable_tpu", False),
        ("enable_internet", False),  # left out, the client would turn it on
        ("machine_shape", "NvidiaTeslaT4"),  # left out, Kaggle chose a card that torch has no code for
        ("competition_sources", []),
        ("kernel_sources", []),
        ("model_sources", []),
        ("keywords", []),
    ],
)
def test_kernel_metadata_is_a_private_gpu_notebook_without_internet(field, value):
    assert KERNEL[field] == value
    assert type(KERNEL[field]) is type(value)


def test_kernel_reads_the_projects_own_datasets():
    sources = KERNEL["dataset_sources"]
    assert {"INSERT_OWNER/sac-trading-data", "INSERT_OWNER/sac-trading-code"} <= set(sources)
    assert all(re.fullmatch(r"INSERT_OWNER/sac-trading-(data|code|state)", s) for s in sources)
    # A kernel whose slug is that of one of the owner's datasets is refused by the server.
    assert KERNEL["id"] not in sources


@pytest.mark.parametrize("metadata", [KERNEL, DATASET], ids=["kernel", "dataset"])
def test_slug_is_the_title_in_lower_case_ascii_and_single_hyphens(metadata):
    slug = metadata["id"].split("/")[1]
    assert slug == slug_of(metadata["title"])
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert 6 <= len(slug) <= 50
    assert 6 <= len(metadata["title"]) <= 50


def test_dataset_template_has_one_licence_and_cannot_be_uploaded_by_mistake():
    assert DATASET["id"] == "INSERT_OWNER/sac-trading-data"
    assert DATASET["licenses"] == [{"name": "other"}]
    assert "resources" not in DATASET


def test_no_real_owner_is_tracked():
    for name in ("kernel-metadata.json", "dataset-metadata.json"):
        text = (ROOT / name).read_text("utf-8")
        owners = re.findall(r'"([^"/\s]+)/sac-trading-[a-z]+"', text)
        assert owners
        assert set(owners) == {"INSERT_OWNER"}


# -- the client ----------------------------------------------------------------------------------

# Everything the client does up to the request, which is caught instead of sent. Importing the package logs
# in, so this runs in a process of its own with made-up credentials, a private home and a closed proxy.
CLIENT = """
import contextlib, io, json, sys

said = io.StringIO()
with contextlib.redirect_stdout(said):
    from kaggle.api.kaggle_api_extended import KaggleApi, slugify

class Sent(Exception):
    pass

class Catcher:
    def __enter__(self):
        return self
    def __exit__(self, *_):
        return False
    @property
    def kernels(self):
        return self
    kernels_api_client = kernels
    def save_kernel(self, request):
        raise Sent(request)

api = KaggleApi()
api.config_values = {"username": "tester"}
api.build_kaggle_client = Catcher

def no_network(ref, *args, **kwargs):
    raise Sent(ref)

api.dataset_status = no_network
result = {"slugs": [slugify(title) for title in json.loads(sys.argv[2])]}
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said):
        {"kernel": api.kernels_push, "dataset": api.dataset_create_new}[sys.argv[1]](sys.argv[3])
except Sent as caught:
    request = caught.args[0]
    names = ("slug", "new_title", "text", "language", "kernel_type", "is_private", "enable_gpu",
             "enable_internet", "machine_shape", "dataset_data_sources")
    sent = {n: getattr(request, n) for n in names} if sys.argv[1] == "kernel" else request
    result["sent"] = sent
except ValueError as err:
    result["error"] = str(err)
result["said"] = said.getvalue()
print(json.dumps(result))
"""


def client(kind, folder, titles=()):
    home = folder / "home"
    home.mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE_", "XDG_"))}
    env |= {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(home), "TEMP": str(home)}
    env |= {"KAGGLE_USERNAME": "tester", "KAGGLE_KEY": "0" * 32}
    closed = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    env |= dict.fromkeys(closed, "http://127.0.0.1:9")
    env |= {"no_proxy": "", "NO_PROXY": ""}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, kind, json.dumps(list(titles)), str(folder)],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """What the client would send for the filled-in metadata and a built notebook."""
    folder = tmp_path_factory.mktemp("push")
    text = json.dumps(KERNEL).replace("INSERT_OWNER", "tester")
    (folder / "kernel-metadata.json").write_text(text)
    (folder / "build" / "sac-trading").mkdir(parents=True)
    notebook = build_notebook(ROOT / "notebooks" / "train.ipynb", ROOT / "sac_kernel", {}, "0" * 64)
    (folder / "build" / "sac-trading" / "train.ipynb").write_text(notebook, encoding="utf-8")
    return client("kernel", folder, [KERNEL["title"], DATASET["title"]]), notebook


@needs_client
def test_the_client_accepts_the_kernel_without_a_word_and_sends_what_was_meant(pushed):
    result, _ = pushed
    assert "error" not in result
    assert result["said"] == ""  # it would warn of a title that does not resolve to the slug
    sent = {name: value for name, value in result["sent"].items() if name != "text"}
    assert sent == {
        "slug": "tester/sac-trading-train",
        "new_title": "sac trading train",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "dataset_data_sources": [s.replace("INSERT_OWNER", "tester") for s in KERNEL["dataset_sources"]],
    }


@needs_client
def test_the_clients_slug_of_each_title_is_ours(pushed):
    result, _ = pushed
    assert result["slugs"] == [KERNEL["id"].split("/")[1], DATASET["id"].split("/")[1]]


@needs_client
def test_the_text_sent_is_as_large_as_the_build_says_and_under_the_limit(pushed):
    result, notebook = pushed
    assert len(result["sent"]["text"].encode()) == client_text_bytes(notebook) < 900_000


@needs_client
def test_the_client_accepts_the_filled_in_dataset(tmp_path):
    text = json.dumps(DATASET).replace("INSERT_OWNER", "tester")
    (tmp_path / "dataset-metadata.json").write_text(text)
    (tmp_path / "processed_data.h5").write_bytes(b"bars")
    result = client("dataset", tmp_path)
    assert result["sent"] == "tester/sac-trading-data"  # past every check, at the first request
