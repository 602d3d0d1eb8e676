"""Bundle the package into one Kaggle notebook, stage its datasets, and run it here or on Kaggle.

python build_kernel.py                         # build from data/processed/processed_data.h5, or the sample
python build_kernel.py --data bars.csv --price-side bid
python build_kernel.py --set num_episodes=50 --rehearse
"""

from __future__ import annotations

from sac_kernel.core import interrupts

if __name__ == "__main__":
    interrupts.end_at_once()  # the imports below take seconds

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel import MODULES, __version__, inlined_files
from sac_kernel.cli import ending, options, settings
from sac_kernel.cli.build import make_parser
from sac_kernel.cli.build_checks import FOLDS, check_run, data_hashes, fold_lines, with_folds
from sac_kernel.core import files, homes, locks
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.core.homes import Home
from sac_kernel.core.packages import code_hash
from sac_kernel.core.paths import CODE_MANIFEST, DATA_FILE
from sac_kernel.experiment import output_layout
from sac_kernel.experiment.checkpoint import EXPORT_INDEX, FOLDS_FILE
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.checks import OwnPipeline, described, read_series
from sac_kernel.features.own import OWN_FILE, OwnFeatures
from sac_kernel.features.series import FILE_PREFIX
from sac_kernel.kaggle import kernel_notebook, probe, rehearsal, wheels
from sac_kernel.kaggle.client import KaggleClient
from sac_kernel.kaggle.run import (
    KERNEL_METADATA,
    OWNER_PLACEHOLDER,
    KaggleRun,
    check_accelerator,
    in_words,
    kernel_metadata,
)
from sac_kernel.prices.ingest.questions import MissingFactsError
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig, DataPipeline
from sac_kernel.prices.processed_file import read_processed
from sac_kernel.report.terminal import text_table
from sac_kernel.stats import ledgers, trials

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

    from sac_kernel.prices.processed_file import ProcessedData

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "sac_kernel"
TEMPLATE = ROOT / "notebooks" / "train.ipynb"
PROBE = ROOT / "notebooks" / "probe.ipynb"
DATASET_METADATA = ROOT / "dataset-metadata.json"
DATASETS = ("data", "code")
_RETRY_S = 3.0  # first pause before a failed call is repeated
_DATA_WAIT_S = 120.0  # for another command that writes the same bars


def main(arguments: list[str] | None = None) -> int:
    """Run the steps that the options name; return the exit status."""
    args = make_parser().parse_args(arguments)
    args.words = sys.argv[1:] if arguments is None else arguments
    return ending.run(lambda: _run(args), lambda text: print(f"\n{text}", file=sys.stderr))


def _run(args: argparse.Namespace) -> int:
    for path in filter(None, (ROOT, args.data, args.output)):
        _check_path(path)
    parameters = settings.parameters(args, agent_ids="agents", seeds="seeds", instruments="instruments")
    options.settle_instruments(args, parameters)
    homes.check_name(args.name)
    check_accelerator(args.accelerator)
    home = Home(ROOT, args.name)
    args.output = args.output or home.outputs
    if args.stop:
        return _stop(args, home)
    with locks.hold(home.build):
        home.take_over(print)
        if args.probe:
            return _probe(args, home)
        return _rehearse(args, home, parameters) if args.rehearse else _on_kaggle(args, home, parameters)


def build(
    parameters: Mapping[str, Any],
    home: Home,
    data: ProcessedData,
    folders: Iterable[Path],
    run_id: str = "",
    *,
    fresh_of: str = "",
) -> tuple[str, str]:
    """Return the notebook's text and the id of its run.

    Parameters
    ----------
    parameters : checked overrides
    folders : staged datasets
    run_id : of the run that this session continues; '' makes one of name, parameters, bars and code
    fresh_of : id of the run whose outputs lie in the home; a new run of the same content gets another one
    """
    own = Path(parameters["features_file"]) if parameters.get("features_file") else None
    parameters = {**parameters, "features_file": OWN_FILE} if own else parameters
    if several := parameters.get("series_files"):
        parameters = {**parameters, "series_files": [_series_name(path) for path in several]}
    expected = _expected(data, folders)
    if not run_id:
        of_run = [parameters, {"expect_data_hash": data.content_hash}, code_hash()]
        of_run += [view.content_hash for view in _traded(data, parameters)[1:]]
        digest = files.content_hash(of_run)[:12]
        run_id = _other_than(fresh_of, f"{home.name}-{digest}")
    baked = {**parameters, **expected, "run_id": run_id}
    blank = kernel_notebook.build_notebook(TEMPLATE, PACKAGE, baked, code_hash(), own)
    baked["notebook_hash"] = files.sha256(blank.encode())
    return kernel_notebook.build_notebook(TEMPLATE, PACKAGE, baked, code_hash(), own), run_id


