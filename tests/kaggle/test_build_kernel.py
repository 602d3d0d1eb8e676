"""The bundler's command, run in a copy of the repository: what it makes, refuses and never touches."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sac_kernel import MODULES
from sac_kernel.core import files
from sac_kernel.kaggle import wheels
from sac_kernel.kaggle.client import KaggleClient
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_bars, make_data
from tests.kaggle_standin import client_python
from tests.support import told

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("build_kernel.py", "kernel-metadata.json", "dataset-metadata.json")
CREDENTIALS = ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR")
FEW_BARS = ("--set", "env_horizon=500")  # the default is longer than the bars here
SECRET = "5ec2e7000000deadbeef00000000cafe"


def copy_of_the_repository(folder):
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("sac_kernel", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in COPIED:
        shutil.copy(ROOT / name, folder / name)
    return folder


def build(folder, *flags, **environment):
    """Run build_kernel.py without credentials or a network to reach."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if k not in CREDENTIALS and not k.startswith("XDG_")}
    env |= {"HOME": str(home), "USERPROFILE": str(home), "OMP_NUM_THREADS": "1"}
    env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, "build_kernel.py", *map(str, flags), *FEW_BARS]
    return subprocess.run(command, cwd=folder, env={**env, **environment}, capture_output=True, text=True)


def build_here(folder, monkeypatch, *flags, **environment):
    """The same in this process, which is quicker: the copy's own build_kernel.main(), and no wheels."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    for name, value in {**proxies, "HOME": str(home), "USERPROFILE": str(home), **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    spec = importlib.util.spec_from_file_location("build_kernel_of_a_copy", folder / "build_kernel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(wheels, "fetch_wheels", lambda _: ([], []))
    module.KaggleClient = functools.partial(KaggleClient, python=client_python())
    return module.main([*map(str, flags), *FEW_BARS])


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "eurusd.csv"
    bars = make_bars(1600).rename_axis("time")
    bars.to_csv(path)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory, csv):
    """A clone in a folder with blanks and accents, built from a CSV."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("c") / "mon dépôt à moi")
    done = build(folder, "--data", csv, "--price-side", "bid", "--set", "num_episodes=50")
    return folder, done


def test_a_build_without_credentials_says_what_it_did_not_do_and_exits_0(built):
    _, done = built
    assert done.returncode == 0, done.stderr
    assert told(done.stdout, "published", "credentials", "num_episodes = 50")
    assert "Traceback" not in done.stderr


def test_a_build_makes_the_notebook_and_both_datasets_flat(built):
    folder, _ = built
    found = sorted(p.as_posix() for p in contents(folder / "build" / "sac-trading"))
    expected = ["datasets/code/__init__.py", "datasets/code/code_manifest.json"]
    expected += [f"datasets/code/{name}.py" for name in MODULES]
    expected += ["datasets/code/dataset-metadata.json", "datasets/data/dataset-metadata.json"]
    expected += ["datasets/data/processed_data.h5", "train.ipynb"]
    assert set(expected) <= set(found)
    assert not [name for name in found if name.count("/") > 2]


def test_a_build_refreshes_the_processed_file_and_stages_the_same_bars(built):
    folder, _ = built
    local = read_processed(folder / "data" / "processed" / "processed_data.h5")
    staged = read_processed(folder / "build" / "sac-trading" / "datasets" / "data" / "processed_data.h5")
    assert local.content_hash == staged.content_hash
    assert (local.price_side, local.bar_seconds) == ("bid", 3600)


def test_code_dataset_is_a_readable_copy_with_its_hashes(built):
    folder, _ = built
    code = folder / "build" / "sac-trading" / "datasets" / "code"
    manifest = files.read_json(code / "code_manifest.json")
    assert manifest["order"] == list(MODULES)
    for name, digest in manifest["files"].items():
        content = (code / name).read_bytes()
        assert files.sha256(content) == digest
        path = name.removesuffix(".py").replace(".", "/") + ".py"  # the dataset is flat
        assert content == (folder / "sac_kernel" / path).read_bytes()


