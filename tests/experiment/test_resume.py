"""A run that was cut and resumed equals an uncut one bit for bit; a finished one starts anew."""

import dataclasses
import logging
import shutil
import signal
from pathlib import Path

import pytest
import torch

from sac_kernel.core import files
from sac_kernel.core.clock import Deadline
from sac_kernel.core.errors import CheckpointError, InputNotFoundError, NonFiniteError
from sac_kernel.experiment import checkpoint, job_outputs, output_layout
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import AGENT_PRESETS, RunConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.kaggle.state_export import export_states
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.stats import trials
from tests.conftest import make_data
from tests.small_runs import ENV, SAC, TINY, small_trainer
from tests.support import says, told

pytestmark = pytest.mark.usefixtures("blank_figures")


class StopAfter(Deadline):
    """A clock that runs out after so many vector steps, as `request_stop` from a signal would."""

    def __init__(self, vector_steps):
        super().__init__()
        self.left = vector_steps

    def passed(self, reserve_s=0.0):
        self.left -= 1
        if self.left < 0:
            self.request_stop()
        return super().passed(reserve_s)


class KillAfter(StopAfter):
    """No clean end: the process dies at this vector step."""

    def request_stop(self):
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uncut(h5, tmp_path_factory):
    trainer = small_trainer(h5, tmp_path_factory.mktemp("uncut"))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def reported(h5, tmp_path_factory):
    """The folder of a finished run, its report written; to be copied."""
    folder = tmp_path_factory.mktemp("reported")
    small_trainer(h5, folder).run_training()
    return folder


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def outputs(folder):
    """What a run made and wall time has no part in."""
    wanted = [*folder.glob("*.pt"), *folder.glob("checkpoints/*"), *folder.glob("logs/*")]
    wanted += folder.glob("models.zip")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in wanted}


def learning_state(trainer):
    """Everything that further learning depends on, the generators and every account included."""
    state, _ = checkpoint.load_state(trainer.folder / "state")
    return {name: value for name, value in state.items() if name != "train_s"}


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def assert_same_run(first, second):
    assert equal(learning_state(first), learning_state(second))
    assert equal(first.stats, second.stats)
    left, right = outputs(first.folder), outputs(second.folder)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


# -- cut and resumed -----------------------------------------------------------------------------


# In the warm-up, at an episode's end, in the middle of one, one step before the end; twice; and at once.
@pytest.mark.parametrize("cuts", [(5,), (20,), (23,), (39,), (7, 18), (0,)])
def test_a_cut_and_resumed_run_equals_an_uncut_one_bit_for_bit(h5, uncut, tmp_path, cuts):
    for vector_steps in cuts:
        cut = small_trainer(h5, tmp_path, deadline=StopAfter(vector_steps)).train()
        assert cut.facts["status"] == "cut"
    resumed = small_trainer(h5, tmp_path)
    assert resumed.train().facts["status"] == "complete"
    assert_same_run(uncut, resumed)
    assert not (tmp_path / "previous").exists()


# One account makes 60 vector steps an episode, sixty make one: the cut falls inside the first or on an end.
@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "cut"), [(1, 77), (60, 1)])
@pytest.mark.parametrize("agent_id", AGENT_PRESETS)
def test_every_agent_with_one_and_sixty_accounts_goes_on_bit_for_bit(h5, tmp_path, agent_id, num_envs, cut):
    env = dataclasses.replace(ENV, decision_interval_min=AGENT_PRESETS[agent_id].decision_interval_min)
    settings = {"agent_id": agent_id, "num_envs": num_envs, "num_episodes": 2, "env_config": env}
    whole = small_trainer(h5, tmp_path / "whole", **settings)
    whole.train()
    first = small_trainer(h5, tmp_path / "parts", **settings, deadline=StopAfter(cut)).train()
    assert (first.facts["status"], first.facts["env_steps"]) == ("cut", cut * num_envs)
    resumed = small_trainer(h5, tmp_path / "parts", **settings)
    resumed.train()
    assert whole.agent.updates > 0
    assert_same_run(whole, resumed)


def only(folder):
    """Return the one folder in previous/."""
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_well_with_its_state_saved(h5, uncut, tmp_path, number):
    class Signalled(StopAfter):
        def request_stop(self):
            if self.left == -1:
                self.left = -2
                signal.raise_signal(number)  # the handler, which calls this again
            else:
                self._stop.set()

    cut = small_trainer(h5, tmp_path, deadline=Signalled(17)).train()
    assert (cut.facts["status"], cut.facts["env_steps"]) == ("cut", 17 * 6)
    resumed = small_trainer(h5, tmp_path)
    resumed.train()
    assert_same_run(uncut, resumed)


