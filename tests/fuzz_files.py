"""Mutated agents, states, manifests, ledgers, bars and parameters: each gives the package's own error or works.

python -m tests.fuzz_files --count 20000       # part of `make fuzz`; the suite runs a short form

Bytes are changed blindly, and values through the format itself, with every hash made right again, so that what
lies behind the hashes is reached too. A state that is taken must train on. A process that takes 1 GB has failed.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from sac_kernel.agent.sac import SACAgent
from sac_kernel.cli.settings import parse_settings, read_settings_file
from sac_kernel.core import files
from sac_kernel.core.errors import SacKernelError
from sac_kernel.experiment import checkpoint, job_outputs, output_layout, run_config
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.kaggle.state_export import export_states
from sac_kernel.live.journal import Journal
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.stats import trials
from tests import fuzz_bars
from tests.conftest import make_data
from tests.small_runs import ENV, SAC

ROOM_BYTES = 1 << 29  # beyond what the process had before; with torch's 500 MB it stays below 1 GB
KINDS = (
    "agent", "state", "state index", "manifest", "ledger", "h5", "parameters", "settings", "journal", "toml", "opcodes",
)  # fmt: skip


_STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
_TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n("
    + _STORAGE
    + b"K\0K\4\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"
)
OPCODES = (
    b"}", b"]", b")", b"(", b"t", b"\x85", b"\x86", b"\x87", b"e", b"a", b"s", b"u", b"N", b"\x88", b"K\x01", b"0",
    b"b", b"M\x01\x02", b"J\x01\x02\x03\x04", b"G\0\0\0\0\0\0\0\0", b"X\x01\0\0\0a", b"X\xff\xff\xff\x7f", b"q\0",
    b"q\1", b"R", b"h\0", b"h\1", b"\x8a\x01\x05", b"\x8a\xff" + b"\x7f" * 255, b"ctorch\nFloatStorage\n", b"Q",
    b"\x8f",
    b"\x90", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
    b"\x96" + b"\x7f" * 8, _STORAGE, _TENSOR,
)  # fmt: skip


def deep(levels=200_000):
    """JSON text nested far deeper than any reader's stack."""
    return "[" * levels + "]" * levels


def values(rng):
    """Return a value that nobody expects."""
    return (
        None, True, -1, 0, 2**31, 2**70, 1e308, float("nan"), float("-inf"), "", "x" * 5000, "../../x", [], {},
        [[[[]]]], {"a": 1}, [1] * 1000, "\0", -0.5,
        torch.zeros(()), torch.full((3,), float("nan")), torch.zeros(1, 2, 3), torch.arange(4),
        torch.zeros(2, dtype=torch.float64), torch.zeros(0), torch.zeros(1).expand(10**12),
    )[rng.integers(26)]  # fmt: skip


def places(content):
    """Yield (container, key) of every value in nested dictionaries and lists."""
    for key in list(content if isinstance(content, dict) else range(len(content))):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from places(content[key])