def _expected(data: ProcessedData, folders: Iterable[Path]) -> dict[str, Any]:
    """Return the parameters by which the kernel knows its own files among all that is mounted."""
    known = {f"{name} {digest}" for name, digest in wheels.WHEELS.items()}
    wanted = (DATA_FILE, trials.NAME, EXPORT_INDEX, f"*{FOLDS_FILE}", f"{FILE_PREFIX}*")
    staged = [path for folder in folders for name in wanted for path in folder.glob(name)]
    known |= {f"{path.name} {files.file_sha256(path)}" for path in staged}
    return {"expect_data_hash": data.content_hash, "expect_files": sorted(known)}


def _series_name(path: str | Path) -> str:
    return FILE_PREFIX + Path(path).name.removeprefix(FILE_PREFIX)


def stage(
    data: ProcessedData, home: Home, parameters: Mapping[str, Any] | None = None, *, going_on: bool = False
) -> dict[str, Path]:
    """Write the data and code datasets of a home, flat, each with its metadata; return kind -> folder.

    The ledger of trials in the code dataset is that of the run's start; the state dataset has the later trials. The
    data dataset has the extra series of the parameters beside the bars.

    Raises
    ------
    DataError
        If a folder does not hold what was written to it.
    """
    if not going_on:
        home.ledger_at_start.unlink(missing_ok=True)
        ledgers.keep(home.ledgers, ())
        hashes = data_hashes(data, (parameters or {}).get("instruments"))
        known = [ledgers.of_data(home.ledgers, digest) for digest in hashes]
        trials.merge(home.ledger_at_start, known)
    folders = {kind: home.dataset(kind) for kind in DATASETS}
    for kind, folder in folders.items():
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        slug = f"{home.name}-{kind}"
        metadata = json.loads(DATASET_METADATA.read_text(encoding="utf-8"))
        metadata |= {"id": f"{OWNER_PLACEHOLDER}/{slug}", "title": slug.replace("-", " ")}
        if kind == "data":
            write_processed(data, folder / DATA_FILE)
            _stage_series(folder, parameters or {})
        else:
            _stage_code(folder, home)
        files.write_json(folder / DATASET_METADATA.name, metadata)
    _check_staged(folders, data)
    return folders


def _stage_series(folder: Path, parameters: Mapping[str, Any]) -> None:
    for path in parameters.get("series_files", ()):
        shutil.copyfile(path, folder / _series_name(path))


def _check_staged(folders: Mapping[str, Path], data: ProcessedData) -> None:
    """Raise DataError unless the staged folders hold what the notebook expects."""
    manifest = files.read_object(folders["code"] / CODE_MANIFEST)
    wrong = [
        name
        for listed in (manifest["files"], manifest["wheels"])
        for name, digest in listed.items()
        if files.file_sha256(folders["code"] / name) != digest
    ]
    if manifest["code_hash"] != code_hash():
        wrong.append(CODE_MANIFEST)
    if read_processed(folders["data"] / DATA_FILE).content_hash != data.content_hash:
        wrong.append(DATA_FILE)
    if wrong:
        msg = f"{', '.join(wrong[:3])} changed while it was staged. Nothing was published: run the command again."
        raise DataError(msg)


def _on_kaggle(args: argparse.Namespace, home: Home, parameters: dict[str, Any]) -> int:
    """Run the steps on Kaggle that the options name; without credentials build and stage only."""
    client = KaggleClient(say=print, poll_s=min(args.poll_s, _RETRY_S))
    owner = client.owner()
    if owner is None:
        return _build_only(args, home, parameters)
    run = KaggleRun(client, owner, home, args.output, say=print)
    if args.fetch:
        return _say_fetched(run, run.fetch(), args.output)
    if args.follow and not (args.push or args.resume or args.until_done):
        return _follow_and_fetch(run, args)
    return _sessions(run, args, home, parameters)


