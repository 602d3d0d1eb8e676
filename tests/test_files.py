"""Files are whole or absent, JSON is strict, equal content is equal bytes."""

import io
import json
import math
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch

from sac_kernel import files
from sac_kernel.errors import CheckpointError


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
    with pytest.raises(CheckpointError, match=r"a\.json: valid JSON required, found: .* fetch it again"):
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
    with pytest.raises(CheckpointError, match=r"no\.pt: a saved agent or state is required, found no file"):
        files.read_pt(tmp_path / "no.pt")


@pytest.mark.parametrize(
    "content", [b"", b"not a zip", saved({"x": Fraction(1)})], ids=["empty", "text", "code"]
)
def test_read_pt_refuses_damage_and_code(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"a\.pt: a file of tensors and plain values is required, found"
    ):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_a_truncated_file(tmp_path):
    whole = files.pt_bytes({"w": torch.zeros(100)})
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="fetch it again"):
        files.read_pt(tmp_path / "a.pt")


def test_read_pt_refuses_another_thing_than_a_dictionary(tmp_path):
    (tmp_path / "a.pt").write_bytes(saved([1, 2]))
    with pytest.raises(CheckpointError, match="a dictionary is required, found list"):
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
    with pytest.raises(
        CheckpointError, match=r"2 of 2 files are absent or differ .* first a\.txt, logs/b\.txt"
    ):
        files.verify_manifest(folder)


def test_manifest_refuses_a_folder_without_one(tmp_path):
    with pytest.raises(CheckpointError, match="a manifest is required, found none"):
        files.verify_manifest(tmp_path)


def test_manifest_refuses_one_without_its_end(folder):
    content = files.read_json(folder / "manifest.json")
    del content["end"]
    files.write_json(folder / "manifest.json", content)
    with pytest.raises(CheckpointError, match="the end marker 'complete' is required, found None"):
        files.verify_manifest(folder)
