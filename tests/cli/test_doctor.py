"""The doctor says how each thing stands and ends with 2 if one must be mended."""

import logging
from types import SimpleNamespace

import pytest

from sac_kernel.cli import doctor
from sac_kernel.cli.doctor import MEND, OK, UNKNOWN
from sac_kernel.core.errors import KaggleError
from sac_kernel.kaggle.client import KaggleClient, Quota, is_new_enough
from tests.kaggle_standin import KaggleStandin, client_python, kaggle_env

pytest_plugins = ["tests.kaggle_standin.fixtures"]


def lines_of(env, **changes):
    client = KaggleClient(env, client_python(), poll_s=0.01)
    for name, value in changes.items():
        setattr(client, name, value)
    return {f"{line.name} {i}" if line.name == "dataset" else line.name: line
            for i, line in enumerate(doctor.kaggle(client, env, "x"))}  # fmt: skip


def datasets(lines):
    return [line for name, line in lines.items() if name.startswith("dataset")]


def test_a_login_shows_quota_and_datasets(kaggle: KaggleStandin, tmp_path):
    kaggle.add_dataset("tester/x-data", {"fingerprint.json": b"{}"})
    kaggle.add_dataset("tester/x-code", {"something.txt": b""})
    lines = lines_of(kaggle_env(kaggle, tmp_path / "home"))
    assert lines["client"].state == lines["login"].state == OK
    assert "tester" in lines["login"].found
    data, code, state = datasets(lines)
    assert (data.state, code.state, state.state) == (OK, MEND, OK)
    assert "private" in data.found
    assert "tester/x-code" in code.found


def test_a_public_dataset_must_be_mended(kaggle: KaggleStandin, tmp_path):
    kaggle.add_dataset("tester/x-data", {"fingerprint.json": b"{}"})
    kaggle.datasets["tester/x-data"].private = False
    data = datasets(lines_of(kaggle_env(kaggle, tmp_path / "home")))[0]
    assert data.state == MEND
    assert "settings" in data.remedy


def test_without_credentials_nothing_is_wrong_and_the_rest_is_not_checked(kaggle: KaggleStandin, tmp_path):
    lines = lines_of(kaggle_env(kaggle, tmp_path / "home", auth="none"))
    assert lines["credentials"].state == lines["login"].state == UNKNOWN
    assert datasets(lines) == []
    assert kaggle.requests == []


def test_bad_credentials_must_be_mended(kaggle: KaggleStandin, tmp_path):
    env = kaggle_env(kaggle, tmp_path / "home", auth="none")
    (tmp_path / "home" / ".kaggle" / "kaggle.json").write_text("")
    lines = lines_of(env)
    assert lines["credentials"].state == MEND
    assert "kaggle.json" in lines["credentials"].found
    lines = lines_of({**env, "KAGGLE_API_TOKEN": "wrong-token"})
    assert lines["login"].state == MEND


def test_without_a_network_the_login_is_not_checked(kaggle: KaggleStandin, tmp_path):
    env = kaggle_env(kaggle, tmp_path / "home", auth="token")
    dead = {name: "http://127.0.0.1:9" for name in env if "proxy" in name.lower()}
    lines = lines_of({**env, **dead})
    assert lines["login"].state == UNKNOWN
    assert datasets(lines) == []


@pytest.mark.parametrize(
    ("version", "works"),
    [
        ("1.7.4", False),
        ("2.1.0", False),
        ("2.2.2", False),
        ("2.2.3", True),
        ("2.2.10", True),
        ("3.0", True),
        ("", False),
    ],
)
def test_an_old_client_is_refused_before_anything_is_sent(kaggle: KaggleStandin, tmp_path, version, works):
    assert is_new_enough(version) is works
    env = kaggle_env(kaggle, tmp_path / "home")
    lines = lines_of(env, version=lambda: version)
    assert lines["client"].state == (OK if works else MEND)
    if not works:
        client = KaggleClient(env, client_python())
        client.version = lambda: version
        with pytest.raises(KaggleError, match=r"2\.2\.3" if version else "client"):
            client.owner()
        assert kaggle.requests == []


def test_the_exit_status_is_that_of_the_worst_line(monkeypatch, caplog):
    found = [doctor.Line("Python", OK, "3.12")]
    monkeypatch.setattr(doctor, "machine", lambda: found)
    monkeypatch.setattr(doctor, "kaggle", lambda *_, **__: [doctor.Line("login", UNKNOWN, "none", "Log in")])
    with caplog.at_level(logging.INFO):
        assert doctor.run(SimpleNamespace(name="x", offline=True)) == 0
        found.append(doctor.Line("disk", MEND, "0.1 GB", "Free 2 GB"))
        assert doctor.run(SimpleNamespace(name="x", offline=True)) == 2
    assert "Log in" in caplog.text


def test_this_machine_can_run_the_tests():
    states = {line.name: line.state for line in doctor.machine()}
    assert states["Python"] == states["torch"] == OK


def test_a_quota_is_shown(kaggle: KaggleStandin, tmp_path):
    lines = lines_of(kaggle_env(kaggle, tmp_path / "home"), quota=lambda: Quota(29.5, 30.0, "2026-12-05"))
    assert "0.5 of 30" in lines["quota"].found
    assert lines["quota"].remedy
