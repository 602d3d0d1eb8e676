"""What pyproject.toml admits is what the images have and the README says was run."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADMITTED = {found.name: found for found in map(Requirement, PROJECT["dependencies"])}
TOOL = runpy.run_path(str(ROOT / ".ci" / "dependencies.py"))
SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").split("## Versions that were run\n")[1].split("\n## ")[0]
)


def bound(name, operator):
    """The one version that follows `operator` in pyproject.toml's line of a package."""
    (version,) = [part.version for part in ADMITTED[name].specifier if part.operator == operator]
    return Version(version)


def image_pins(image):
    text = (ROOT / "requirements" / f"{image}.txt").read_text(encoding="utf-8")
    return {name: Version(version) for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def table():
    """Rows of the README's table: column -> cell."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in SECTION.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(head, row, strict=True)) for row in rows]


SHOWN = sorted(table()[0].keys() & ADMITTED.keys())


@pytest.mark.parametrize("name", sorted(ADMITTED))
def test_every_dependency_has_a_floor_and_a_major_version_as_ceiling(name):
    assert bound(name, ">=") < bound(name, "<") == Version(str(bound(name, "<").major))


@pytest.mark.parametrize("image", TOOL["IMAGES"])
def test_an_image_s_pins_are_admitted(image):
    pins = image_pins(image)
    assert {"numpy", "pandas", "scipy"} <= pins.keys() & ADMITTED.keys()
    for name in pins.keys() & ADMITTED.keys():
        assert pins[name] in ADMITTED[name].specifier, name


@pytest.mark.parametrize("name", SHOWN)
def test_the_ceiling_is_the_major_version_after_the_newest_that_was_run(name):
    newest = max(Version(row[name]) for row in table())
    assert bound(name, "<") == Version(str(newest.major + 1))


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "torch"])
def test_the_floor_is_the_older_image_s_version(name):
    oldest = min(image_pins(image)[name] for image in TOOL["IMAGES"])
    assert bound(name, ">=").release == oldest.release[:2]


def test_torch_s_floor_is_the_lowest_that_was_run():
    assert bound("torch", ">=").release == min(Version(row["torch"]).release for row in table())[:2]


@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row['Python']} {row['torch']} {row['pandas']}")
def test_what_was_run_is_admitted(row):
    for name in row.keys() & ADMITTED.keys():
        assert Version(row[name]).public in ADMITTED[name].specifier, name
    assert Version(row["Python"]).release[:2] >= (3, 11)
    assert PROJECT["requires-python"] == ">=3.11"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])


def test_the_table_has_every_python_and_both_images():
    pythons = {Version(row["Python"]).release[:2] for row in table()}
    assert pythons == {(3, 11), (3, 12), (3, 13)}
    for image in TOOL["IMAGES"]:
        pins = image_pins(image)
        shown = pins.keys() & table()[0].keys()
        assert {"numpy", "pandas", "numba"} <= shown
        assert any(all(Version(row[name]) == pins[name] for name in shown) for row in table()), image


def test_bounds_are_written_as_constraints(capsys):
    assert TOOL["bounds"]() == 0
    assert capsys.readouterr().out.splitlines() == PROJECT["dependencies"]
