"""One command line: what each command takes, what it refuses, what loads, and the older spellings."""

import argparse
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

from sac_kernel.cli import build, options, settings
from sac_kernel.cli import main as cli
from sac_kernel.cli import retrain as retrain_command
from sac_kernel.core.checkout import find_checkout
from sac_kernel.core.errors import ConfigError, InputNotFoundError
from sac_kernel.experiment.run_config import PARAMETERS, RUN_PRESETS
from sac_kernel.live import retrain
from tests.conftest import make_bars

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "evaluate": ["--model", "a.pt"],
    "decide": ["--model", "a.pt"],
    "judge": ["policy.py"],
    "paper": ["--model", "a.pt", "--bars", "b.csv", "--journal", "j"],
}
"""Words without which a command is refused."""


def parsed(command, *words):
    given = [command, *REQUIRED.get(command, []), *words]
    return cli.make_parser(given).parse_args(given)


def actions_of(command):
    parser = cli.make_parser([command])
    (commands,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return commands.choices[command]._actions


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    visible = [a for a in actions_of(command) if a.help != argparse.SUPPRESS and a.option_strings]
    assert len(visible) >= 3
    assert all(action.option_strings[0] in said for action in visible)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_an_option_has_one_spelling_and_a_line_of_help(command):
    shown = [a for a in actions_of(command) if a.help != argparse.SUPPRESS and a.option_strings]
    assert all(a.option_strings == [f"--{a.dest.replace('_', '-')}"] for a in shown if a.dest != "help")
    assert all(a.help for a in shown)
    shared = {name.replace("-", "_") for name in options.SHARED}
    kinds = {a.dest: a.type for a in shown if a.dest in shared}
    assert all(kind == options.SHARED[name.replace("_", "-")].get("type") for name, kind in kinds.items())


def test_defaults_stand_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["decide", "--help"])
    said = capsys.readouterr().out
    assert "(default: 100000.0)" in said
    assert "(default: 0)" in said  # an account without a position


def test_the_list_of_commands_loads_neither_torch_nor_pandas():
    code = (
        "import sys, sac_kernel.cli.main as m\ntry: m.main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'pandas', 'numpy', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize(
    "words",
    [[], ["trainn"], ["train", "--agentz", "1"], ["train", "--agents", "x"], ["paper"], ["train", "--", "x"]],
)
def test_a_wrong_command_line_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_error_of_the_package_ends_with_2_and_its_message(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "--model", "a.pt", "--data", "none.h5"]) == 2
    assert "a.pt" in caplog.text or "none.h5" in caplog.text


# -- older spellings


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("train", "--h5-path x.h5", "--data x.h5"),
        ("train", "--output-dir out", "--output out"),
        ("train", "--agent-id 2", "--agents 2"),
        ("train", "--seed 7", "--seeds 7"),
        ("train", "--num-episodes 5 --eval-frequency 2", "--set num_episodes=5 --set eval_frequency=2"),
        (
            "train",
            "--checkpoint-frequency 3 --resume never",
            "--set checkpoint_frequency=3 --set resume=never",
        ),
        ("sweep", "--h5-path x.h5", "--data x.h5"),
        ("walk-forward", "--h5-path x.h5", "--data x.h5"),
        ("walk-forward", "--reward log_return", "--set env_reward=log_return"),
        ("walk-forward", "--seed-count 2", "--seeds 0,1"),
        ("paper", "--history x.h5", "--data x.h5"),
        ("retrain", "--agent-id 3", "--agents 3"),
    ],
)
def test_an_older_spelling_means_the_new_one(command, old, new):
    assert vars(parsed(command, *old.split())) == vars(parsed(command, *new.split()))


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("train_sac_kaggle", "train"),
        ("paper", "paper"),
        ("export", "export"),
        ("retrain", "retrain"),
        ("sweep", "sweep"),
        ("walk_forward", "walk-forward"),
        ("__main__", None),
    ],
)
def test_an_older_module_calls_the_one_command_line(module, command, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "main", lambda words=None: seen.append(words) or 0)
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "3"])
    monkeypatch.delitem(sys.modules, f"sac_kernel.{module}", raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"sac_kernel.{module}", run_name="__main__")
    assert end.value.code == 0
    option = "--seed-count" if command == "walk-forward" else "--seeds"
    assert seen == [[command, option, "3"] if command else None]


# -- parameters: settings file, preset, --set, options


def run_file(folder, text):
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def parameters(*words):
    names = {
        "h5_path": "data",
        "output_dir": "output",
        "agent_ids": "agents",
        "seeds": "seeds",
        "device": "device",
    }
    return settings.parameters(parsed("train", *words), **names)


def test_what_comes_later_counts(tmp_path):
    path = run_file(
        tmp_path, 'num_episodes = 7\neval_frequency = 7\nseeds = [7]\nsac_gamma = 0.7\ndevice = "cuda"'
    )
    assert parameters("--config", str(path)) == {
        "num_episodes": 7, "eval_frequency": 7, "seeds": [7], "sac_gamma": 0.7, "device": "cuda",
    }  # fmt: skip
    found = parameters(
        "--config", str(path), "--preset", "quick", "--set", "eval_frequency=8", "--set", "sac_gamma=.8",
        "--set", "seeds=[8]", "--seeds", "9", "--device", "cpu",
    )  # fmt: skip
    episodes, _, checkpoints = RUN_PRESETS["quick"]
    assert found == {
        "num_episodes": episodes, "eval_frequency": 8, "checkpoint_frequency": checkpoints, "sac_gamma": 0.8,
        "seeds": [9], "device": "cpu",
    }  # fmt: skip