def _build_only(args: argparse.Namespace, home: Home, parameters: dict[str, Any]) -> int:
    """Build and stage without credentials; the metadata then names no owner, so that no push can mix versions."""
    data = _data(args, home, parameters)
    parameters = with_folds(data, parameters)
    check_run(data, parameters)
    notebook, _ = build(parameters, home, data, stage(data, home, parameters).values())
    path, metadata = (
        home.kernel_folder / KERNEL_METADATA,
        kernel_metadata(home, OWNER_PLACEHOLDER, DATASETS, args.accelerator),
    )
    if not path.is_file() or json.loads(path.read_text(encoding="utf-8")) != metadata:
        home.notebook.unlink(missing_ok=True)
        files.write_text(path, json.dumps(metadata, indent=2) + "\n")
    files.write_text(home.notebook, notebook)
    _say_built(home.notebook, notebook, home, data, parameters)
    print(
        "\nNothing was published: there are no Kaggle credentials. Make a token at kaggle.com/settings/api and put "
        f"it into\n~/.kaggle/access_token, then run this again.\n"
        f"next      python build_kernel.py{_named(home)}{_traded_words(args)} --rehearse"
    )
    return 2 if _needs_kaggle(args) else 0


def _sessions(run: KaggleRun, args: argparse.Namespace, home: Home, parameters: dict[str, Any]) -> int:
    """Prepare a session; push and follow it if the options say so; with --until-done one after another."""
    before = -1
    while True:
        run.settle(fresh=args.fresh)
        before = run.check_progress(before) if args.until_done else before
        num_episodes = _prepare_session(run, args, home, parameters)
        if not (args.push or args.resume or args.until_done):
            print(f"next      kaggle kernels push{'' if home.is_default else f' -p {_relative(home.build)}'}")
            return 0
        run.push()
        args.fresh = False  # only the first session starts over
        if not (args.follow or args.until_done):
            print(f"next      {run.words} --follow")
            return 0
        status = _follow_and_fetch(run, args)
        if status != 0 or not args.until_done or not run.unfinished(num_episodes):
            return status


def _prepare_session(run: KaggleRun, args: argparse.Namespace, home: Home, parameters: dict[str, Any]) -> int:
    """Stage, publish and build one session: the first, or the next of an unfinished run; return its episodes."""
    interrupts.advise("Nothing was published or pushed. The same command starts again.")
    data = _data(args, home, parameters)
    last = run.last_run()
    before = last.get("parameters", {})
    merged = RunConfig.from_flat({**before, **parameters})
    fresh = args.fresh or run.stays_fresh()
    going_on = not fresh and run.unfinished(merged.num_episodes)
    if args.resume and not going_on:
        msg = f"--resume: {args.output} holds no unfinished run of {run.kernel}. Fetch it with --fetch first."
        raise ConfigError(msg)
    baked = {**before, **parameters} if going_on else with_folds(data, parameters)
    check_run(data, baked)
    session: dict[str, Any] = {}
    if args.accelerator == "none":
        session["allow_cpu"] = True
    else:
        budget_h = RunConfig.from_flat(baked).time_budget_h
        session |= {"time_budget_h": h} if (h := run.budget_h(budget_h)) != budget_h else {}
    folders = stage(data, home, baked, going_on=going_on)
    if going_on:
        steps = run.stage_state(merged, data_hashes(data, baked.get("instruments")))
        session["expect_env_steps"] = steps
        folders["state"] = home.dataset("state")
        print(
            f"resuming  {run.kernel} at step {', '.join(f'{n:,}' for n in steps)}; --fresh would start over"
        )
    continued = last.get("run", "") if going_on else ""
    notebook, run_id = build(
        baked | session, home, data, folders.values(), continued, fresh_of=_run_in(args.output)
    )
    _say_built(home.notebook, notebook, home, data, baked)
    digests = run.publish(folders, allow_public=args.allow_public)
    run.write_kernel(notebook, folders, args.accelerator)
    run.prepare(baked, run_id, digests, fresh=fresh)
    return merged.num_episodes


def _run_in(outputs: Path) -> str:
    """Return the id of the run whose outputs lie in a folder; '' if none do."""
    path = outputs / "manifest.json"
    return output_layout.run_id(files.read_object(path)) if path.is_file() else ""


def _other_than(taken: str, run_id: str) -> str:
    """Return the id, with a number behind it if the last run has it already."""
    if taken == run_id:
        return f"{run_id}-2"
    base, _, number = taken.rpartition("-")
    return f"{run_id}-{int(number) + 1}" if base == run_id and number.isdigit() else run_id


