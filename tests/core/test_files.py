"""Files are whole or absent, JSON is strict, equal content is equal bytes."""

import errno
import io
import json
import math
import os
import zipfile
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, StorageError
from tests.support import says


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_the_folder_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "un café propre" / "a.txt"
    files.write_text(path, "one\n")
    files.write_text(path, "zwei ß\n")
    assert path.read_bytes() == "zwei ß\n".encode()
    assert names(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.zip"
    files.write_zip(path, {"x": b"old"})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        files.write_zip(path, {"x": b"new", "y": 3})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.zip"]


def test_json_has_sorted_keys_null_for_nan_and_plain_numbers():
    value = {
        "b": math.nan,
        "a": np.float32(0.5),
        "c": np.array([1, 2]),
        "d": (math.inf, True, None),
        3: np.int64(7),
        "é": -math.inf,
    }
    text = files.strict_json(value)
    assert "NaN" not in text
    assert "Infinity" not in text
    found = json.loads(text)
    assert found == {"3": 7, "a": 0.5, "b": None, "c": [1, 2], "d": [None, True, None], "é": None}
    assert list(found) == sorted(found)


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError):
        files.strict_json({"a": object()})


def test_json_file_round_trip_and_damage(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": [1.5, None]})
    assert files.read_json(path) == {"x": [1.5, None]}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=says("a.json", "JSON")):
        files.read_json(path)


def test_sha256_of_bytes_and_file_is_the_published_one(tmp_path):
    # FIPS 180-2, appendix B.1: the digest of "abc".
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(b"abc") == expected
    assert files.file_sha256(tmp_path / "abc") == expected


def test_content_hash_ignores_key_order_and_sees_values():
    assert files.content_hash({"a": 1, "b": 2}) == files.content_hash({"b": 2, "a": 1})
    assert files.content_hash({"a": 1}) != files.content_hash({"a": 2})


def test_pt_bytes_are_equal_for_equal_content_and_load_without_code(tmp_path):
    content = {"w": torch.arange(6.0).reshape(2, 3), "names": ["a", "b"], "n": 3}
    assert files.pt_bytes(content) == files.pt_bytes(content)
    for name in ("one.pt", "two.pt"):
        files.write_bytes(tmp_path / name, files.pt_bytes(content))
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
    found = files.read_pt(tmp_path / "one.pt")
    assert torch.equal(found["w"], content["w"])
    assert (found["names"], found["n"]) == (["a", "b"], 3)


def test_read_pt_names_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=says("no.pt")):
        files.read_pt(tmp_path / "no.pt")


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", saved({"x": Fraction(1)})], ids=["empty", "text", "code"]
)
def test_read_pt_refuses_damage_and_code(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=says("a.pt")):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_a_truncated_file(tmp_path):
    whole = files.pt_bytes({"w": torch.zeros(100)})
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=says("a.pt")):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_one_flipped_bit_of_a_number(tmp_path):
    numbers = torch.arange(100.0)
    content = bytearray(files.pt_bytes({"w": numbers}))
    content[content.index(numbers.numpy().tobytes()) + 40] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=says("a.pt", "checksum", "data/0")):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_a_name_with_an_unknown_escape(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"c\\K\nx\n.")
    with pytest.raises(CheckpointError, match=says("a.pt")):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_another_thing_than_a_dictionary(tmp_path):
    (tmp_path / "a.pt").write_bytes(saved([1, 2]))
    with pytest.raises(CheckpointError, match=says("a.pt", "list")):
        files.read_pt(tmp_path / "a.pt")


def test_zip_and_npz_bytes_depend_on_content_alone(tmp_path):
    for name in ("one", "two"):
        files.write_zip(tmp_path / f"{name}.zip", {"b": b"2", "a": b"1"})
        files.write_npz(tmp_path / f"{name}.npz", {"x": np.arange(3.0), "y": np.zeros((0,))})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["a", "b"]
        assert archive.read("b") == b"2"
    with np.load(tmp_path / "one.npz") as arrays:
        assert arrays["x"].tolist() == [0.0, 1.0, 2.0]
        assert arrays["y"].shape == (0,)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "logs" / "b.txt").write_bytes(b"")
    files.write_manifest(tmp_path, ["logs/b.txt", "a.txt"], {"step": 5})
    return tmp_path


