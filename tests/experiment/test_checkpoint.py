"""The state on disk: whole or not at all, the newest named, another identity refused."""

import json
import logging

import numpy as np
import pytest
import torch

import sac_kernel
from sac_kernel.core.errors import CheckpointError
from sac_kernel.core.files import pt_bytes, read_json, sha256, write_json
from sac_kernel.experiment import checkpoint
from sac_kernel.kaggle.state_export import export_states
from tests.support import says, told


def save(folder, number):
    state = {"numbers": torch.full((50,), float(number)), "text": f"state {number}", "none": None}
    facts = {"env_steps": 100 * number, "episodes": number, "finished": False}
    checkpoint.save_state(folder, state, facts)


def loaded(folder):
    state, facts = checkpoint.load_state(folder)
    return state["text"], facts["episodes"]


def test_the_newest_state_comes_back_with_its_facts(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, number)
    state, facts = checkpoint.load_state(tmp_path)
    assert torch.equal(state["numbers"], torch.full((50,), 3.0))
    assert (state["text"], state["none"]) == ("state 3", None)
    assert facts == {"env_steps": 300, "episodes": 3, "finished": False}
    assert checkpoint.newest_facts(tmp_path) == facts


def test_two_files_take_turns_and_none_is_one_that_kaggle_unpacks(tmp_path):
    for number in range(5):
        save(tmp_path, number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["state.json", "trainer_a.state", "trainer_b.state"]
    index = read_json(tmp_path / "state.json")
    assert (index["schema"], index["code_version"], len(index["slots"])) == (2, sac_kernel.__version__, 2)


def test_no_state_is_no_facts(tmp_path):
    assert checkpoint.newest_facts(tmp_path / "nothing") is None
    with pytest.raises(CheckpointError, match=says("0")):
        checkpoint.load_state(tmp_path / "nothing")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_a_torn_newest_state_falls_back_to_the_one_before_and_says_so(tmp_path, damage, caplog):
    for number in (1, 2, 3):
        save(tmp_path, number)
    newest = read_json(tmp_path / "state.json")["slots"][0]["file"]
    damage(tmp_path / newest)
    with caplog.at_level(logging.WARNING):
        assert loaded(tmp_path) == ("state 2", 2)
    assert told(caplog.text, "WARNING", newest)


def test_saving_after_a_fall_back_does_not_overwrite_the_only_whole_state(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, number)
    newest = read_json(tmp_path / "state.json")["slots"][0]["file"]
    cut(tmp_path / newest)
    whole = ({"trainer_a.state", "trainer_b.state"} - {newest}).pop()
    before = (tmp_path / whole).read_bytes()
    save(tmp_path, 4)
    # A kill right here must leave one whole state: either the new one or the old one untouched.
    assert loaded(tmp_path) == ("state 4", 4)
    assert (tmp_path / whole).read_bytes() == before


def test_a_kill_between_state_and_index_leaves_the_state_before(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    index = (tmp_path / "state.json").read_bytes()
    save(tmp_path, 3)
    (tmp_path / "state.json").write_bytes(index)  # the file of state 3 is there, its index entry is not
    assert loaded(tmp_path) == ("state 2", 2)


def test_no_whole_state_is_an_error_that_says_what_to_do(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for path in tmp_path.glob("*.state"):
        cut(path)
    with pytest.raises(CheckpointError, match=says("2")):
        checkpoint.load_state(tmp_path)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def name_another_file(path):
    path.write_text(path.read_text().replace("trainer_", "trainer-"))


def empty(path):
    path.write_text('{"slots": []}')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (halve, ("JSON",)),
        (name_another_file, ("trainer_a.state", "trainer_b.state")),
        (empty, ("state.json",)),
        (remove, ("state.json",)),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_damaged_index_falls_back_to_the_newest_whole_state_and_says_so(
    tmp_path, damage, named, count, caplog
):
    for number in range(1, count + 1):
        save(tmp_path, number)
    damage(tmp_path / "state.json")
    assert checkpoint.newest_facts(tmp_path) == {
        "env_steps": 100 * count,
        "episodes": count,
        "finished": False,
    }
    with caplog.at_level(logging.WARNING):
        assert loaded(tmp_path) == (f"state {count}", count)
    assert told(caplog.text, "WARNING", *named)
    # Going on keeps the newest whole one, as ever.
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.state")}
    save(tmp_path, 9)
    assert loaded(tmp_path) == ("state 9", 9)
    (written,) = (p for p in tmp_path.glob("*.state") if p.read_bytes() != kept.get(p))
    remove(written)
    assert loaded(tmp_path) == (f"state {count}", count)


def test_a_state_that_this_process_wrote_is_not_hashed_again_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.files, "file_sha256", None)
    facts, last = {"env_steps": 1}, None
    for number in range(5):
        before = read_json(tmp_path / "state.json")["slots"][:1] if last else []
        last = checkpoint.save_state(tmp_path, {"number": number}, facts, last)
        assert read_json(tmp_path / "state.json")["slots"] == [last, *before]
    monkeypatch.undo()
    assert checkpoint.load_state(tmp_path)[0]["number"] == 4
    remove(tmp_path / last["file"])
    assert checkpoint.load_state(tmp_path)[0]["number"] == 3


@pytest.mark.parametrize("harm", [cut, flip, remove])
def test_a_damaged_index_and_a_torn_newest_state_leave_the_state_before(tmp_path, harm):
    for number in (1, 2, 3):
        save(tmp_path, number)
    harm(tmp_path / read_json(tmp_path / "state.json")["slots"][0]["file"])
    halve(tmp_path / "state.json")
    assert loaded(tmp_path) == ("state 2", 2)


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ({"env_steps": 9}, {"env_steps": 10}, 1),
        ({"env_steps": 10}, {"env_steps": 9}, 0),
        ({"episodes": 3}, {"episodes": 2}, 0),
        ({"episodes": 3}, {"episodes": 2, "finished": True}, 0),
        ({"finished": False}, {"finished": True}, 1),
        ({"env_steps": 10}, {"env_steps": "x"}, 0),  # a state that says nothing of its age is none
    ],
)
def test_without_an_index_the_state_that_was_trained_furthest_is_the_newest(tmp_path, one, other, newer):
    for number, changed in enumerate((one, other)):
        facts = {"env_steps": 8, "episodes": 1, "finished": False, **changed}
        checkpoint.save_state(tmp_path, {"number": number}, facts)
    remove(tmp_path / "state.json")
    assert checkpoint.load_state(tmp_path)[0]["number"] == newer