def test_weights_that_stop_being_finite_end_the_run_and_the_last_good_state_goes_on(h5, uncut, tmp_path):
    class Diverges(StopAfter):
        def request_stop(self):
            with torch.no_grad():
                trainer.agent.nets.actor.head.bias[0] = float("nan")

    trainer = small_trainer(h5, tmp_path, deadline=Diverges(25))
    with pytest.raises(NonFiniteError, match=says("step 150", "actor.head.bias")):
        trainer.train()
    state, facts = checkpoint.load_state(tmp_path / "state")
    assert (state["env_steps"], facts["episodes"]) == (120, 2)
    resumed = small_trainer(h5, tmp_path)
    resumed.train()
    assert_same_run(uncut, resumed)


class OutInValidation(Deadline):
    """A clock that runs out at the n-th decision of all validation passes."""

    def __init__(self, decisions):
        super().__init__()
        self.left = decisions

    def check(self):
        self.left -= 1
        if self.left < 0:
            self.request_stop()
        super().check()


# In the first pass, before any result is known, and in the second.
@pytest.mark.parametrize(("decisions", "episodes"), [(100, 0), (300, 1)])
def test_a_validation_that_would_overrun_is_left_and_repeated(
    h5, uncut, tmp_path, caplog, decisions, episodes
):
    with caplog.at_level(logging.INFO):
        cut = small_trainer(h5, tmp_path, deadline=OutInValidation(decisions)).train()
    assert told(caplog.text, "validation")
    assert (cut.facts["status"], cut.facts["episodes"]) == ("cut", episodes)
    assert cut.facts["env_steps"] == 60 * (
        episodes + 1
    )  # the episode's steps are kept, its end is not entered
    resumed = small_trainer(h5, tmp_path)
    resumed.train()
    assert_same_run(uncut, resumed)


def test_an_input_that_vanished_after_training_costs_nothing_but_the_report(h5, tmp_path, monkeypatch):
    moved = tmp_path / "processed_data.h5"
    moved.write_bytes(h5.read_bytes())
    config = dataclasses.replace(two_jobs(moved, tmp_path / "out"), seeds=(0,))
    train = KaggleTrainer.train

    def then_gone(self):
        job = train(self)
        moved.unlink()
        return job

    with monkeypatch.context() as patch:
        patch.setattr(KaggleTrainer, "train", then_gone)
        with pytest.raises(InputNotFoundError, match=says("processed_data.h5")):
            run_jobs(config)
    trained = outputs(tmp_path / "out")
    assert "agent_1_final.pt" in trained
    moved.write_bytes(h5.read_bytes())
    assert run_jobs(config).summary["status"] == "complete"
    assert {name: (tmp_path / "out" / name).read_bytes() for name in trained} == trained


@pytest.mark.parametrize("vector_steps", [13, 30])
def test_a_killed_run_goes_on_from_its_last_state_and_equals_an_uncut_one(h5, uncut, tmp_path, vector_steps):
    with pytest.raises(KeyboardInterrupt):
        small_trainer(h5, tmp_path, deadline=KillAfter(vector_steps)).train()
    resumed = small_trainer(h5, tmp_path)
    resumed.train()
    assert_same_run(uncut, resumed)


def test_a_run_killed_before_it_was_judged_is_finished_not_thrown_away(h5, tmp_path):
    small_trainer(h5, tmp_path).train()  # all episodes done; no report, no manifest yet
    trained = outputs(tmp_path)
    small_trainer(h5, tmp_path).run_training()
    assert not (tmp_path / "previous").exists()
    assert {name: (tmp_path / name).read_bytes() for name in trained} == trained
    assert job_outputs.read_manifest(tmp_path)["status"] == "complete"


def test_a_cut_run_leaves_a_whole_output_folder_that_says_cut(h5, tmp_path):
    small_trainer(h5, tmp_path, deadline=StopAfter(25)).run_training()
    manifest = job_outputs.read_manifest(tmp_path)
    assert (manifest["status"], manifest["episodes"], manifest["env_steps"]) == ("cut", 2, 150)
    assert {"agent_1_final.pt", "agent_1_best.pt", "report.html", "models.zip"} <= set(manifest["files"])


