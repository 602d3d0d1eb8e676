"""Nothing of the machine that ran is in any output: no path, host, user, or variable of the environment."""

import socket
import zipfile
from pathlib import Path

import pytest

from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data
from tests.crash import trainer

SECRET = "a-secret-of-the-environment"


def texts(path):
    """Yield the bytes of a file, and of every member if it is an archive."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                yield member.filename.encode() + str(member.date_time).encode() + archive.read(member)


@pytest.mark.slow
def test_outputs_name_no_path_host_user_or_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    monkeypatch.setenv("HOSTNAME", "a-host-of-the-environment")
    monkeypatch.setenv("USER", "a-user-of-the-environment")
    folder = tmp_path / "a-folder-of-this-machine"
    folder.mkdir()
    h5 = folder / "processed_data.h5"
    write_processed(make_data(1600), h5)
    trainer(h5, folder / "out", whole=True)()
    words = [SECRET, "a-host-of-the", "a-user-of-the", "a-folder-of-this", str(tmp_path), str(Path.cwd())]
    words += [
        name for name in (socket.gethostname(),) if len(name) > 8 and not name.isalpha()
    ]  # localhost is a word
    needles = [word.encode(coding) for word in words for coding in ("utf-8", "utf-16-le")]
    paths = [p for p in (folder / "out").rglob("*") if p.is_file()] + [h5]
    assert {"report.html", "models.zip", "agent_1_final.pt", "trainer_a.state"} <= {p.name for p in paths}
    found = [(p.name, needle) for p in paths for text in texts(p) for needle in needles if needle in text]
    assert found == []
