"""Bundle the package into one Kaggle notebook, stage its datasets, and rehearse the run at home.

python build_kernel.py                         # build from data/processed/processed_data.h5, or the sample
python build_kernel.py --data bars.csv --price-side bid
python build_kernel.py --set num_episodes=50 --rehearse
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sac_kernel import MODULES, __version__, files, job_outputs, kernel_notebook, rehearsal, report
from sac_kernel.data_pipeline import DataConfig, DataPipeline, ProcessedData, read_processed, write_processed
from sac_kernel.errors import ConfigError, SacKernelError
from sac_kernel.runtime import DATA_FILE, LOCAL_DATA
from sac_kernel.train_sac_kaggle import code_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "sac_kernel"
TEMPLATE = ROOT / "notebooks" / "train.ipynb"
KERNEL_METADATA = ROOT / "kernel-metadata.json"
DATASET_METADATA = ROOT / "dataset-metadata.json"
BUILD = ROOT / "build"
DATASETS = ("data", "code")
DEFAULT_NAME = "sac-trading"


def main(arguments: list[str] | None = None) -> int:
    """Build, stage and, if asked, rehearse; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        parameters = kernel_notebook.parse_settings(args.set)
        _check_name(args.name)
        data = _data(args)
        notebook = build(parameters)
        datasets = stage(data, args.name)
        _say_built(notebook, data, parameters)
        if args.rehearse:
            return _rehearse(notebook, datasets, fresh=args.fresh)
        _say_not_published(args.name)
    except SacKernelError as err:
        print(f"\n{type(err).__name__}: {err}", file=sys.stderr)
        return 2
    return 0


def build(parameters: Mapping[str, Any]) -> Path:
    """Write build/train.ipynb and return its path."""
    path = BUILD / "train.ipynb"
    text = kernel_notebook.build_notebook(TEMPLATE, PACKAGE, parameters, code_hash())
    files.write_text(path, text)
    return path


def stage(data: ProcessedData, name: str) -> dict[str, Path]:
    """Write build/datasets/{data,code}, flat, each with its metadata; return slug -> folder."""
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


def find_owner() -> str | None:
    """Return the Kaggle user name of the credentials on this machine, or None; the key is never read."""
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return os.environ["KAGGLE_USERNAME"]
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    candidates = [Path(folder)] if folder else [Path.home() / ".kaggle", Path.home() / ".config" / "kaggle"]
    for path in (c / "kaggle.json" for c in candidates):
        if path.is_file():
            try:
                return str(json.loads(path.read_text(encoding="utf-8"))["username"])
            except (ValueError, KeyError) as err:
                msg = f"{path}: {{'username', 'key'}} is required, found something else; download it again"
                raise ConfigError(msg) from err
    return None


def _data(args: argparse.Namespace) -> ProcessedData:
    """Return the data to train on, refreshed in data/processed/ only after it proved usable."""
    target = ROOT / LOCAL_DATA
    if args.data is None and target.is_file():
        return read_processed(target, args.price_side)
    if args.data is None:
        print("No bars given (--data FILE): taking the embedded sample, 6,225 EURUSD hours of 2017.")
        config = DataConfig(output_path=str(target))
    else:
        source = "h5" if args.data.suffix.lower() in (".h5", ".hdf5") else "csv"
        config = DataConfig(
            source=source,
            path=str(args.data),
            instrument=args.instrument,
            price_side=args.price_side,
            clock=args.clock,
            output_path=str(target),
        )
    data = DataPipeline(config).build()
    write_processed(data, target)
    return data


def _stage_code(folder: Path) -> None:
    """Write a readable copy of the modules and code_manifest.json."""
    hashes = {}
    for name in ("__init__", *MODULES):
        text = kernel_notebook.module_source(PACKAGE, name)
        files.write_text(folder / f"{name}.py", text)
        hashes[f"{name}.py"] = files.sha256(text.encode())
    manifest = {"version": __version__, "code_hash": code_hash(), "order": list(MODULES), "files": hashes}
    files.write_json(folder / "code_manifest.json", manifest)


def _rehearse(notebook: Path, datasets: dict[str, Path], *, fresh: bool) -> int:
    folder = BUILD / "rehearsal"
    if fresh and job_outputs.move_to_previous(folder / "working"):
        print("--fresh: the earlier rehearsal's outputs moved to previous/")
    print("Rehearsing: this very notebook, in a folder laid out as on Kaggle, without network.\n", flush=True)
    done = rehearsal.rehearse(notebook, folder, datasets)
    summary = done.summary
    print(f"\n{report.text_table(summary['table'])}\n\n{summary['verdict']['sentence']}\n")
    print(f"report    {_shown(done.working / 'report.html')}\nnotebook  {_shown(done.html)}")
    print("next      python build_kernel.py && kaggle kernels push")
    return 0


def _say_built(notebook: Path, data: ProcessedData, parameters: Mapping[str, Any]) -> None:
    size = kernel_notebook.client_text_bytes(notebook.read_text(encoding="utf-8"))
    bars = {name: sum(len(b) for b in split.values()) for name, split in data.splits.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in bars.items())
    print(
        f"data      {', '.join(sorted(data.train))}, {data.bar_seconds // 60}-minute {data.price_side} bars: {counts}"
    )
    print(f"notebook  {_shown(notebook)}, {size / 1000:.0f} kB as sent, code {code_hash()[:12]}")
    if parameters:
        print("baked in  " + ", ".join(f"{k} = {v!r}" for k, v in parameters.items()))
    print(f"datasets  {_shown(BUILD / 'datasets')}{os.sep}{{{','.join(DATASETS)}}}")


def _say_not_published(name: str) -> None:
    owner = find_owner()
    if owner is None:
        print(
            "\nNothing was published: no Kaggle credentials here (KAGGLE_USERNAME and KAGGLE_KEY, or "
            "~/.kaggle/kaggle.json).\nnext      python build_kernel.py --rehearse"
        )
        return
    print(
        f"\nNothing was published: this version builds and stages only. As {owner}, replace INSERT_OWNER in "
        f"kernel-metadata.json and build/datasets/*/dataset-metadata.json, then\n"
        f"  kaggle datasets create -p build/datasets/data\n  kaggle datasets create -p build/datasets/code\n"
        f"  kaggle kernels push            # runs {owner}/{name}-train"
    )


def _check_name(name: str) -> None:
    ok = name.isascii() and all(part.isalnum() and part.islower() for part in name.split("-"))
    if not ok or not 3 <= len(name) <= 40:
        msg = f"--name: 3 to 40 lower-case letters, digits and single hyphens are required, got {name!r}"
        raise ConfigError(msg)


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help="your bars: .csv, or a processed .h5")
    parser.add_argument("--price-side", choices=("bid", "ask", "mid"), help="what the prices of FILE are")
    parser.add_argument("--clock", help="UTC, if the CSV's times carry no offset")
    parser.add_argument("--instrument", default="EURUSD", help="name of the CSV's instrument")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="bake a parameter in"
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="prefix of kernel and datasets on Kaggle")
    parser.add_argument("--rehearse", action="store_true", help="run the notebook here, as Kaggle would")
    parser.add_argument(
        "--fresh", action="store_true", help="rehearse from the start, keep the old in previous/"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
