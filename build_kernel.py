"""Bundle the package into one Kaggle notebook, stage its datasets, and run it here or on Kaggle.

python build_kernel.py                         # build from data/processed/processed_data.h5, or the sample
python build_kernel.py --data bars.csv --price-side bid
python build_kernel.py --set num_episodes=50 --rehearse
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel import MODULES, __version__, inlined_files
from sac_kernel.cli import settings
from sac_kernel.cli.build import make_parser
from sac_kernel.cli.build_checks import check_run
from sac_kernel.core import files, paths
from sac_kernel.core.errors import ConfigError, SacKernelError
from sac_kernel.core.packages import code_hash
from sac_kernel.core.paths import CODE_MANIFEST, DATA_FILE, LOCAL_DATA
from sac_kernel.experiment import output_layout
from sac_kernel.experiment.checkpoint import EXPORT_INDEX
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.own import OWN_FILE, OwnFeatures, OwnPipeline
from sac_kernel.kaggle import kernel_notebook, probe, rehearsal, wheels
from sac_kernel.kaggle.client import KaggleClient
from sac_kernel.kaggle.run import KaggleRun, check_accelerator
from sac_kernel.prices.ingest.questions import MissingFactsError
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.report.terminal import text_table
from sac_kernel.stats import trials

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from sac_kernel.prices.processed_file import ProcessedData

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "sac_kernel"
TEMPLATE = ROOT / "notebooks" / "train.ipynb"
PROBE = ROOT / "notebooks" / "probe.ipynb"
KERNEL_METADATA = ROOT / "kernel-metadata.json"
DATASET_METADATA = ROOT / "dataset-metadata.json"
BUILD = ROOT / "build"
LEDGER = ROOT / "data" / trials.NAME
LEDGER_AT_START = BUILD / trials.NAME
WARM_START = BUILD / paths.WARM_START
DATASETS = ("data", "code")
_RETRY_S = 3.0  # first pause before a failed call is repeated


def main(arguments: list[str] | None = None) -> int:
    """Run the steps that the options name; return the exit status."""
    args = make_parser().parse_args(arguments)
    args.output = args.output or ROOT / "outputs"
    args.words = sys.argv[1:] if arguments is None else arguments
    try:
        parameters = settings.parameters(args, agent_ids="agents", seeds="seeds")
        _check_name(args.name)
        check_accelerator(args.accelerator)
        if args.probe:
            return _probe(args)
        if args.rehearse:
            data = _data(args)
            check_run(data, parameters)
            datasets = stage(data, args.name)
            notebook = build(parameters | _expected(data, datasets.values()))
            _say_built(notebook, data, parameters)
            return _rehearse(notebook, datasets, parameters, args.output, fresh=args.fresh)
        return _on_kaggle(args, parameters)
    except SacKernelError as err:
        print(f"\n{type(err).__name__}: {err}", file=sys.stderr)
        return 2


def build(parameters: Mapping[str, Any]) -> Path:
    """Write build/train.ipynb and return its path."""
    path = BUILD / "train.ipynb"
    own = Path(parameters["features_file"]) if parameters.get("features_file") else None
    baked = {**parameters, "features_file": OWN_FILE} if own else parameters
    text = kernel_notebook.build_notebook(TEMPLATE, PACKAGE, baked, code_hash(), own)
    files.write_text(path, text)
    return path


def stage(data: ProcessedData, name: str, *, going_on: bool = False) -> dict[str, Path]:
    """Write build/datasets/{data,code}, flat, each with its metadata; return slug -> folder.

    The ledger of trials in the code dataset is that of the run's start; the state dataset has the later trials.
    """
    if not going_on:
        LEDGER_AT_START.unlink(missing_ok=True)
        trials.merge(LEDGER_AT_START, [LEDGER])
    folders = {f"{name}-{kind}": BUILD / "datasets" / kind for kind in DATASETS}
    for (slug, folder), kind in zip(folders.items(), DATASETS, strict=True):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        metadata = json.loads(DATASET_METADATA.read_text(encoding="utf-8"))
        metadata |= {"id": f"INSERT_OWNER/{slug}", "title": slug.replace("-", " ")}
        if kind == "data":
            write_processed(data, folder / DATA_FILE)
        else:
            _stage_code(folder)
        files.write_json(folder / DATASET_METADATA.name, metadata)
    return folders


def _on_kaggle(args: argparse.Namespace, parameters: dict[str, Any]) -> int:
    """Run the steps on Kaggle that the options name; without credentials build and stage only."""
    client = KaggleClient(say=print, poll_s=min(args.poll_s, _RETRY_S))
    owner = client.owner()
    if owner is None:
        data = _data(args)
        check_run(data, parameters)
        datasets = stage(data, args.name)
        _say_built(build(parameters | _expected(data, datasets.values())), data, parameters)
        print(
            "\nNothing was published: there are no Kaggle credentials. Make a token at kaggle.com/settings/api and put "
            "it into\n~/.kaggle/access_token, then run this again.\nnext      python build_kernel.py --rehearse"
        )
        return 2 if _needs_kaggle(args) else 0
    run = KaggleRun(client, owner, args.name, ROOT, args.output, say=print)
    if args.stop:
        return _stop(run, sure=args.yes)
    if args.fetch:
        return _say_fetched(run.fetch(), args.output)
    if args.follow and not (args.push or args.resume or args.until_done):
        return _follow_and_fetch(run, args)
    return _sessions(run, args, parameters)


def _sessions(run: KaggleRun, args: argparse.Namespace, parameters: dict[str, Any]) -> int:
    """Prepare a session; push and follow it if the options say so; with --until-done one after another."""
    before = -1
    while True:
        run.settle()
        before = run.check_progress(before) if args.until_done else before
        config = _prepare_session(run, args, parameters)
        if not (args.push or args.resume or args.until_done):
            print("next      kaggle kernels push")
            return 0
        if args.accelerator != "none":
            run.check_quota(config["time_budget_h"])
        run.push()
        args.fresh = False  # only the first session starts over
        if not (args.follow or args.until_done):
            print("next      python build_kernel.py --follow")
            return 0
        status = _follow_and_fetch(run, args)
        if status != 0 or not args.until_done or not run.unfinished(config["num_episodes"]):
            return status


def _prepare_session(run: KaggleRun, args: argparse.Namespace, parameters: dict[str, Any]) -> dict[str, Any]:
    """Stage, publish and build one session: the first, or the next of an unfinished run."""
    data = _data(args)
    last = run.last_run().get("parameters", {})
    merged = RunConfig.from_flat({**last, **parameters})
    fresh = args.fresh or run.stays_fresh()
    going_on = not fresh and run.unfinished(merged.num_episodes)
    if args.resume and not going_on:
        msg = f"--resume: {args.output} holds no unfinished run of {run.kernel}. Fetch it with --fetch first."
        raise ConfigError(msg)
    baked = {**(last if going_on else {}), **parameters}
    folders = {kind: BUILD / "datasets" / kind for kind in DATASETS}
    stage(data, args.name, going_on=going_on)
    if going_on:
        steps = run.stage_state(merged.jobs)
        folders["state"] = BUILD / "datasets" / "state"
        print(
            f"resuming  {run.kernel} at step {', '.join(f'{n:,}' for n in steps)}; --fresh would start over"
        )
    session = _expected(data, folders.values())
    if going_on:
        session["expect_env_steps"] = steps
    if args.accelerator == "none":
        session["allow_cpu"] = True
    check_run(data, baked)
    notebook = build(baked | session)
    _say_built(notebook, data, baked)
    run.publish(folders)
    run.write_metadata(list(folders), args.accelerator)
    run.prepare(baked, fresh=fresh)
    return {"num_episodes": merged.num_episodes, "time_budget_h": merged.time_budget_h}


def _probe(args: argparse.Namespace) -> int:
    """Stage and publish the probe; with --push run it, with --follow fetch its answers."""
    client, folder = KaggleClient(say=print, poll_s=min(args.poll_s, _RETRY_S)), BUILD / "probe"
    owner = client.owner()
    digest = probe.stage_probe(folder, PROBE, owner or "INSERT_OWNER", args.name, args.accelerator)
    print(f"probe     {_relative(folder)}, {args.accelerator}")
    if owner is None:
        print("Nothing was published: there are no Kaggle credentials.")
        return 2 if _needs_kaggle(args) else 0
    run = KaggleRun(client, owner, args.name, folder, folder / "outputs", say=print, kind="probe")
    client.publish_dataset(folder / "dataset", digest, "probe", may_unpack=True)
    if not args.push:
        print(f"next      kaggle kernels push -p {_relative(folder)}")
        return 0
    run.push()
    if not args.follow:
        print(f"next      kaggle kernels output {run.kernel} -p {_relative(folder / 'outputs')}")
        return 0
    if (status := run.follow(args.poll_s)) == "COMPLETE":
        client.fetch_outputs(run.kernel, folder / "outputs")
        print(f"answers   {_relative(folder / 'outputs' / 'probe.json')}")
    return int(status != "COMPLETE")


def _follow_and_fetch(run: KaggleRun, args: argparse.Namespace) -> int:
    status = run.follow(args.poll_s)
    if status != "COMPLETE":
        print(
            f"The run ended as {status}. Kaggle keeps no outputs of such a run; the last fetched state is intact."
        )
        return 1
    return _say_fetched(run.fetch(), args.output)


def _say_fetched(manifest: Mapping[str, Any], folder: Path) -> int:
    summary = files.read_json(folder / "summary.json")
    print(f"\n{text_table(summary['table'])}\n\n{summary['verdict']['sentence']}\n")
    print(f"report    {_relative(folder / 'report.html')}")
    if manifest["status"] != "complete":
        print("next      python build_kernel.py --resume, or --until-done")
    return 0


def _stop(run: KaggleRun, *, sure: bool) -> int:
    print(
        f"--stop deletes {run.kernel} on Kaggle with its active run, its log and all outputs not fetched yet."
    )
    print("Datasets and fetched files stay.")
    if not sure and input(f"Type {run.name} to continue: ").strip() != run.name:
        print("Nothing was deleted.")
        return 1
    run.stop()
    return 0


def _expected(data: ProcessedData, folders: Iterable[Path]) -> dict[str, Any]:
    """Return the parameters by which the kernel knows its own files among all that is mounted."""
    known = {f"{name} {digest}" for name, digest in wheels.WHEELS.items()}
    staged = [folder / name for folder in folders for name in (DATA_FILE, trials.NAME, EXPORT_INDEX)]
    known |= {f"{path.name} {files.file_sha256(path)}" for path in staged if path.is_file()}
    return {"expect_data_hash": data.content_hash, "expect_files": sorted(known)}


def _needs_kaggle(args: argparse.Namespace) -> bool:
    return any((args.push, args.follow, args.fetch, args.resume, args.until_done, args.stop))


def _data(args: argparse.Namespace) -> ProcessedData:
    """Return the data to train on; data/processed/ is replaced only if the new bars are usable."""
    target = ROOT / LOCAL_DATA
    if args.data is None and target.is_file():
        path, source = target, "h5"
    elif args.data is None:
        print("No --data PATH given: using the embedded sample, 6,225 EURUSD hours of 2017.")
        path, source = None, "sample"
    else:
        path, source = args.data, "h5" if args.data.suffix.lower() in (".h5", ".hdf5") else "files"
    config = DataConfig(
        source=source,
        path=str(path or ""),
        instrument=args.instrument,
        kind=args.kind,
        instrument_spec=args.instrument_spec,
        costs=args.costs,
        price_side=args.price_side,
        clock=args.clock,
        bar_minutes=args.bar_minutes,
        accept_outliers=args.accept_outliers,
        repair_rounding=args.repair_rounding,
        embargo_hours=args.embargo_hours,
        output_path=str(target),
    )
    try:
        data = DataPipeline(config).write()
    except MissingFactsError as err:
        raise err.for_command(["python", "build_kernel.py", *args.words]) from None
    if args.features:
        own = OwnFeatures.load(args.features)
        report = assert_causal(OwnPipeline(own, data.traded), data.train)
        print(f"features  {args.features}, {report.features} columns: {report}")
    for note in filter(None, (data.cost_note, *data.notes)):
        print(f"          {note}")
    return data


def _stage_code(folder: Path) -> None:
    """Write a readable copy of the modules, the available wheels, and code_manifest.json."""
    hashes = {}
    for file in inlined_files():
        text = kernel_notebook.module_source(PACKAGE, file)
        flat = file.replace("/", ".")  # Kaggle drops folders of a dataset
        files.write_text(folder / flat, text)
        hashes[flat] = files.sha256(text.encode())
    trials.merge(folder / trials.NAME, [LEDGER_AT_START])  # empty if nothing was tried before
    if WARM_START.is_file():
        shutil.copyfile(WARM_START, folder / WARM_START.name)
    available, missing = wheels.fetch_wheels(BUILD / "wheels")
    for line in wheels.switched_off(missing):
        print(f"wheels    {line}")
    for path in available:
        shutil.copyfile(path, folder / path.name)
    manifest = {
        "version": __version__,
        "code_hash": code_hash(),
        "order": list(MODULES),
        "files": hashes,
        "wheels": {path.name: wheels.WHEELS[path.name] for path in available},
    }
    files.write_json(folder / CODE_MANIFEST, manifest)


def _rehearse(
    notebook: Path, datasets: dict[str, Path], parameters: Mapping[str, Any], output: Path, *, fresh: bool
) -> int:
    folder = BUILD / "rehearsal"
    if fresh and output_layout.move_to_previous(folder / "working"):
        print("--fresh: the outputs of the earlier rehearsal are in previous/")
    print(
        "Rehearsing: running this notebook in a folder laid out as on Kaggle, without a network.\n",
        flush=True,
    )
    done = rehearsal.rehearse(notebook, folder, datasets)
    summary = done.summary
    trials.merge(LEDGER, [done.working / trials.NAME])
    print(f"\n{text_table(summary['table'])}\n\n{summary['verdict']['sentence']}\n")
    print(f"report    {_relative(done.working / 'report.html')}\nnotebook  {_relative(done.html)}")
    fetched = files.read_json(path) if (path := output / "summary.json").is_file() else None
    plain = {k: v for k, v in parameters.items() if k not in ("num_episodes", "expect_data_hash")}
    print(rehearsal.forecast(RunConfig.from_flat(plain), summary, fetched))
    print("next      python build_kernel.py && kaggle kernels push")
    return 0


def _say_built(notebook: Path, data: ProcessedData, parameters: Mapping[str, Any]) -> None:
    size = kernel_notebook.client_text_bytes(notebook.read_text(encoding="utf-8"))
    bars = {name: sum(len(b) for b in split.values()) for name, split in data.splits.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in bars.items())
    others = f" beside {', '.join(sorted(set(data.train) - {data.traded}))}" if len(data.train) > 1 else ""
    what = f"{data.bar_seconds // 60}-minute {data.price_side} bars"
    print(f"data      {data.traded} is traded{others}, {what}: {counts}")
    for line in data.cost_lines():
        print(f"costs     {line}")
    print(f"notebook  {_relative(notebook)}, {size / 1000:.0f} kB as sent, code {code_hash()[:12]}")
    if parameters:
        print("baked in  " + ", ".join(f"{k} = {v!r}" for k, v in parameters.items()))
    print(f"datasets  {_relative(BUILD / 'datasets')}{os.sep}{{{','.join(DATASETS)}}}")


def _check_name(name: str) -> None:
    ok = name.isascii() and all(part.isalnum() and part.islower() for part in name.split("-"))
    if not ok or not 3 <= len(name) <= 40:
        msg = f"--name must be 3 to 40 lower-case letters, digits and single hyphens, got {name!r}"
        raise ConfigError(msg)


def _relative(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    raise SystemExit(main())
