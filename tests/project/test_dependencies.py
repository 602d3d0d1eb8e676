"""The lock holds what the short files ask for, with hashes; licences are listed; an audit that sees nothing says so."""

import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from tests.support import told

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / ".ci" / "dependencies.py"))
IMAGES = TOOL["IMAGES"]
each_image = pytest.mark.parametrize("image", IMAGES)


def asked_for(image):
    """Name -> pin or '' of every line of the locked files, as the image's constraints complete them."""
    lines = [
        line for name in TOOL["LOCKED"] for line in (ROOT / "requirements" / name).read_text().splitlines()
    ]
    named = [
        re.match(r"([A-Za-z0-9_.-]+)(?:==(\S+))?", line) for line in lines if not line.startswith(("#", "-r"))
    ]
    pins = {match[1].lower(): match[2] or "" for match in named if match}
    constraints = dict(
        re.findall(r"^([a-z0-9_.-]+)==(\S+)", (ROOT / "requirements" / f"{image}.txt").read_text(), re.M)
    )
    return {name: pin or constraints[name] for name, pin in pins.items()}


@each_image
def test_the_lock_has_every_requirement_at_its_pin(image):
    found = {name.lower(): version for name, version in TOOL["locked"](image)}
    wanted = asked_for(image)
    assert len(wanted) > 20
    assert {name: found.get(name) for name in wanted} == wanted


@each_image
def test_every_locked_package_has_hashes_and_torch_is_apart(image):
    entries = re.split(r"\n(?=\S)", TOOL["lock_path"](image).read_text().strip())
    assert len(entries) > 100
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry[:60]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]
    assert not [entry for entry in entries if entry.startswith(("torch==", "nvidia"))]


def test_every_locked_package_has_its_licence_listed():
    table = TOOL["PAGE"].read_text(encoding="utf-8").split(TOOL["TABLE"])[1]
    rows = {row.split(" | ")[0].removeprefix("| "): row for row in table.splitlines()}
    assert rows.keys() == {name for image in IMAGES for name, _ in TOOL["locked"](image)} | {"torch"}
    assert "BSD" in rows["numpy"]
    assert "MIT" in rows["pytest"]


KNOWN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answers", "status", "named"),
    [
        ([[KNOWN]], 0, ("1 packages", "0 vulnerable", "0 not known")),
        ([[KNOWN, BAD]], 1, ("b 2", "PYSEC-1")),
        ([[KNOWN, SKIPPED]], 2, ("1 not known", "c")),
        ([[SKIPPED], None], 2, ("nothing",)),
        ([None, [KNOWN]], 0, ("osv", "1 packages")),
        ([None, None], 2, ("osv", "cannot resolve")),
    ],
)
def test_an_audit_is_clean_only_if_everything_was_looked_up(monkeypatch, capsys, answers, status, named):
    waiting = iter(answers)

    def pip_audit(command, **_):
        found = next(waiting)
        out = json.dumps({"dependencies": found}) if found else ""
        return subprocess.CompletedProcess(command, 0, out, "cannot resolve")

    monkeypatch.setattr(subprocess, "run", pip_audit)
    assert TOOL["audit"](IMAGES[-1]) == status
    assert told(capsys.readouterr().out, *named)