def test_a_damaged_index_without_a_whole_state_is_an_error_that_names_it(tmp_path):
    save(tmp_path, 1)
    halve(tmp_path / "state.json")
    for path in tmp_path.glob("*.state"):
        flip(path)
    with pytest.raises(CheckpointError, match=says("state.json", "JSON")):
        checkpoint.load_state(tmp_path)
    with pytest.raises(CheckpointError, match=says("state.json", "JSON")):
        checkpoint.newest_facts(tmp_path)


def test_facts_come_from_the_state_itself_whatever_the_index_says(tmp_path):
    save(tmp_path, 1)
    index = read_json(tmp_path / "state.json")
    index["slots"][0]["facts"]["episodes"] = 7
    write_json(tmp_path / "state.json", index)
    assert loaded(tmp_path) == ("state 1", 1)


@pytest.mark.parametrize("state", [{}, {"schema": torch.zeros(3)}, {"schema": 2, "facts": "["}])
def test_a_state_of_no_schema_or_facts_is_refused(tmp_path, state):
    content = pt_bytes(state)
    (tmp_path / "trainer_a.state").write_bytes(content)
    entry = {"file": "trainer_a.state", "sha256": sha256(content), "facts": {}}
    write_json(tmp_path / "state.json", {"slots": [entry]})
    with pytest.raises(CheckpointError, match=says("trainer_a.state")):
        checkpoint.load_state(tmp_path)


def test_another_state_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STATE_SCHEMA", 99)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=says("schema", 2, 99)):
        checkpoint.load_state(tmp_path)


