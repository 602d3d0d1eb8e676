"""What comes from a file cannot steer a terminal, forge a line, or become markup."""

import io
import logging

import h5py
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError, StorageError
from sac_kernel.core.printable import PlainFormatter, markdown, printable
from sac_kernel.kaggle import display
from sac_kernel.kaggle.redaction import without_places
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.processed_file import read_processed
from tests.conftest import make_data
from tests.support import says

EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\rEURUSD\u202e\u200b<img src=x onerror=alert(1)>\ud800"


def controls(text):
    return [
        c
        for c in text
        if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u200b\ud800"
    ]


def test_controls_are_written_out_and_the_rest_stays():
    assert printable("a\x1b[31m\tb\nc\r\x9b é \U0001f600") == "a\\x1b[31m\tb\nc\\r\\x9b é \U0001f600"
    assert controls(printable(EVIL)) == []
    printable(EVIL).encode()  # halves of pairs would fail


@pytest.mark.parametrize("kind", [DataError, StorageError])
def test_no_error_of_the_package_has_them(kind):
    assert controls(str(kind(EVIL))) == []


def test_no_log_line_of_a_command_has_them():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(message)s"))
    handler.emit(logging.makeLogRecord({"msg": "%s", "args": (EVIL,)}))
    assert controls(stream.getvalue()) == []


def test_markdown_shows_text_as_it_is():
    assert markdown("a_b*c [x](y) <b> $z$ `q`\n# h") == r"a\_b\*c \[x\](y) &lt;b&gt; \$z\$ \`q\` \# h"
    assert "<img" not in markdown(EVIL)


def test_tables_of_the_notebook_escape_cells_and_headings():
    frame = pd.DataFrame({"<script>x</script>": ["<img src=x>", "a&b"], "n": [1.5, 2000.0]})
    html = display.table(frame).to_html()
    assert "<script>" not in html
    assert "<img" not in html
    assert "a&amp;b" in html
    assert "2,000.00" in html
    assert "<img" not in display.facts({"<img>": EVIL}).to_html()


def test_words_of_the_verdict_and_headings_are_escaped():
    verdict = {"finding": EVIL, "marks": [{"passed": True, "name": EVIL, "found": EVIL}], "notes": [EVIL]}
    text = display.verdict_text(verdict)
    assert "<img" not in text
    assert controls(text) == []
    ((heading, _),) = display.section_tables([{"title": EVIL, "note": EVIL, "rows": [[1]], "columns": ["a"]}])
    assert "<img" not in heading


def test_a_name_with_controls_is_no_instrument_and_words_of_a_file_lose_them(tmp_path):
    path = tmp_path / "a.h5"
    write_processed(make_data(1600), path)
    with h5py.File(path, "r+") as file:
        file["metadata"].attrs["source"] = "a\x1b[2Jb"
        file["metadata"].attrs["notes"] = "n\x1b[2Jm"
    data = read_processed(path)
    assert data.source == "a\\x1b[2Jb"
    assert controls(" ".join(data.notes)) == []
    with h5py.File(path, "r+") as file:
        for split in ("train", "val", "test"):
            file.move(f"{split}/EURUSD", f"{split}/EUR\x1b[2JUSD")
    with pytest.raises(DataError, match=says("a.h5", "x1b")) as found:
        read_processed(path)
    assert controls(str(found.value)) == []


def test_a_page_names_no_place_of_this_machine(tmp_path, monkeypatch):
    home = tmp_path / "home of é & co"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home / "work")
    import html
    import json
    import sys

    from sac_kernel.core import packages

    places = (
        home / "work" / "outputs",
        home / "x",
        packages.import_root() / "build",
        sys.prefix,
        "/".join(("", "home", "someone", "file")),
    )
    for place in map(str, places):
        for form in (place, html.escape(place), json.dumps(place), json.dumps(place, ensure_ascii=False)):
            text = without_places(f"see <b>{form}</b> there")
            assert str(home) not in text
            assert "someone" not in text
            assert str(packages.import_root()) not in text
            assert "see <b>" in text
    windows, mac = r"\\".join(("C:", "Users", "Jane", "x")), "/".join(("", "Users", "jane", "y"))
    assert without_places(f'"{windows}" {mac}') == r'"~\\x" ~/y'
    assert without_places("no place, 1/2, /kaggle/input") == "no place, 1/2, /kaggle/input"