def test_a_torn_newest_state_falls_back_with_a_warning_and_ends_the_same(h5, uncut, tmp_path, caplog):
    small_trainer(h5, tmp_path, deadline=StopAfter(25)).train()
    newest = files.read_json(tmp_path / "state" / "state.json")["slots"][0]["file"]
    cut_short(tmp_path / "state" / newest)
    resumed = small_trainer(h5, tmp_path)
    with caplog.at_level(logging.WARNING):
        resumed.train()
    assert told(caplog.text, "WARNING", newest)
    assert_same_run(uncut, resumed)


@pytest.mark.parametrize("damage", [cut_short, Path.unlink])
def test_a_damaged_index_costs_no_step_and_ends_the_same(h5, uncut, tmp_path, caplog, damage):
    small_trainer(h5, tmp_path, deadline=StopAfter(25)).train()
    damage(tmp_path / "state" / "state.json")
    resumed = small_trainer(h5, tmp_path)
    with caplog.at_level(logging.INFO):
        resumed.train()
    assert told(caplog.text, "episode 2", "step 150")
    assert_same_run(uncut, resumed)


# -- identities ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut_folder(h5, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    small_trainer(h5, folder, deadline=StopAfter(15)).train()
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sac_config": dataclasses.replace(SAC, gamma=0.9)}, ("sac.gamma", 0.99, 0.9)),
        ({"sac_config": dataclasses.replace(SAC, hidden_dims=(8, 8))}, ("sac.hidden_dims",)),
        ({"env_config": dataclasses.replace(ENV, cost_tier="raw")}, ("env.cost_tier", "'base'")),
        ({"seed": 1}, ("seed", 0, 1)),
        ({"num_envs": 10}, ("num_envs", 6, 10)),
    ],
)
def test_another_learning_identity_is_refused_by_name_and_changes_nothing(h5, cut_folder, change, named):
    before = {p: p.read_bytes() for p in cut_folder.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=says(*named)):
        small_trainer(h5, cut_folder, **change).train()
    assert {p: p.read_bytes() for p in cut_folder.rglob("*") if p.is_file()} == before


def test_other_data_is_refused_by_its_hash(cut_folder, tmp_path):
    other = tmp_path / "processed_data.h5"
    write_processed(make_data(1600, seed=1), other)
    with pytest.raises(CheckpointError, match="data_hash"):
        small_trainer(other, cut_folder).train()


# -- going on, starting anew ---------------------------------------------------------------------


def test_a_raised_number_of_episodes_goes_on(h5, tmp_path):
    small_trainer(h5, tmp_path, num_episodes=2).train()
    first = (tmp_path / "checkpoints" / "agent_1_ep2.pt").read_bytes()
    longer = small_trainer(h5, tmp_path, num_episodes=4)
    longer.train()
    assert len(longer.stats["episode_rewards"]) == 4
    assert (tmp_path / "checkpoints" / "agent_1_ep2.pt").read_bytes() == first
    assert not (tmp_path / "previous").exists()


def test_frequencies_may_change_between_sessions(h5, uncut, tmp_path):
    small_trainer(h5, tmp_path, deadline=StopAfter(15)).train()
    small_trainer(h5, tmp_path, checkpoint_frequency=2).train()
    final = "agent_1_final.pt"
    assert (tmp_path / final).read_bytes() == (uncut.folder / final).read_bytes()


def test_a_finished_run_starts_anew_and_keeps_the_old_outputs_in_previous(
    h5, uncut, reported, tmp_path, caplog
):
    tmp_path = shutil.copytree(reported, tmp_path / "run")
    (tmp_path / "notes.txt").write_text("mine")
    before = outputs(tmp_path)
    assert "models.zip" in before
    again = small_trainer(h5, tmp_path)
    again.train()
    assert outputs(only(tmp_path / "previous")) == before
    assert (only(tmp_path / "previous") / "report.html").is_file()
    assert (only(tmp_path / "previous") / "state" / "state.json").is_file()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same_run(uncut, again)


@pytest.mark.parametrize("survivor", ["manifest.json", "state", "agent_1_final.pt", "nothing", "renamed"])
def test_a_move_to_previous_that_was_killed_is_gone_on_with_and_loses_no_file(
    h5, uncut, reported, tmp_path, monkeypatch, survivor
):
    tmp_path = shutil.copytree(reported, tmp_path / "run")
    before = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    rename, calls = type(tmp_path).rename, []

    def killed(self, target):
        if self.name == survivor or (survivor == "renamed" and self.name.endswith(".moving")):
            raise KeyboardInterrupt
        calls.append(self.name)
        return rename(self, target)

    if survivor != "nothing":
        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                small_trainer(h5, tmp_path).train()
        assert calls
    again = small_trainer(h5, tmp_path)
    again.train()
    previous = only(tmp_path / "previous")
    kept = {p.relative_to(previous): p.read_bytes() for p in previous.rglob("*") if p.is_file()}
    before.pop(Path("trials.csv"))  # it outlives every run
    assert kept == before
    assert_same_run(uncut, again)