def test_a_state_file_put_in_anothers_place_is_not_taken(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    index = read_json(tmp_path / "state.json")
    index["slots"] = index["slots"][:1]
    write_json(tmp_path / "state.json", index)
    newest = tmp_path / index["slots"][0]["file"]
    (other,) = set(tmp_path.glob("*.state")) - {newest}
    newest.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match=says("state")):
        checkpoint.load_state(tmp_path)


# -- states that travel


@pytest.fixture
def travelled(tmp_path):
    """Two jobs whose states were exported: their folders, the target, the index."""
    folders = {name: tmp_path / name / "state" for name in ("one", "two")}
    for number, folder in enumerate(folders.values(), 1):
        for k in range(2):
            save(folder, 10 * number + k)
    target = tmp_path / "dataset"
    return folders, target, export_states(folders, target)


def test_exported_states_lie_flat_and_come_back_by_job(travelled):
    _, target, index = travelled
    assert sorted(p.name for p in target.iterdir()) == ["one.state", "state_index.json", "two.state"]
    assert index == read_json(target / "state_index.json")
    assert index["schema"] == 2
    facts = {
        job: {"env_steps": 100 * n, "episodes": n, "finished": False} for job, n in (("one", 11), ("two", 21))
    }
    assert checkpoint.exported_facts(target / "state_index.json") == facts
    for job, n in (("one", 11), ("two", 21)):
        state, found = checkpoint.load_exported(target / "state_index.json", job)
        assert (state["text"], found) == (f"state {n}", facts[job])


def test_a_torn_newest_state_is_not_what_travels(travelled, tmp_path):
    folders, _, _ = travelled
    flip(folders["one"] / read_json(folders["one"] / "state.json")["slots"][0]["file"])
    export_states(folders, tmp_path / "again")
    assert checkpoint.load_exported(tmp_path / "again" / "state_index.json", "one")[1]["episodes"] == 10


def test_a_job_without_a_whole_state_cannot_travel(travelled, tmp_path):
    folders, _, _ = travelled
    for path in folders["two"].glob("*.state"):
        cut(path)
    with pytest.raises(CheckpointError, match=says("state")):
        export_states(folders, tmp_path / "again")


def test_a_state_without_facts_of_its_own_has_those_of_its_index(tmp_path):
    content = pt_bytes({"schema": 2, "text": "old"})
    (tmp_path / "trainer_a.state").write_bytes(content)
    entry = {"file": "trainer_a.state", "sha256": sha256(content), "facts": {"episodes": 5}}
    write_json(tmp_path / "state.json", {"slots": [entry]})
    write_json(tmp_path / "state_index.json", {"jobs": {"one": entry}})
    expected = ({"schema": 2, "text": "old"}, {"episodes": 5})
    assert checkpoint.load_state(tmp_path) == expected
    assert checkpoint.load_exported(tmp_path / "state_index.json", "one") == expected


@pytest.mark.parametrize("damage", [cut, flip, remove])
def test_a_damaged_exported_state_is_refused_and_the_others_are_not(travelled, damage):
    _, target, _ = travelled
    damage(target / "two.state")
    with pytest.raises(CheckpointError, match=says("two.state", "state_index.json")):
        checkpoint.load_exported(target / "state_index.json", "two")
    assert checkpoint.load_exported(target / "state_index.json", "one")[1]["episodes"] == 11


@pytest.mark.parametrize("index", [{}, {"jobs": []}, {"jobs": {"one": {"file": "one.state"}}}])
def test_an_exported_index_of_another_form_is_refused(tmp_path, index):
    write_json(tmp_path / "state_index.json", index)
    with pytest.raises(CheckpointError, match=says("state_index.json", "sha256", "facts")):
        checkpoint.exported_facts(tmp_path / "state_index.json")


# -- identities


LEARNING = {
    "data_hash": "aaa",
    "features": ["x", "y"],
    "sac": {"gamma": 0.99, "hidden_dims": [16, 16]},
    "env": {"cost_tier": "base"},
    "seed": 0,
}