def test_manifest_lists_size_and_hash_of_each_file_and_ends_with_its_marker(folder):
    manifest = files.verify_manifest(folder)
    assert manifest["step"] == 5
    assert manifest["end"] == "complete"
    assert list(manifest["files"]) == ["a.txt", "logs/b.txt"]
    assert manifest["files"]["a.txt"] == {"bytes": 3, "sha256": files.sha256(b"abc")}


def test_manifest_refuses_a_changed_and_a_missing_file(folder):
    (folder / "a.txt").write_bytes(b"abd")
    (folder / "logs" / "b.txt").unlink()
    with pytest.raises(CheckpointError, match=says("2 of 2", "a.txt", "logs/b.txt")):
        files.verify_manifest(folder)


def test_manifest_refuses_a_folder_without_one(tmp_path):
    with pytest.raises(CheckpointError, match=says("manifest")):
        files.verify_manifest(tmp_path)


def test_manifest_refuses_one_without_its_end(folder):
    content = files.read_json(folder / "manifest.json")
    del content["end"]
    files.write_json(folder / "manifest.json", content)
    with pytest.raises(CheckpointError, match=says("manifest.json", "'complete'", "None")):
        files.verify_manifest(folder)


# -- the disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("place", ["write", "sync", "name", "folder"])
def test_a_disk_that_refuses_is_one_error_and_leaves_the_old_file(tmp_path, monkeypatch, number, place):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def refuse(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    targets = {"write": "write_bytes", "name": "replace", "folder": "mkdir"}
    if place == "sync":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(type(path), targets[place], refuse)
    with pytest.raises(StorageError, match=says("a.json", os.strerror(number))):
        files.write_json(path, {"x": 2})
    monkeypatch.undo()
    assert files.read_json(path) == {"x": 1}
    assert names(tmp_path) == ["a.json"]


def test_every_way_of_writing_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order, sync, name = [], os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), sync(fd)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda a, b: (order.append("name"), name(a, b))[1])
    files.write_text(tmp_path / "a.txt", "x")
    files.write_zip(tmp_path / "a.zip", {"x": b"1"})
    files.write_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
    assert order == ["sync", "name"] * 3


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    kept = [
        tmp_path / "a.txt",
        tmp_path / ".b.tmp",
        tmp_path / "c.tmp",
        tmp_path / "sub" / f".d.{'g' * 32}.tmp",
    ]
    left = [tmp_path / f".a.txt.{'0f' * 16}.tmp", tmp_path / "sub" / f".e.state.{'a' * 32}.tmp"]
    (tmp_path / "sub").mkdir()
    for path in kept + left:
        path.write_bytes(b"x")
    assert sorted(files.sweep_temporaries(tmp_path)) == sorted(left)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


# -- hostile files


ELSEWHERE = [
    "/etc/passwd",
    "../a.txt",
    "logs/../../a.txt",
    "C:/a.txt",
    "..\\a.txt",
    "a\0b",
    "",
    ".",
    None,
    3,
    ["a"],
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match=says("list", repr(name))):
        files.inside(tmp_path, name, "list")


@pytest.mark.parametrize("name", ["9" * 256, "é" * 128, "a/" * 600 + "b", "\ud800"])
def test_a_name_that_no_disk_can_hold_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError):
        files.inside(tmp_path, name, "list")
    files.write_json(tmp_path / "manifest.json", {"files": {"9" * 256: {"sha256": "x"}}, "end": "complete"})
    with pytest.raises(CheckpointError):
        files.verify_manifest(tmp_path)


