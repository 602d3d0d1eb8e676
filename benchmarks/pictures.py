"""Pictures of the first run's report and notebook for the README: `make pictures`, after `make run`.

python -m benchmarks.pictures [--run build/sac-trading/rehearsal] [--output docs/images]

It needs Chromium or Chrome. The pictures have few colours, so that both together stay below 200 kB.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
REPORT, NOTEBOOK = "working/report.html", "train.ipynb"
REPORT_SIZE, NOTEBOOK_SIZE = (1000, 1370), (1000, 720)
"""Width and height in pixels."""
SHOWN = "## Does this agent learn?"
"""Heading of the notebook's part."""
COLORS = 128
MAX_BYTES = 200_000


def main() -> int:
    """Write the pictures; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--run", type=Path, default=Path("build/sac-trading/rehearsal"), help="a rehearsal's folder"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print(f"No browser: none of {', '.join(BROWSERS)} is installed.", file=sys.stderr)
        return 1
    missing = [name for name in (REPORT, NOTEBOOK) if not (args.run / name).is_file()]
    if missing:
        print(f"{args.run} has no {missing[0]}. Run `make run` first.", file=sys.stderr)
        return 1
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "notebook.html"
        part.write_text(part_of(args.run / NOTEBOOK), encoding="utf-8")
        pictures = {
            "report.png": picture(browser, args.run / REPORT, REPORT_SIZE),
            "notebook.png": picture(browser, part, NOTEBOOK_SIZE),
        }
    total = sum(map(len, pictures.values()))
    if total > MAX_BYTES:
        print(f"The pictures have {total:,} bytes; at most {MAX_BYTES:,} are allowed.", file=sys.stderr)
        return 1
    for name, content in pictures.items():
        (args.output / name).write_bytes(content)
        print(f"{args.output / name}: {len(content):,} bytes")
    return 0


def part_of(notebook: Path) -> str:
    """Return the title, and the cells under one heading, of an executed notebook as a page."""
    page = nbformat.read(str(notebook), as_version=4)
    first = next(i for i, cell in enumerate(page.cells) if cell.source.startswith(SHOWN))
    title = nbformat.v4.new_markdown_cell(page.cells[0].source.partition("\n")[0])
    page.cells = [title, *page.cells[first : first + 2]]
    body, _ = HTMLExporter().from_notebook_node(page)
    return str(body)


def picture(browser: str, page: Path, size: tuple[int, int]) -> bytes:
    """Return a page as PNG with a palette."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shot.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=4000",
        ]
        options += [
            f"--user-data-dir={folder}/profile",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={path}",
        ]
        subprocess.run(
            [browser, *options, page.resolve().as_uri()], check=True, capture_output=True, timeout=120
        )
        with Image.open(path) as shot:
            small = shot.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
