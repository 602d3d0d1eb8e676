"""Wheels for the image's gaps: pinned by hash, cached, and used in the kernel without pip or internet."""

import io
import json
import subprocess
import sys
import zipfile

import pytest

from sac_kernel.core import files, paths
from sac_kernel.core import packages as run_packages
from sac_kernel.kaggle import wheels
from tests.support import told

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"


def make_wheel(package="tinypackage", tag=TAG, value=7):
    content = io.BytesIO()
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(f"{package}/__init__.py", f"VALUE = {value}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL",
            f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}-{tag}-manylinux2014_x86_64\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return f"{package}-1.0-{tag}-{tag}-manylinux2014_x86_64.whl", content.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes wheels from; the suite allows no other source."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_wheels_are_fetched_once_and_then_come_from_the_cache(index, tmp_path):
    wanted = {}
    for tag in ("cp312", "cp313"):
        name, content = make_wheel(tag=tag)
        (index / name).write_bytes(content)
        wanted[name] = files.sha256(content)
    cache = tmp_path / "cache"
    found, missing = wheels.fetch_wheels(cache, wanted)
    assert [path.name for path in found] == list(wanted)
    assert missing == []
    for name in wanted:
        (index / name).unlink()
    assert wheels.fetch_wheels(cache, wanted) == (found, [])


def test_another_file_under_the_pinned_name_is_never_kept(index, tmp_path):
    name, content = make_wheel()
    (index / name).write_bytes(make_wheel(value=666)[1])
    found, missing = wheels.fetch_wheels(tmp_path / "cache", {name: files.sha256(content)})
    assert (found, missing) == ([], [name])
    assert not list((tmp_path / "cache").glob("*"))


def test_a_damaged_cache_is_fetched_again(index, tmp_path):
    name, content = make_wheel()
    (index / name).write_bytes(content)
    (tmp_path / name).write_bytes(content[:-10])
    found, _ = wheels.fetch_wheels(tmp_path, {name: files.sha256(content)})
    assert found[0].read_bytes() == content


def test_offline_the_missing_parts_are_named(index, tmp_path):
    found, missing = wheels.fetch_wheels(tmp_path / "cache")
    assert found == []
    assert missing == list(wheels.WHEELS)
    arch, hmmlearn = wheels.switched_off(missing)
    assert told(arch, "arch", "SPA")
    assert told(hmmlearn, "hmmlearn", "agent 3")


def test_both_pythons_of_the_images_have_every_wheel():
    packages = {(name.split("-")[0], name.split("-")[2]) for name in wheels.WHEELS}
    assert packages == {(p, t) for p in ("arch", "hmmlearn") for t in ("cp312", "cp313")}
    assert all(len(digest) == 64 for digest in wheels.WHEELS.values())


USE = "from sac_kernel.core import packages; print(packages.add_wheels()); import tinypackage; print(tinypackage.VALUE)"


def mount(tmp_path, monkeypatch, tag=TAG, damaged=False):
    name, content = make_wheel(tag=tag)
    folder = tmp_path / "input" / "datasets" / "someone" / "x-code"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content[:-1] if damaged else content)
    manifest = {"wheels": {name: files.sha256(content)}}
    (folder / paths.CODE_MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))


def test_a_kernel_imports_what_only_a_wheel_has(tmp_path, monkeypatch):
    mount(tmp_path, monkeypatch)
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["{'tinypackage': 'from a wheel'}", "7"]


def test_a_wheel_that_is_not_the_published_one_is_not_used(tmp_path, monkeypatch):
    mount(tmp_path, monkeypatch, damaged=True)
    (said,) = run_packages.add_wheels().values()
    assert "from a wheel" not in said


def test_a_wheel_for_another_python_is_left_alone(tmp_path, monkeypatch):
    mount(tmp_path, monkeypatch, tag="cp27")
    assert told(run_packages.add_wheels()["tinypackage"], "Python 3.")


def test_without_inputs_nothing_is_added(monkeypatch):
    monkeypatch.delenv("SAC_INPUT_ROOT", raising=False)
    assert run_packages.add_wheels() == {}