def test_equal_learning_identities_pass():
    checkpoint.check_identity(LEARNING, json.loads(json.dumps(LEARNING)), "here")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data_hash": "bbb"}, ("data_hash", "'aaa'", "'bbb'")),
        ({"features": ["y", "x"]}, ("features", "['x', 'y']", "['y', 'x']")),
        ({"sac": {"gamma": 0.9, "hidden_dims": [16, 16]}}, ("sac.gamma", 0.99, 0.9)),
        ({"env": {"cost_tier": "raw"}}, ("env.cost_tier", "'base'", "'raw'")),
        ({"seed": 1}, ("seed", 0, 1)),
        ({"sac": {"gamma": 0.99}}, ("sac.hidden_dims", "[16, 16]")),
    ],
)
def test_a_difference_of_the_learning_identity_is_refused_by_name(change, named):
    with pytest.raises(CheckpointError, match=says("state/", *named, "resume='never'")):
        checkpoint.check_identity(LEARNING, {**LEARNING, **change}, "state/: resume")


@pytest.mark.parametrize("count", [5, 6])
def test_at_most_five_differences_are_named(count):
    saved = {"sac": {f"name_{k}": k for k in range(count)}}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.check_identity(saved, {}, "here")
    assert str(caught.value).count("saved") == 5
    assert told(caught.value, "more") == (count > 5)


def test_accounts_and_generator_of_an_env_come_back_through_a_file(tmp_path):
    generator = np.random.default_rng(5)
    env = {"accounts": np.arange(6.0).reshape(2, 3), "rng": generator.bit_generator.state}
    plain = checkpoint.env_to_plain(env)
    env["accounts"][:] = 0.0  # what is kept is a copy
    checkpoint.save_state(tmp_path, plain, {})
    back = checkpoint.env_from_plain(checkpoint.load_state(tmp_path)[0])
    np.testing.assert_array_equal(back["accounts"], np.arange(6.0).reshape(2, 3))
    assert back["rng"] == generator.bit_generator.state


def test_generator_text_brings_back_the_same_draws():
    first = np.random.default_rng(12)
    first.normal(size=7)
    second = checkpoint.rng_from_text(checkpoint.rng_to_text(first.bit_generator.state))
    np.testing.assert_array_equal(first.normal(size=100), second.normal(size=100))
    np.testing.assert_array_equal(first.integers(10, size=9), second.integers(10, size=9))


# -- an index from elsewhere


ENTRY = {"file": "trainer_a.state", "sha256": "0" * 64, "facts": {}}


@pytest.mark.parametrize(
    ("index", "found"),
    [
        ([], ("JSON object",)),
        ({"slots": None}, ("file", "sha256", "facts")),
        ({"slots": [{}]}, ("file", "sha256", "facts")),
        ({"slots": [ENTRY] * 3}, ("file", "sha256", "facts")),
        ({"slots": [{**ENTRY, "facts": 3}]}, ("facts",)),
        ({"slots": [{**ENTRY, "file": "../secret.state"}]}, ("trainer_a.state", "trainer_b.state")),
        ({"slots": [{**ENTRY, "file": "/etc/passwd"}]}, ("trainer_a.state", "trainer_b.state")),
    ],
)
def test_an_index_of_another_form_or_that_leads_elsewhere_is_refused(tmp_path, index, found):
    write_json(tmp_path / "state.json", index)
    with pytest.raises(CheckpointError, match=says("state.json", *found)):
        checkpoint.load_state(tmp_path)


@pytest.mark.parametrize("name", ["../a.state", "/etc/passwd", "C:a.state"])
def test_an_exported_index_cannot_point_out_of_its_folder(tmp_path, name):
    write_json(tmp_path / "state_index.json", {"jobs": {"agent_1_seed_0": {**ENTRY, "file": name}}})
    with pytest.raises(CheckpointError, match=says("name")):
        checkpoint.exported_facts(tmp_path / "state_index.json")


def test_whatever_a_state_of_another_shape_raises_is_one_error():
    for error in (KeyError("agent"), TypeError("x"), RuntimeError("sizes"), AttributeError("y")):
        with (
            pytest.raises(CheckpointError, match=says("here", type(error).__name__)),
            checkpoint.restoring("here"),
        ):
            raise error