def test_resume_never_starts_anew_from_a_cut_run(h5, uncut, tmp_path):
    small_trainer(h5, tmp_path, deadline=StopAfter(25)).train()
    before = outputs(tmp_path)
    fresh = small_trainer(h5, tmp_path, resume="never")
    fresh.train()
    assert_same_run(uncut, fresh)
    assert outputs(only(tmp_path / "previous")) == before


def test_resume_from_a_path_goes_on_elsewhere_and_leaves_the_source_alone(h5, uncut, cut_folder, tmp_path):
    source = cut_folder / "state"
    before = {p.name: p.read_bytes() for p in source.iterdir()}
    resumed = small_trainer(h5, tmp_path, resume=str(source))
    resumed.train()
    assert {p.name: p.read_bytes() for p in source.iterdir()} == before
    assert equal(learning_state(uncut), learning_state(resumed))
    for name in ("agent_1_final.pt", "agent_1_best.pt", "logs/training_stats.json"):
        assert (tmp_path / name).read_bytes() == (uncut.folder / name).read_bytes()


def test_resume_from_a_path_without_a_state_is_refused_naming_it(h5, tmp_path):
    with pytest.raises(CheckpointError, match="elsewhere"):
        small_trainer(h5, tmp_path, resume=str(tmp_path / "elsewhere")).train()


# -- several jobs --------------------------------------------------------------------------------


def two_jobs(h5, folder):
    place = {"h5_path": str(h5), "output_dir": str(folder), "seeds": (0, 1)}
    return RunConfig.from_flat({**TINY, **place, "sac_buffer_capacity": 200, "env_horizon": 37})


def run_two_jobs(config, vector_steps):
    clock = StopAfter(vector_steps)
    return run_jobs(config, clock, ("cpu",))  # in this process, whose looks at the clock are counted