def test_a_name_inside_is_taken(tmp_path):
    assert files.inside(tmp_path, "logs/b.txt", "list") == tmp_path / "logs" / "b.txt"


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.txt", "link.txt", "linked/secret.txt"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path, name):
    inner = tmp_path / "outputs"
    inner.mkdir()
    (tmp_path / "secret.txt").write_bytes(b"abc")
    try:
        (inner / "link.txt").symlink_to(tmp_path / "secret.txt")
        (inner / "linked").symlink_to(tmp_path)
    except OSError:
        pytest.skip("this system gives no symbolic links to everyone")
    entry = {"bytes": 3, "sha256": files.sha256(b"abc")}
    files.write_json(inner / "manifest.json", {"files": {name: entry}, "end": "complete"})
    with pytest.raises(CheckpointError, match=says("manifest")):
        files.verify_manifest(inner)


@pytest.mark.parametrize("listed", [None, [], "x", {"a.txt": None}, {"a.txt": 3}])
def test_a_manifest_of_another_form_is_refused(folder, listed):
    files.write_json(folder / "manifest.json", {"files": listed, "end": "complete"})
    with pytest.raises(CheckpointError, match=says("manifest.json")):
        files.verify_manifest(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"x": NaN}', "NaN"),
        (b'{"x": -Infinity}', "-Infinity"),
        (b"[" * 200_000, "recursion"),
        (b'{"x": ' + b"9" * 5000 + b"}", "4300"),
        (b'"\xff"', "utf-8"),
    ],
)
def test_json_that_is_not_strict_or_wants_too_much_is_refused(tmp_path, text, found):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=says("a.json", found)):
        files.read_json(tmp_path / "a.json")


def test_json_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as stream:
        stream.truncate(files.MAX_JSON_BYTES + 1)  # a hole: no such bytes on the disk
    with pytest.raises(CheckpointError, match=says("a.json", "67,108,864")):
        files.read_json(path)


def laughs(levels=30):
    """A list of two references to a list of two references ...: 2^levels values in a few bytes."""
    value = [1]
    for _ in range(levels):
        value = [value, value]
    return value


class Wrapped(torch.Tensor):
    pass


def repacked(content, method):
    """The same archive, packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (saved({"x": torch.zeros(1).expand(10**12)}), "tensors"),
        (saved({"x": [torch.zeros(1000).expand(1000, 1000)] * 1000}), "tensors"),
        (saved({"x": laughs()}), "values"),
        (saved({"x": bytearray(10)}), "code"),
        (saved({"x": {1, 2}}), "code"),
        (saved({"x": Counter("ab")}), "code"),
        (saved({"x": torch.eye(2).to_sparse()}), "code"),
        (saved({"x": torch.nn.Parameter(torch.zeros(2))}), "code"),
        (saved({"x": 1 + 2j}), "code"),
        (repacked(saved({"x": torch.zeros(1 << 20)}), zipfile.ZIP_DEFLATED), "compressed"),
    ],
    ids=[
        "tensor",
        "tensors",
        "laughs",
        "bytearray",
        "set",
        "counter",
        "sparse",
        "parameter",
        "complex",
        "bomb",
    ],
)
def test_read_pt_takes_no_more_than_the_file_holds_and_nothing_but_values(tmp_path, content, found):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=says("a.pt", found)):
        files.read_pt(tmp_path / "a.pt")


def test_an_archive_with_two_structures_is_refused(tmp_path):
    buffer = io.BytesIO(saved({"x": 1}))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("other/data.pkl", b"")
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=says("a.pt", 2)):
        files.read_pt(tmp_path / "a.pt")


def test_a_shape_is_refused_before_memory_is_taken_for_it(tmp_path):
    """The size in the structure is changed to 10^9 numbers, the archive made whole again."""
    content = saved({"x": torch.zeros(2)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    structure = members["archive/data.pkl"]
    small, large = (
        b"K\x02\x85",
        b"J" + (10**9).to_bytes(4, "little") + b"\x85",
    )  # BININT1 2, BININT 10^9; TUPLE1
    assert structure.count(small) == 1
    members["archive/data.pkl"] = structure.replace(small, large)
    files.write_zip(tmp_path / "packed.zip", members)
    (tmp_path / "a.pt").write_bytes(repacked((tmp_path / "packed.zip").read_bytes(), zipfile.ZIP_STORED))
    with pytest.raises(CheckpointError, match=says("a.pt", "1000000000")):
        files.read_pt(tmp_path / "a.pt")
