"""Wheels for the image's gaps: pinned by hash, cached, and used in the kernel without pip or internet."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sac_kernel.core import files, paths
from sac_kernel.core import packages as run_packages
from sac_kernel.kaggle import wheels
from tests.support import told

ROOT = Path(__file__).resolve().parents[2]
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


USE = """
import sys
from sac_kernel.core import packages
print(packages.add_wheels(sys.argv[1:]))
import tinypackage
print(tinypackage.VALUE)
print(packages.worker_path())
"""


def mount(tmp_path, monkeypatch, owner="someone", value=7, **more):
    """Mount a wheel; return its entry of `expect_files`."""
    name, content = make_wheel(value=value, **more)
    folder = tmp_path / "input" / "datasets" / owner / "x-code"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    (folder / paths.CODE_MANIFEST).write_text(json.dumps({"wheels": {name: files.sha256(content)}}))
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    return f"{name} {files.sha256(content)}"


def use(*entries):
    """Return what a kernel prints that adds the wheels and imports the package, and whether it could."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE, *entries],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout.splitlines()


def test_a_kernel_imports_what_only_a_wheel_has_and_leaves_no_folder(tmp_path, monkeypatch):
    done, (status, value, path) = use(mount(tmp_path, monkeypatch))
    assert done
    assert (status, value) == ("{'tinypackage': 'from a wheel'}", "7")
    package, unpacked = path.split(os.pathsep)  # what a worker process gets
    assert package == str(ROOT)
    assert not Path(unpacked).exists()


@pytest.mark.parametrize("rogue", ["aaa", "zzz"])
def test_of_two_mounted_wheels_the_one_with_the_hash_is_used_whoever_vouches_for_the_other(
    tmp_path, monkeypatch, rogue
):
    right = mount(tmp_path, monkeypatch, owner="me")
    mount(tmp_path, monkeypatch, owner=rogue, value=666)  # with a manifest of its own
    done, lines = use(right)
    assert (done, lines[1]) == (True, "7")


def test_a_wheel_that_the_notebook_does_not_name_is_not_used(tmp_path, monkeypatch):
    wrong = mount(tmp_path, monkeypatch, owner="rogue", value=666)
    assert use() == (False, ["{}"])
    done, lines = use(f"{wrong.split()[0]} {'0' * 64}")
    assert not done
    assert told(lines[0], "x-code", wrong.split()[1][:12])


def test_a_renamed_wheel_is_known_by_its_hash(tmp_path, monkeypatch):
    entry = mount(tmp_path, monkeypatch)
    (path,) = (tmp_path / "input").rglob("*.whl")
    path.rename(path.with_name("renamed.whl"))
    assert use(entry)[0]


def test_a_wheel_for_another_python_is_left_alone(tmp_path, monkeypatch):
    entry = mount(tmp_path, monkeypatch, tag="cp27")
    assert told(run_packages.add_wheels([entry])["tinypackage"], "Python 3.")


def test_without_inputs_nothing_is_added(monkeypatch):
    monkeypatch.delenv("SAC_INPUT_ROOT", raising=False)
    assert run_packages.add_wheels([f"{make_wheel()[0]} {'0' * 64}"]) == {}
