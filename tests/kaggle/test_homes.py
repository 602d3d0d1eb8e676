"""Every name has its own folders: older layouts, two names, second commands, odd paths and full disks."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sac_kernel.core import homes, interrupts, locks
from sac_kernel.core.errors import ConfigError, StorageError
from sac_kernel.experiment import output_layout
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.kaggle import rehearsal
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_bars, make_data
from tests.kaggle.test_build_kernel import build_here, contents, copy_of_the_repository
from tests.support import says, told

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    folder = copy_of_the_repository(tmp_path / "clone")
    write_processed(make_data(1600), folder / "data" / "processed" / "processed_data.h5")
    return folder


@pytest.fixture
def csv(tmp_path):
    make_bars(1600, seed=5).rename_axis("time").to_csv(tmp_path / "eurusd.csv")
    return tmp_path / "eurusd.csv"


def test_two_names_share_neither_build_nor_bars(clone, csv, monkeypatch):
    assert build_here(clone, monkeypatch) == 0
    before = contents(clone / "build" / "sac-trading"), contents(clone / "data" / "processed")
    metadata = (clone / "kernel-metadata.json").read_bytes()
    assert build_here(clone, monkeypatch, "--name", "exp-b", "--data", csv, "--price-side", "bid") == 0
    assert (contents(clone / "build" / "sac-trading"), contents(clone / "data" / "processed")) == before
    assert (clone / "kernel-metadata.json").read_bytes() == metadata
    own = json.loads((clone / "build" / "exp-b" / "kernel-metadata.json").read_text())
    assert (own["code_file"], own["id"]) == ("train.ipynb", "INSERT_OWNER/exp-b-train")
    bars = read_processed(clone / "data" / "exp-b" / "processed_data.h5").content_hash
    assert build_here(clone, monkeypatch, "--name", "exp-b") == 0  # its own bars, without being told
    staged = clone / "build" / "exp-b" / "datasets" / "data" / "processed_data.h5"
    assert read_processed(staged).content_hash == bars
    assert bars != read_processed(clone / "data" / "processed" / "processed_data.h5").content_hash


def test_a_notebook_names_its_run_and_its_own_hash(clone, monkeypatch):
    assert build_here(clone, monkeypatch) == 0
    notebook = (clone / "build" / "sac-trading" / "train.ipynb").read_text(encoding="utf-8")
    cells = json.loads(notebook)["cells"]
    (cell,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    values = {}
    exec("".join(cell["source"]), values)
    assert values["run_id"].startswith("sac-trading-")
    assert len(values["notebook_hash"]) == 64


def test_an_older_layout_moves_to_its_home_once(clone, monkeypatch, capsys):
    build = clone / "build"
    (build / "rehearsal" / "working").mkdir(parents=True)
    (build / "rehearsal" / "working" / "agent_1_final.pt").write_bytes(b"agent")
    (build / "datasets").mkdir()
    (build / "train.ipynb").write_text("{}")
    last = {
        "kernel": "me/sac-trading-train",
        "parameters": {},
        "fetched": True,
        "fresh": False,
        "outputs": "",
    }
    (build / "last_run.json").write_text(json.dumps(last))
    assert build_here(clone, monkeypatch, "--name", "other-one") == 0
    assert (build / "rehearsal").is_dir()  # another name's
    capsys.readouterr()
    assert build_here(clone, monkeypatch) == 0
    assert told(capsys.readouterr().out, "last_run.json", "build/sac-trading/")
    assert json.loads((build / "sac-trading" / "last_run.json").read_text()) == last
    assert (build / "sac-trading" / "rehearsal" / "working" / "agent_1_final.pt").read_bytes() == b"agent"
    assert sorted(p.name for p in build.iterdir() if p.name != "wheels") == ["other-one", "sac-trading"]
    assert build_here(clone, monkeypatch) == 0
    assert "moved" not in capsys.readouterr().out


def test_a_second_command_of_the_same_name_is_refused_and_another_name_is_not(clone, monkeypatch, capsys):
    held, release = threading.Event(), threading.Event()

    def hold():
        with locks.hold(clone / "build" / "sac-trading"):
            held.set()
            release.wait(300)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        assert build_here(clone, monkeypatch) == 2
        assert told(capsys.readouterr().err, "BusyError", os.getpid())
        assert build_here(clone, monkeypatch, "--name", "other-one") == 0
    finally:
        release.set()
        thread.join()
    assert build_here(clone, monkeypatch) == 0


@pytest.mark.parametrize("name", ["previous", "checkpoints", "runs"])
def test_a_name_that_is_a_folder_of_outputs_is_refused(name):
    with pytest.raises(ConfigError, match=says("--name", name)):
        homes.check_name(name)


def test_a_full_disk_while_staging_is_one_plain_error_and_the_next_build_works(clone, monkeypatch, capsys):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    weights = clone / "build" / "sac-trading" / "warm_start.agent"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"agent")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        assert build_here(clone, patch) == 2
    said = capsys.readouterr().err
    assert told(said, "StorageError", "warm_start.agent", os.strerror(errno.ENOSPC))
    assert "Traceback" not in said
    assert build_here(clone, monkeypatch) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows file names that are not valid UTF-8")
def test_a_file_name_that_is_no_utf_8_is_refused_in_plain_words(clone, csv, monkeypatch, capsys):
    odd = csv.with_name(os.fsdecode(b"eur\xff.csv"))
    csv.rename(odd)
    before = contents(clone / "data")
    assert build_here(clone, monkeypatch, "--data", odd, "--price-side", "bid") == 2
    assert told(capsys.readouterr().err, "ConfigError", "UTF-8", "eur")
    assert contents(clone / "data") == before


def test_a_name_too_long_for_the_system_is_one_plain_error(clone, monkeypatch, capsys):
    assert build_here(clone, monkeypatch, "--data", "x" * 400 + ".csv", "--price-side", "bid") == 2
    assert "Traceback" not in capsys.readouterr().err


# -- previous/


def outputs(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent_1_final.pt").write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"run": "a-run", "text": text}))


def test_previous_keeps_every_run_even_of_the_same_id(tmp_path):
    for text in ("one", "two", "three"):
        outputs(tmp_path, text)
        output_layout.move_to_previous(tmp_path)
    kept = {p.name: (p / "agent_1_final.pt").read_text() for p in (tmp_path / "previous").iterdir()}
    assert kept == {"a-run": "one", "a-run-2": "two", "a-run-3": "three"}
    assert output_layout.move_to_previous(tmp_path) is None


def test_a_previous_of_an_older_version_gets_a_folder_of_its_own(tmp_path):
    outputs(tmp_path / "previous", "oldest")
    outputs(tmp_path, "newer")
    output_layout.move_to_previous(tmp_path)
    kept = {p.name: (p / "agent_1_final.pt").read_text() for p in (tmp_path / "previous").iterdir()}
    assert kept == {"a-run": "oldest", "a-run-2": "newer"}


@pytest.mark.skipif(
    os.name != "posix", reason="this test makes a symbolic link, which this system may not allow"
)
def test_previous_may_be_a_link_to_another_disk(tmp_path, monkeypatch):
    outputs(tmp_path / "out", "one")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out" / "previous").symlink_to(tmp_path / "disk")
    rename = type(tmp_path).rename

    def across(self, target):
        if (tmp_path / "disk").resolve() == target.parent.resolve() and self.name == "previous.moving":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", across)
    output_layout.move_to_previous(tmp_path / "out")
    assert (tmp_path / "disk" / "a-run" / "agent_1_final.pt").read_text() == "one"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["previous"]


@pytest.mark.skipif(
    os.name != "posix", reason="this test makes a symbolic link, which this system may not allow"
)
def test_a_previous_that_leads_nowhere_loses_nothing(tmp_path):
    outputs(tmp_path, "one")
    (tmp_path / "previous").symlink_to(tmp_path / "gone")
    with pytest.raises(StorageError, match=says("previous")):
        output_layout.move_to_previous(tmp_path)
    (tmp_path / "previous").unlink()
    output_layout.move_to_previous(tmp_path)
    assert (tmp_path / "previous" / "a-run" / "agent_1_final.pt").read_text() == "one"


# -- rehearsals


def test_a_short_rehearsal_of_many_seeds_is_estimated_at_full_length():
    parameters = {
        "seeds": [0, 1, 2, 3, 4, 5],
        "num_episodes": 8,
        "eval_frequency": 2,
        "checkpoint_frequency": 2,
    }
    config = rehearsal.full_run(parameters)
    assert (config.num_episodes, len(config.jobs)) == (RunConfig.num_episodes, 6)


@pytest.mark.notebook
def test_a_folder_with_braces_and_accents_is_no_template(tmp_path):
    folder = tmp_path / "{z} à moi"
    folder.mkdir()
    notebook = {
        "cells": [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [],
                   "source": "open('here', 'w').close()"}],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    (folder / "built.ipynb").write_text(json.dumps(notebook))
    done = rehearsal.rehearse(folder / "built.ipynb", folder / "r", {})
    assert (done.working / "here").is_file()
    assert done.html.is_file()
    assert not interrupts.requested.is_set()


@pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("git")), reason="this system has no make or git"
)
def test_make_clean_keeps_models_and_what_a_run_resumes_from(tmp_path):
    kept = ("outputs/agent.pt", "outputs/state/state.json", "build/a/last_run.json", "kernel-metadata.json")
    gone = ("build/a/datasets/data/bars.h5", "build/a/train.ipynb", "build/wheels/w.whl")
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    for words in (["git", "init", "-q"], ["git", "add", "kernel-metadata.json"], ["make", "clean"]):
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in gone if (tmp_path / name).exists()] == []