def disturbed(content, rng, plain=False):
    """Return a copy with one to three values replaced, removed, added, or with a number changed in a tensor."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        spots = list(places(content))
        if not spots:
            break
        # Near the top as often as deep in a list of numbers.
        container, key = spots[int(len(spots) * rng.random() ** 3)]
        old, new, action = container[key], values(rng), rng.integers(5)
        new = 7 if plain and isinstance(new, torch.Tensor) else new
        if action == 0 and isinstance(container, dict):
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[str(rng.integers(99))] = new
        elif isinstance(old, torch.Tensor) and 0 < old.numel() < 10**7 and rng.random() < 0.5:
            container[key] = numbers_changed(old, rng)
        else:
            container[key] = new
    return content


def numbers_changed(tensor, rng):
    """Return a copy of a tensor with one number made extreme."""
    tensor = tensor.clone()
    extremes = (np.nan, np.inf, 1e30, -1e9, 1e9) if tensor.dtype.is_floating_point else (0, 1, 100)
    tensor.view(-1)[int(rng.integers(tensor.numel()))] = extremes[rng.integers(len(extremes))]
    return tensor


def pt_changed(content, rng):
    """Return the bytes of a `.pt`, changed blindly, inside its archive, or as a value."""
    kind = rng.integers(4)
    if kind == 0:
        return fuzz_bars.mutated(files.pt_bytes(content), rng)
    if kind == 1:
        buffer = io.BytesIO()
        torch.save(disturbed(content, rng), buffer)
        return buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(files.pt_bytes(content))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = next(n for n in names if n.endswith("data.pkl")) if kind == 2 else names[rng.integers(len(names))]
    members[name] = fuzz_bars.mutated(members[name], rng)
    if rng.random() < 0.1:
        members[name] += bytes(1 << 24)
    buffer = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return buffer.getvalue()


def json_changed(value, rng):
    """Return JSON text, changed blindly or as a value."""
    kind = rng.integers(12)
    if kind == 0:
        return deep().encode()
    if kind == 1:
        return (json.dumps(value)[:-1] + ', "x": ' + "9" * 5000 + "}").encode()
    if kind < 6:
        return fuzz_bars.mutated(json.dumps(value).encode(), rng)
    return json.dumps(disturbed(value, rng, plain=True)).encode()


class Bench:
    """One trained second: an agent, its state, its folder; every case starts from copies of their content."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.h5 = self.folder / "processed_data.h5"
        write_processed(make_data(1600), self.h5)
        self.out = self.folder / "out"
        self.trainer = self.make_trainer()
        self.trainer.train()
        self.agent = files.read_pt(self.out / "agent_1_best.pt")
        self.state, _ = checkpoint.load_state(self.out / "state")
        self.index = files.read_json(self.out / "state" / "state.json")
        exported = self.folder / "exported"
        self.exported = export_states({"agent_1_seed_0": self.out / "state"}, exported)
        names = ["agent_1_best.pt", "logs/training_stats.json"]
        files.write_manifest(self.out, names, {"status": "complete", "episodes": 2})
        self.manifest = files.read_json(self.out / "manifest.json")
        self.ledger = (self.out / trials.NAME).read_bytes()
        self.h5_bytes = self.h5.read_bytes()
        self.spare = self.make_trainer()
        self.spare.prepare()
        self.settled = self.spare.agent.training_state()
        self.parameters = RunConfig().flat()

    def make_trainer(self):
        return KaggleTrainer(
            self.h5, self.out, num_episodes=2, eval_frequency=1, checkpoint_frequency=1, device="cpu",
            num_envs=6, sac_config=SAC, env_config=ENV,
        )  # fmt: skip

    # -- one method a kind: write the changed file and read it as the package would

    def try_agent(self, rng):
        path = self.folder / "changed.pt"
        path.write_bytes(pt_changed(self.agent, rng))
        agent = SACAgent.from_checkpoint(path, device="cpu")
        assert np.isfinite(agent.select_action(np.zeros(agent.config.state_dim), evaluate=True)).all()

    def try_state(self, rng):
        target = self.folder / "state"
        content = pt_changed(self.state, rng)
        files.write_bytes(target / "trainer_a.state", content)
        entry = {**self.index["slots"][0], "file": "trainer_a.state", "sha256": files.sha256(content)}
        files.write_json(target / "state.json", {**self.index, "slots": [entry]})
        self.train_on(target)

    def try_state_index(self, rng):
        target = self.folder / "index"
        if rng.random() < 0.5:
            files.write_bytes(target / checkpoint.EXPORT_INDEX, json_changed(self.exported, rng))
            facts = checkpoint.exported_facts(target / checkpoint.EXPORT_INDEX)
            for job in facts:
                checkpoint.load_exported(target / checkpoint.EXPORT_INDEX, job)
            return
        for name in ("trainer_a.state", "trainer_b.state"):
            files.write_bytes(target / name, (self.out / "state" / name).read_bytes())
        files.write_bytes(target / "state.json", json_changed(self.index, rng))
        self.train_on(target)

    def train_on(self, folder):
        trainer = self.spare
        trainer._restore(folder, *checkpoint.load_state(folder))
        for _ in range(2):
            trainer.learning.advance()
        trainer._save_state(finished=False)

    def try_manifest(self, rng):
        files.write_bytes(self.out / "manifest.json", json_changed(self.manifest, rng))
        output_layout.is_reported(self.out, 1)
        job_outputs.read_manifest(self.out)

    def try_ledger(self, rng):
        path = self.folder / trials.NAME
        path.write_bytes(fuzz_bars.mutated(self.ledger, rng))
        trials.count(trials.read(path))

    def try_h5(self, rng):
        path = self.folder / "changed.h5"
        path.write_bytes(self.h5_bytes)
        if rng.random() < 0.5:
            fuzz_bars.mutate_h5(path, rng)
        else:
            path.write_bytes(fuzz_bars.mutated(self.h5_bytes, rng))
        read_processed(path)

    def try_parameters(self, rng):
        namespace = dict(self.parameters)
        names = list(namespace)
        for _ in range(int(rng.integers(1, 4))):
            namespace[names[rng.integers(len(names))]] = values(rng)
        config = run_config.from_parameters(namespace)
        assert isinstance(config.env_config(config.agent_ids[0]), TradingEnvConfig)

    def try_settings(self, rng):
        names = list(self.parameters)
        settings = []
        for _ in range(int(rng.integers(1, 4))):
            name = names[rng.integers(len(names))]
            value = values(rng)
            text = f"{name}={value if not isinstance(value, torch.Tensor) else '[' * 3000}"
            settings.append(fuzz_bars.mutated(text.encode(), rng).decode("utf-8", "replace"))
        parse_settings(settings)

    def try_journal(self, rng):
        path = self.folder / "journal.jsonl"
        lines = [{"schema": 1, "facts": self.manifest}, *({"bar": [1.0, 2.0], "equity": i} for i in range(5))]
        text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        kind = rng.integers(4)
        if kind == 0:
            text += deep().encode() + b"\n"
        path.write_bytes(text if kind == 0 else fuzz_bars.mutated(text, rng))
        with Journal(path) as journal:
            journal.append({"bar": [1.0]})
        assert len(Journal(path).lines) == len(journal.lines) + 1

    def try_toml(self, rng):
        path = self.folder / "run.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.parameters.items()]
        text = "\n".join(lines).encode()
        kind = rng.integers(6)
        if kind == 0:
            text = b"seeds = " + deep(int(rng.integers(10, 200_000))).encode()
        elif kind == 1:
            text = b"num_episodes = " + b"9" * int(rng.integers(1, 10_000))
        elif kind == 2:
            text = b".".join([b"a"] * int(rng.integers(1, 5_000))) + b" = 1"
        path.write_bytes(text if kind < 3 else fuzz_bars.mutated(text, rng))
        RunConfig.from_flat(read_settings_file(path))

    def try_opcodes(self, rng):
        """A structure of random opcodes, the allowed ones and others, some of them very often."""
        code = [b"\x80\x02"]
        for _ in range(int(rng.integers(1, 40))):
            op = OPCODES[rng.integers(len(OPCODES))] if rng.random() < 0.8 else rng.bytes(1)
            code.append(op * (int(10 ** (rng.random() * 6)) if rng.random() < 0.2 else 1))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", b"".join(code) + b".")
            archive.writestr("archive/data/0", bytes(16))
        path = self.folder / "opcodes.pt"
        path.write_bytes(buffer.getvalue())
        files.read_pt(path)

    def judge(self, number):
        """Return the kind of a case and 'worked' or 'refused'; anything else is an exception."""
        rng = np.random.default_rng([20261125, number])
        kind = KINDS[number % len(KINDS)]
        try:
            getattr(self, "try_" + kind.replace(" ", "_"))(rng)
        except SacKernelError as err:
            return kind, "refused" if len(str(err)) > 20 else f"FAILED a message that says nothing: {err}"
        return kind, "worked"


def memory_bytes():
    """Return the highest memory of this process so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def work(connection):
    """Judge case after case until told to stop."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        warnings.simplefilter("error")
        while (number := connection.recv()) is not None:
            kind = KINDS[number % len(KINDS)]
            before = memory_bytes()
            try:
                outcome = bench.judge(number)[1]
                grown = memory_bytes() - before
                if grown > ROOM_BYTES:
                    outcome = f"FAILED took {grown:,} bytes of memory"
            except BaseException as err:  # noqa: BLE001  # this is what the fuzzing looks for
                outcome = f"FAILED {type(err).__name__}: {str(err)[:200]}"
            connection.send((kind, outcome))


if __name__ == "__main__":
    raise SystemExit(fuzz_bars.main(work, __doc__))