@pytest.fixture(scope="module")
def both(h5, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    run_jobs(two_jobs(h5, folder))
    return folder


# In the second job after the first is done; in the first, so that the second never starts.
@pytest.mark.parametrize("vector_steps", [27, 13])
def test_a_queue_of_jobs_that_was_cut_goes_on_where_it_stopped(h5, both, tmp_path, vector_steps):
    config = two_jobs(h5, tmp_path)
    run_two_jobs(config, vector_steps)
    assert job_outputs.read_manifest(tmp_path)["files"]
    run_jobs(config)
    assert not list(tmp_path.rglob("previous"))
    for seed in (0, 1):
        name = f"runs/agent_1_seed_{seed}/agent_1_final.pt"
        assert (tmp_path / name).read_bytes() == (both / name).read_bytes()
    summary = files.read_json(tmp_path / "summary.json")
    assert [job["status"] for job in summary["jobs"]] == ["complete", "complete"]


def test_the_manifest_of_a_queue_is_complete_only_if_every_job_is(h5, tmp_path):
    run_two_jobs(two_jobs(h5, tmp_path), 27)
    assert job_outputs.read_manifest(tmp_path)["status"] == "cut"


def test_a_queue_goes_on_from_a_state_dataset_in_another_folder(h5, both, tmp_path, monkeypatch):
    """Job one is finished, job two is not: the next session gets both states and ends as an uncut queue."""
    first = tmp_path / "first"
    config = two_jobs(h5, first)
    run_two_jobs(config, 27)  # cut in the second job
    names = [output_layout.job_name(*job) for job in config.jobs]
    folders = {name: first / "runs" / name / "state" for name in names}
    target = tmp_path / "input" / "datasets" / "someone" / "x-state"
    index = export_states(folders, target)
    steps = tuple(index["jobs"][name]["facts"]["env_steps"] for name in names)
    assert [index["jobs"][name]["facts"]["finished"] for name in names] == [True, False]

    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    second = tmp_path / "second"
    known = (f"{checkpoint.EXPORT_INDEX} {files.file_sha256(target / checkpoint.EXPORT_INDEX)}",)
    run_jobs(dataclasses.replace(config, output_dir=str(second), expect_env_steps=steps, expect_files=known))
    for name in names:
        final = f"runs/{name}/agent_1_final.pt"
        assert (second / final).read_bytes() == (both / final).read_bytes()
    assert job_outputs.read_manifest(second)["status"] == "complete"


def test_a_state_that_is_expected_and_absent_stops_the_run(h5, tmp_path):
    with pytest.raises(CheckpointError, match=says("step 120", "step 0")):
        small_trainer(h5, tmp_path, expect_env_steps=120).train()


def mount_state(folder, target):
    """Mount the exported state of a run under `target`; return its entry of `expect_files`."""
    export_states({"agent_1_seed_0": folder / "state"}, target)
    return f"{checkpoint.EXPORT_INDEX} {files.file_sha256(target / checkpoint.EXPORT_INDEX)}"


@pytest.fixture(scope="module")
def two_states(h5, tmp_path_factory):
    """A mount with a stranger's state, which sorts first, and the run's own; and the entry of each."""
    root = tmp_path_factory.mktemp("states")
    entries = []
    for owner, steps in (("aaa", 25), ("me", 15)):
        run = root / f"run-{owner}"
        config = small_config(h5, run)
        KaggleTrainer.of_run(config, config.jobs[0], StopAfter(steps)).train()
        entries.append(mount_state(run, root / "input" / "datasets" / owner / "x-state"))
    return root / "input", entries


def small_config(h5, folder, *entries):
    changes = {
        "num_episodes": 4,
        "sac_buffer_capacity": 200,
        "env_horizon": 37,
        "expect_files": list(entries),
    }
    return RunConfig.from_flat({**TINY, **changes, "h5_path": str(h5), "output_dir": str(folder)})


def restored_steps(h5, folder, *entries):
    config = small_config(h5, folder, *entries)
    trainer = KaggleTrainer.of_run(config, config.jobs[0])
    trainer.prepare()
    trainer._start_or_resume()
    return trainer.learning.steps


def test_no_mounted_state_is_taken_unless_the_build_expects_one(h5, two_states, tmp_path, monkeypatch):
    monkeypatch.setenv("SAC_INPUT_ROOT", str(two_states[0]))
    assert restored_steps(h5, tmp_path / "a") == 0


def test_the_state_with_the_hash_is_taken_wherever_it_lies(h5, two_states, tmp_path, monkeypatch):
    root, (stranger, own) = two_states
    monkeypatch.setenv("SAC_INPUT_ROOT", str(root))
    assert restored_steps(h5, tmp_path / "a", own) == 15 * 6
    assert restored_steps(h5, tmp_path / "b", stranger) == 25 * 6


def test_a_copy_of_the_index_without_its_states_hides_nothing(h5, two_states, tmp_path, monkeypatch):
    root, (_, own) = two_states
    shutil.copytree(root, tmp_path / "input")
    rogue = tmp_path / "input" / "datasets" / "aaa" / "x-state"
    shutil.copy(rogue.parents[1] / "me" / "x-state" / checkpoint.EXPORT_INDEX, rogue)
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    assert restored_steps(h5, tmp_path / "a", own) == 15 * 6
    for path in (tmp_path / "input").rglob("*.state"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=says("agent_1_seed_0.state")):
        restored_steps(h5, tmp_path / "b", own)


def test_a_state_of_another_hash_is_refused_with_the_hashes_that_are_there(
    h5, two_states, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAC_INPUT_ROOT", str(two_states[0]))
    wanted = f"{checkpoint.EXPORT_INDEX} {'0' * 64}"
    there = [entry.split()[1][:12] for entry in two_states[1]]
    with pytest.raises(InputNotFoundError, match=says("0" * 12, *there)):
        restored_steps(h5, tmp_path / "a", wanted)


def test_only_the_ledgers_that_the_build_names_are_merged(tmp_path, monkeypatch):
    rows = {}
    for owner in ("aaa", "me", "zzz"):
        path = tmp_path / "input" / "datasets" / owner / "x-code" / trials.NAME
        files.write_text(path, f"{owner}\n")
        rows[owner] = path
    merged = []
    monkeypatch.setattr(trials, "merge", lambda target, others: merged.extend(others))
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "input"))
    config = RunConfig.from_flat({**TINY, "expect_files": [f"{trials.NAME} {files.file_sha256(rows['me'])}"]})
    job_outputs.bring_ledger(tmp_path / "out", config)
    assert merged == [rows["me"]]