def _probe(args: argparse.Namespace, home: Home) -> int:
    """Stage and publish the probe; with --push run it, with --follow fetch its answers."""
    client, folder = KaggleClient(say=print, poll_s=min(args.poll_s, _RETRY_S)), home.build / "probe"
    owner = client.owner()
    digest = probe.stage_probe(folder, PROBE, owner or OWNER_PLACEHOLDER, args.name, args.accelerator)
    print(f"probe     {_relative(folder)}, {args.accelerator}")
    if owner is None:
        print("Nothing was published: there are no Kaggle credentials.")
        return 2 if _needs_kaggle(args) else 0
    run = KaggleRun(client, owner, home, folder / "outputs", say=print, kind="probe", folder=folder)
    run.check_target(f"{run.kernel}-data", allow_public=args.allow_public)
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
            f"The run {in_words(status)}. Kaggle keeps no outputs of such a run; the last fetched state is intact."
        )
        return 1
    return _say_fetched(run, run.fetch(), args.output)


def _say_fetched(run: KaggleRun, manifest: Mapping[str, Any], folder: Path) -> int:
    summary = files.read_json(folder / "summary.json")
    print(f"\n{text_table(summary['table'])}\n\n{summary['verdict']['sentence']}\n")
    print(f"report    {_relative(folder / 'report.html')}")
    if manifest["status"] != "complete":
        print(f"next      {run.words} --resume, or --until-done")
    return 0


def _stop(args: argparse.Namespace, home: Home) -> int:
    """Delete the kernel; this works while another command follows it."""
    client = KaggleClient(say=print, poll_s=min(args.poll_s, _RETRY_S))
    owner = client.owner()
    if owner is None:
        print("There are no Kaggle credentials.")
        return 2
    run = KaggleRun(client, owner, home, args.output, say=print)
    interrupts.advise("The deletion may have taken effect: the same command tells.")
    print(
        f"--stop deletes {run.kernel} on Kaggle with its active run, its log and all outputs not fetched yet."
    )
    print("Datasets and fetched files stay.")
    if not args.yes and input(f"Type {run.name} to continue: ").strip() != run.name:
        print("Nothing was deleted.")
        return 1
    run.stop()
    return 0


def _needs_kaggle(args: argparse.Namespace) -> bool:
    return any((args.push, args.follow, args.fetch, args.resume, args.until_done, args.stop))


def _data(args: argparse.Namespace, home: Home, parameters: Mapping[str, Any]) -> ProcessedData:
    """Return the data to train on; those of the home are replaced only if the new bars are usable."""
    local = next((path for path in (home.data, Home(ROOT, homes.DEFAULT_NAME).data) if path.is_file()), None)
    if args.data is not None:
        path, source = args.data, options.source_of(args.data)
    elif local is not None:
        path, source = local, "h5"
    else:
        print("No --data PATH given: using the embedded sample, 6,225 EURUSD hours of 2017.")
        path, source = None, "sample"
    config = DataConfig(
        source=source,
        path=str(path or ""),
        **{name: getattr(args, name) for name in options.SOURCE},
        instruments=tuple(args.instruments),
        embargo_hours=args.embargo_hours,
        folds=0 if source == "sample" else parameters.get("folds", FOLDS),
        output_path=str(home.data),
    )
    try:
        with locks.hold(home.data.parent, wait_s=_DATA_WAIT_S):
            data = DataPipeline(config).write()
    except MissingFactsError as err:
        raise err.for_command(["python", "build_kernel.py", *args.words]) from None
    views, several = _traded(data, vars(args)), read_series(args.series)
    if own := OwnFeatures.of(OwnFeatures.load(args.features) if args.features else None, several):
        named = ", ".join(str(path) for path in (args.features, *args.series) if path)
        for view in views:
            report = assert_causal(OwnPipeline(own, view.traded, data.bar_seconds), data.train)
            print(f"features  {named}, {report.features} columns: {report}")
    for one in several:
        print(f"series    {described(one)}")
    for note in filter(None, (*(view.cost_note for view in views), *data.notes)):
        print(f"          {note}")
    return data


def _stage_code(folder: Path, home: Home) -> None:
    """Write a readable copy of the modules, the available wheels, and code_manifest.json."""
    hashes = {}
    for file in inlined_files():
        text = (PACKAGE / file).read_bytes().decode("utf-8").replace("\r\n", "\n")
        flat = file.replace("/", ".")  # Kaggle drops folders of a dataset
        files.write_text(folder / flat, text)
        hashes[flat] = files.sha256(text.encode())
    trials.merge(folder / trials.NAME, [home.ledger_at_start])  # empty if nothing was tried before
    if home.warm_start.is_file():
        shutil.copyfile(home.warm_start, folder / home.warm_start.name)
    available, missing = wheels.fetch_wheels(ROOT / "build" / "wheels")
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