def test_values_are_judged_together_and_not_one_file_at_a_time(tmp_path):
    path = run_file(tmp_path, 'learner = "gaussian"\nenv_episode_length = 50')
    with pytest.raises(ConfigError, match="divide"):
        parameters("--config", str(path))
    assert parameters("--config", str(path), "--set", "num_envs=5") == {
        "learner": "gaussian",
        "env_episode_length": 50,
        "num_envs": 5,
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("num_episode = 5", "num_episodes"),
        ("[sac]\ngamma = 0.9", "sac"),
        ("num_episodes = 5.0", "num_episodes"),
        ("num_episodes = '5'", "num_episodes"),
        ("seeds = 3", "seeds"),
        ("seeds = [[1]]", "seeds"),
        ("sac_learning_rate = inf", "sac_learning_rate"),
        ("num_episodes = ", "run.toml"),
        ("num_episodes: 5", "run.toml"),
        ("num_episodes = 5\nnum_episodes = 6", "run.toml"),
    ],
)
def test_a_wrong_settings_file_is_refused_by_name(tmp_path, text, named):
    path = run_file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        settings.read_settings_file(path)
    assert named in str(refused.value)
    assert "run.toml" in str(refused.value)


def test_a_settings_file_that_is_absent_a_folder_or_not_text_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"none\.toml"):
        settings.read_settings_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError):
        settings.read_settings_file(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.toml"):
        settings.read_settings_file(tmp_path / "x.toml")


def test_an_old_name_in_a_settings_file_is_taken_with_a_warning(tmp_path):
    path = run_file(tmp_path, 'env_min_order = 0.2\nenv_cost_tier = "spec"')
    with pytest.warns(FutureWarning):
        assert parameters("--config", str(path)) == {"env_no_trade_band": 0.2, "env_cost_tier": "retail"}


def test_every_parameter_stands_in_the_help_of_a_command_that_takes_them(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    said = capsys.readouterr().out
    assert [name for name in PARAMETERS if f"  {name} = " not in said] == []


def test_a_walk_forward_takes_settings_of_agent_and_account_only(tmp_path, caplog):
    words = ["walk-forward", "--data", "x.h5", "--output", str(tmp_path / "out"), "--set", "num_episodes=5"]
    assert cli.main(words) == 2
    assert "num_episodes" in caplog.text
    assert not (tmp_path / "out").exists()


# -- the clone


def test_the_clone_is_found_from_the_current_folder_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError, match=r"build_kernel\.py"):
        find_checkout()
    for name in ("sac_kernel", "notebooks", "deep/er"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("build_kernel.py", "notebooks/train.ipynb"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "deep" / "er")
    assert find_checkout() == tmp_path


def test_a_build_of_another_clone_is_refused_naming_both(tmp_path, monkeypatch, caplog):
    for name in ("sac_kernel", "notebooks"):
        (tmp_path / name).mkdir()
    for name in ("build_kernel.py", "notebooks/train.ipynb"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["build"]) == 2
    assert str(ROOT) in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_build_in_the_clone_is_build_kernel_with_the_same_words():
    done = subprocess.run(
        [sys.executable, "-m", "sac_kernel", "build", "--set", "sac_gama=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "sac_gamma" in done.stderr  # build_kernel.py itself has read them


def test_a_rehearsal_is_a_build_with_its_flag(monkeypatch):
    seen = []
    monkeypatch.setattr(build, "run_build_kernel", lambda words: seen.append(words) or 0)
    assert cli.main(["rehearse", "--set", "num_episodes=1"]) == 0
    assert seen == [["--set", "num_episodes=1", "--rehearse"]]


def test_settings_reach_the_build_of_a_retraining(tmp_path, monkeypatch):
    seen = {}
    bars = types.SimpleNamespace(
        content_hash="1" * 64, traded="EURUSD", train={"EURUSD": None}, test={"EURUSD": make_bars(3)}
    )

    def train(start, agent_id, file, data, store, *, kaggle, more):
        seen.update(start=start, agent_id=agent_id, data=file, kaggle=kaggle, more=more)
        return tmp_path / "candidate.pt"

    monkeypatch.setattr(retrain_command, "find_checkout", lambda: tmp_path)
    monkeypatch.setattr(retrain, "read_processed", lambda path: bars)
    monkeypatch.setattr(retrain, "append_bars", lambda *args: bars)
    monkeypatch.setattr(retrain, "train", train)
    monkeypatch.setattr(retrain, "judge", lambda *args: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    words = ["--data", "x.h5", "--models", str(tmp_path), "--bars", "b", "--agents", "2", "--kaggle"]
    settings = ["--set", "num_episodes=5", "--", "--fresh"]
    assert cli.main(["retrain", *words, *settings]) == retrain_command.REJECTED
    more = ["--set", "num_episodes=5", "--fresh"]
    assert seen == {"start": None, "agent_id": 2, "data": Path("x.h5"), "kaggle": True, "more": more}