def test_a_build_leaves_the_tracked_files_alone(built):
    folder, _ = built
    for name in COPIED:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert (folder / "notebooks" / "train.ipynb").read_bytes() == (
        ROOT / "notebooks" / "train.ipynb"
    ).read_bytes()


def test_a_build_in_another_folder_at_another_time_is_byte_identical(built, csv, tmp_path, monkeypatch):
    first, _ = built
    second = copy_of_the_repository(tmp_path / "repo")
    flags = ("--data", csv, "--price-side", "bid", "--set", "num_episodes=50")
    assert build_here(second, monkeypatch, *flags) == 0
    assert contents(second / "build") == contents(first / "build")
    assert not [p for p, c in contents(second / "build").items() if str(tmp_path).encode() in c]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--set", "num_episode=50"], ("'num_episodes'",)),
        (["--set", "num_episodes=True"], ("num_episodes", "int", True)),
        (["--set", "agent_ids=[7]"], ("agent_id", 7)),
        (["--data", "nowhere.csv", "--price-side", "bid"], ("nowhere.csv",)),
        (["--data", "broken.csv", "--price-side", "bid"], ("broken.csv",)),
        (["--data", "broken.h5"], ("broken.h5",)),
        (["--data", "dear.csv"], ("price side",)),
        (["--name", "My_Trading"], ("--name",)),
        # the local file holds hourly EURUSD bids and states all of it
        (["--instrument", "GBPUSD"], ("EURUSD", "--instrument")),
        (["--price-side", "ask"], ("--price-side ask",)),
        (["--clock", "mt-eet"], ("--clock mt-eet",)),
        (["--bar-minutes", "240"], ("--bar-minutes",)),
    ],
)
def test_bad_input_exits_2_and_leaves_the_last_build_and_data_untouched(
    built, csv, flags, named, monkeypatch, capsys
):
    folder, _ = built
    (folder / "broken.csv").write_text("time,open,high,low,close\n2017-01-02,1,2\n")
    (folder / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    shutil.copy(csv, folder / "dear.csv")
    before = contents(folder / "build"), contents(folder / "data")
    assert build_here(folder, monkeypatch, *flags) == 2
    assert told(capsys.readouterr().err, *named)
    assert (contents(folder / "build"), contents(folder / "data")) == before


def test_a_clone_of_its_own_takes_the_local_file_without_flags(tmp_path, monkeypatch):
    folder = copy_of_the_repository(tmp_path / "repo")
    data = make_data(1600, seed=3)
    write_processed(data, folder / "data" / "processed" / "processed_data.h5")
    assert build_here(folder, monkeypatch) == 0
    staged = read_processed(folder / "build" / "sac-trading" / "datasets" / "data" / "processed_data.h5")
    assert staged.content_hash == data.content_hash


def test_the_traded_instrument_of_the_local_file_can_be_changed_and_stays(tmp_path, monkeypatch, capsys):
    folder = copy_of_the_repository(tmp_path / "repo")
    bars = tmp_path / "bars"
    bars.mkdir()
    for seed, name in enumerate(("EURUSD", "GBPUSD")):
        make_bars(1600, seed).rename_axis("time").to_csv(bars / f"{name}.csv")
    assert build_here(folder, monkeypatch, "--data", bars, "--price-side", "bid") == 0
    assert "EURUSD is traded beside GBPUSD" in capsys.readouterr().out
    for flags in (["--instrument", "GBPUSD"], []):
        assert build_here(folder, monkeypatch, *flags) == 0
        assert "GBPUSD is traded beside EURUSD" in capsys.readouterr().out
        for place in ("data/processed", "build/sac-trading/datasets/data"):
            assert read_processed(folder / place / "processed_data.h5").traded == "GBPUSD"


def test_several_instruments_are_traded_at_their_own_costs_and_stay_in_the_next_command(
    tmp_path, monkeypatch, capsys
):
    folder = copy_of_the_repository(tmp_path / "repo")
    bars = tmp_path / "bars"
    bars.mkdir()
    for seed, name in enumerate(("EURUSD", "GBPUSD", "AUDUSD")):
        make_bars(1600, seed).rename_axis("time").to_csv(bars / f"{name}.csv")
    given = ["--data", bars, "--price-side", "bid", "--instruments", "GBPUSD,EURUSD"]
    runs = []
    for pence in (2, 4):
        own = ["--costs", "slippage_bps=0.5", "--costs", f"EURUSD:spread_bps={pence}"]
        assert build_here(folder, monkeypatch, *given, *own) == 0
        said = capsys.readouterr().out
        # GBPUSD: half of .54, .32 and .5 bps; EURUSD: half of its own spread.
        assert told(said, "GBPUSD, EURUSD are traded", "beside AUDUSD", "base 1.09 bps")
        assert told(said, f"base {pence / 2 + 0.32 + 0.5:.3g} bps", "2 times")
        assert "--instruments GBPUSD,EURUSD --rehearse" in said
        notebook = json.loads((folder / "build" / "sac-trading" / "train.ipynb").read_text("utf-8"))
        cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
        lines = "".join(cell["source"]).split("\n")
        assert any(line.startswith('instruments: list[str] = ["GBPUSD", "EURUSD"]') for line in lines)
        runs.append(next(line for line in lines if line.startswith("run_id")))
    assert runs[0] != runs[1]  # only the second instrument's costs differ
    assert read_processed(folder / "data" / "processed" / "processed_data.h5").traded == "GBPUSD"
    assert build_here(folder, monkeypatch, *given, "--instrument", "GBPUSD") == 2
    assert told(capsys.readouterr().err, "--instrument GBPUSD", "--instruments GBPUSD,EURUSD")
    assert build_here(folder, monkeypatch, "--set", "instruments=['GBPUSD', 'NZDUSD']") == 2
    assert told(capsys.readouterr().err, "NZDUSD", "AUDUSD, EURUSD, GBPUSD")
    assert build_here(folder, monkeypatch, "--instruments", "EURUSD") == 0
    assert "EURUSD is traded beside AUDUSD, GBPUSD" in capsys.readouterr().out


def test_another_name_changes_every_dataset_slug(built, tmp_path, monkeypatch):
    folder, _ = built
    copied = tmp_path / "repo"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("__pycache__", "build"))
    assert build_here(copied, monkeypatch, "--name", "mean-reversion") == 0
    for kind in ("data", "code"):
        path = copied / "build" / "mean-reversion" / "datasets" / kind / "dataset-metadata.json"
        metadata = json.loads(path.read_text("utf-8"))
        assert metadata["id"] == f"INSERT_OWNER/mean-reversion-{kind}"
        assert metadata["title"] == f"mean reversion {kind}"


# Without a network nothing can be published, so what it returns is no matter here.
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_secret_never_reaches_the_build(built, tmp_path, place, monkeypatch, capsys):
    folder, _ = built
    copied = tmp_path / "repo"
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("__pycache__", "build"))
    config = tmp_path / "home" / ".kaggle"
    config.mkdir(parents=True)
    text = json.dumps({"username": "somebody", "key": SECRET})
    planted = {
        "environment": {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": SECRET},
        "file": {"KAGGLE_CONFIG_DIR": str(config)},
    }[place]
    (config / "kaggle.json").write_text(text)
    build_here(copied, monkeypatch, "--poll-s", 0.01, **planted)
    assert (copied / "build" / "sac-trading" / "datasets" / "code" / "code_manifest.json").is_file()
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    leaked = [p for p, content in contents(copied).items() if SECRET.encode() in content]
    assert leaked == []