def _rehearse(args: argparse.Namespace, home: Home, parameters: dict[str, Any]) -> int:
    """Build into the rehearsal's own folder, so that what is ready for a push stays as it is, and run it."""
    interrupts.advise("Nothing was run yet. The same command starts again.")
    data = _data(args, home, parameters)
    parameters = with_folds(data, parameters)
    check_run(data, parameters)
    datasets = stage(data, home, parameters)
    text, _ = build(parameters, home, data, datasets.values())
    folder = home.rehearsal
    notebook = folder / "built" / "train.ipynb"
    files.write_text(notebook, text)
    _say_built(notebook, text, home, data, parameters)
    if args.fresh and output_layout.move_to_previous(folder / "working"):
        print("--fresh: the outputs of the earlier rehearsal are in previous/")
    print(
        "Rehearsing: running this notebook in a folder laid out as on Kaggle, without a network.\n",
        flush=True,
    )
    done = rehearsal.rehearse(
        notebook, folder, {f"{home.name}-{kind}": path for kind, path in datasets.items()}
    )
    summary = done.summary
    ledgers.keep(home.ledgers, [done.working / trials.NAME])
    print(f"\n{text_table(summary['table'])}\n\n{summary['verdict']['sentence']}\n")
    print(f"report    {_relative(done.working / 'report.html')}\nnotebook  {_relative(done.html)}")
    fetched = files.read_json(path) if (path := args.output / "summary.json").is_file() else None
    print(rehearsal.forecast(rehearsal.full_run(parameters), summary, fetched))
    words = f"python build_kernel.py{_named(home)}{_traded_words(args)}"
    where = "" if home.is_default else f" -p {_relative(home.build)}"
    print(f"next      {words} && kaggle kernels push{where}")
    return 0


def _say_built(
    notebook: Path, text: str, home: Home, data: ProcessedData, parameters: Mapping[str, Any]
) -> None:
    size = kernel_notebook.client_text_bytes(text)
    bars = {name: sum(len(b) for b in split.values()) for name, split in data.splits.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in bars.items())
    views = _traded(data, parameters)
    names = [view.traded for view in views]
    traded = f"{names[0]} is traded" if len(names) == 1 else f"{', '.join(names)} are traded, each by itself"
    rest = sorted(set(data.train) - set(names))
    others = f" beside {', '.join(rest)}" if rest else ""
    what = f"{data.bar_seconds // 60}-minute {data.price_side} bars"
    print(f"data      {traded}{others}, {what}: {counts}")
    if len(names) > 1:
        print(
            f"          {names[0]}'s bars set the splits. The run trains {len(names)} times as much as for one."
        )
    for line in (line for view in views for line in view.cost_lines()):
        print(f"costs     {line}")
    print(f"notebook  {_relative(notebook)}, {size / 1000:.0f} kB as sent, code {code_hash()[:12]}")
    for line in fold_lines(data, parameters):
        print(f"folds     {line}")
    if parameters:
        print("baked in  " + ", ".join(f"{k} = {v!r}" for k, v in parameters.items()))
    print(f"datasets  {_relative(home.build / 'datasets')}{os.sep}{{{','.join(DATASETS)}}}")


def _traded(data: ProcessedData, parameters: Mapping[str, Any]) -> list[ProcessedData]:
    """Return the data as each traded instrument of the run has them, in order."""
    return [data.trading(name) for name in parameters.get("instruments") or (data.traded,)]


def _check_path(path: Path) -> None:
    """Raise ConfigError for a path that notebooks and settings cannot hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError as err:
        shown = str(path).encode(errors="backslashreplace").decode()
        msg = f"{shown}: this name is not valid UTF-8. Rename the file or folder."
        raise ConfigError(msg) from err


def _traded_words(args: argparse.Namespace) -> str:
    """Return the option that a later command needs to trade the same instruments; the h5 names a single one."""
    return f" --instruments {','.join(args.instruments)}" if args.instruments else ""


def _named(home: Home) -> str:
    return "" if home.is_default else f" --name {home.name}"


def _relative(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    raise SystemExit(main())
