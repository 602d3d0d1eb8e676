"""Every form of credentials that the client takes is seen, and each bad one is named by file and cause."""

import json
import os

import pytest

from sac_kernel.kaggle import credentials
from sac_kernel.kaggle.credentials import KEY, OAUTH, TOKEN

GOOD_TOKEN, GOOD_KEY = "KGAT_0123456789abcdef", "0123456789abcdef0123456789abcdef"
KEY_FILE = json.dumps({"username": "tester", "key": GOOD_KEY})
OAUTH_FILE = json.dumps({"refresh_token": "r" * 20, "access_token": "a" * 20, "username": "tester"})


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".kaggle").mkdir()
    return tmp_path


def taken(home, **environ):
    return credentials.usable(credentials.find({"HOME": str(home), **environ}))


def put(home, name, content):
    path = home / ".kaggle" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("access_token", GOOD_TOKEN, TOKEN),
        ("access_token", f"  {GOOD_TOKEN}\r\n", TOKEN),
        ("access_token.txt", GOOD_TOKEN, TOKEN),
        ("kaggle.json", KEY_FILE, KEY),
        ("credentials.json", OAUTH_FILE, OAUTH),
    ],
)
def test_a_good_file_is_taken(home, name, content, form):
    path = put(home, name, content)
    assert taken(home) == credentials.Credential(form, str(path))


def test_variables_are_taken(home):
    assert taken(home, KAGGLE_API_TOKEN=GOOD_TOKEN)[:3] == (TOKEN, "KAGGLE_API_TOKEN", "")
    assert taken(home, KAGGLE_USERNAME="tester", KAGGLE_KEY=GOOD_KEY)[0] == KEY
    path = put(home, "elsewhere", GOOD_TOKEN)
    assert taken(home, KAGGLE_API_TOKEN=str(path)).problem == ""
    assert taken(home) is None


def test_they_are_taken_in_the_clients_order(home):
    put(home, "credentials.json", OAUTH_FILE)
    assert taken(home).form == OAUTH
    put(home, "kaggle.json", KEY_FILE)
    assert taken(home).form == KEY
    put(home, "access_token.txt", GOOD_TOKEN)
    assert taken(home).where.endswith("access_token.txt")
    put(home, "access_token", GOOD_TOKEN)
    assert taken(home).where.endswith("access_token")
    assert taken(home, KAGGLE_API_TOKEN=GOOD_TOKEN).where == "KAGGLE_API_TOKEN"


BAD = [
    ("access_token", "", "empty"),
    ("access_token", " \n", "empty"),
    ("access_token", GOOD_TOKEN.encode("utf-16"), "UTF-16"),
    ("access_token", b"\xef\xbb\xbf" + GOOD_TOKEN.encode(), "byte order mark"),
    ("access_token", b"KGAT_\xff\xe9", "not UTF-8"),
    ("access_token", "KGAT_é", "no token has"),
    ("access_token", KEY_FILE, "JSON"),
    ("access_token", f"KAGGLE_API_TOKEN={GOOD_TOKEN}", "more than"),
    ("access_token", f'"{GOOD_TOKEN}"', "more than"),
    ("access_token", f"{GOOD_TOKEN}\n{GOOD_TOKEN}", "more than"),
    ("access_token", "x" * 70_000, "larger"),
    ("kaggle.json", "", "empty"),
    ("kaggle.json", KEY_FILE.encode("utf-16"), "UTF-16"),
    ("kaggle.json", b"\xef\xbb\xbf" + KEY_FILE.encode(), "byte order mark"),
    ("kaggle.json", GOOD_TOKEN, "bare token"),
    ("kaggle.json", '{"username": "tester"', "not a JSON object"),
    ("kaggle.json", "[" * 100_00, "not a JSON object"),
    ("kaggle.json", '["tester"]', "not a JSON object"),
    ("kaggle.json", '{"username": "tester"}', "lacks"),
    ("kaggle.json", '{"username": 3, "key": "x"}', "lacks"),
    ("kaggle.json", json.dumps({"username": "tester", "key": GOOD_TOKEN}), "access token"),
    ("kaggle.json", json.dumps({"username": "a@b.org", "key": GOOD_KEY}), "user name"),
    ("kaggle.json", json.dumps({"username": "tester", "key": f" {GOOD_KEY}"}), "blanks"),
    ("credentials.json", "", "empty"),
    ("credentials.json", "{}", "lacks"),
    ("credentials.json", "nothing", "not a JSON object"),
    ("kaggle (1).json", KEY_FILE, "kaggle.json"),
    ("kaggle.json.txt", KEY_FILE, "kaggle.json"),
    ("Kaggle.JSON", KEY_FILE, "kaggle.json"),
    ("access_token (1)", GOOD_TOKEN, "access_token"),
    ("access-token", GOOD_TOKEN, "access_token"),
    ("token.txt", GOOD_TOKEN, "access_token"),
]


@pytest.mark.parametrize(("name", "content", "cause"), BAD)
def test_a_bad_file_is_named_with_its_cause_and_a_remedy(home, name, content, cause):
    path = put(home, name, content)
    found = taken(home)
    assert (found.where, cause in found.problem) == (str(path), True)
    assert found.todo
    shown = " ".join(found)
    assert not any(secret in shown for secret in (GOOD_TOKEN, GOOD_KEY))


def test_a_bad_variable_is_named(home):
    assert "path" in taken(home, KAGGLE_API_TOKEN="~/token").problem
    assert "KAGGLE_KEY" in taken(home, KAGGLE_USERNAME="tester").problem
    assert "access token" in taken(home, KAGGLE_USERNAME="tester", KAGGLE_KEY=GOOD_TOKEN).problem


def test_a_bad_token_stops_the_client_before_a_good_key_but_a_bad_key_does_not_stop_a_good_token(home):
    put(home, "access_token", GOOD_TOKEN.encode("utf-16"))
    put(home, "kaggle.json", KEY_FILE)
    assert "UTF-16" in taken(home).problem
    put(home, "access_token", GOOD_TOKEN)
    put(home, "kaggle.json", "")
    assert taken(home).problem == ""


def test_a_file_in_a_folder_that_the_client_does_not_read_is_named(home, tmp_path):
    other = tmp_path / ".config" / "kaggle"
    other.mkdir(parents=True)
    (other / "kaggle.json").write_text(KEY_FILE)
    assert taken(home).where == str(other / "kaggle.json")
    assert "only" in taken(home).problem
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "access_token").write_text(GOOD_TOKEN)
    assert taken(home, KAGGLE_CONFIG_DIR=str(chosen)).where == str(chosen / "access_token")


@pytest.mark.skipif(os.name != "posix", reason="this system has no POSIX file permissions")
def test_a_file_that_others_can_read_or_nobody_is_said(home):
    path = put(home, "kaggle.json", KEY_FILE)
    path.chmod(0o644)
    assert "chmod 600" in taken(home).note
    path.chmod(0o000)
    if os.geteuid() != 0:
        assert "cannot be read" in taken(home).problem
    path.unlink()
    path.mkdir()
    assert "not a file" in taken(home).problem
