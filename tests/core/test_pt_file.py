"""A `.pt` is read as torch reads it, or refused before it costs time or memory."""

import io
import json
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from sac_kernel.core import files, pt_file
from sac_kernel.core.errors import CheckpointError
from tests.support import says

PROTO, STOP = b"\x80\x02", b"."
MEMORY_BYTES, CPU_S = 300 << 20, 10.0  # about 1 s where nothing else runs


def archive_of(structure, **members):
    """Return an archive as torch writes it, with this structure and these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def put(index):
    return b"r" + struct.pack("<I", index)


def get(index):
    return b"j" + struct.pack("<I", index)


def storage(count, kind="Float", name="0"):
    return (
        b"(("
        + text("storage")
        + f"ctorch\n{kind}Storage\n".encode()
        + text(name)
        + text("cpu")
        + number(count)
        + b"tQ"
    )


def tensor(count, shape, stride, offset=0):
    sizes = b"".join(map(number, shape)), b"".join(map(number, stride))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + storage(count) + number(offset)
        + b"(" + sizes[0] + b"t(" + sizes[1] + b"t\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def nested(levels, width=2):
    """A tuple of two references to a tuple of two references ..., as a dictionary's key: 2^levels to hash."""
    code = b")" + put(0)
    for level in range(levels):
        code += get(level) * width + (b"\x86" if width == 2 else b"\x87") + put(level + 1)
    return code


TEN_MB = 10 << 20
HOSTILE = {
    "empty sets": PROTO + b"\x8f" * TEN_MB + STOP,
    "empty dictionaries": PROTO + b"}" * TEN_MB + STOP,
    "empty lists": PROTO + b"]" * TEN_MB + STOP,
    "nested tuples": PROTO + b")" + b"\x85" * TEN_MB + STOP,
    "hooks": PROTO + b"ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * (TEN_MB // 4) + STOP,
    "reductions": PROTO + b"ccollections\nOrderedDict\n" + b")R" * (TEN_MB // 2) + STOP,
    "builds": PROTO + b"}" + b"}b" * (TEN_MB // 2) + STOP,
    "memo": PROTO + b"N" + b"".join(put(i) for i in range(TEN_MB // 5)) + STOP,
    "memo far away": PROTO + b"Nr\xff\xff\xff\xff" + STOP,
    "marks": PROTO + b"(" * TEN_MB + STOP,
    "numbers": PROTO + b"]" + b"(" + b"G12345678" * (TEN_MB // 9) + b"e" + STOP,
    "a long number": PROTO + b"\x8b\x00\x00\x80\x00" + b"\x7f" * (1 << 23) + STOP,
    "a long decimal": PROTO + b"L" + b"9" * TEN_MB + b"L\n" + STOP,
    "a text that claims 4 GB": PROTO + b"X\xff\xff\xff\xff" + STOP,
    "a bytearray that claims 2^62 bytes": PROTO + b"\x96" + struct.pack("<Q", 1 << 62) + STOP,
    "wide text": PROTO + text("\U0001f600" + "a" * TEN_MB * 3) + STOP,
    "keys that hash for ever": PROTO + b"}" + nested(60) + b"Ns" + STOP,
    "laughs": PROTO + nested(60) + STOP,
    "a terabyte": PROTO + tensor(1 << 38, (1 << 38,), (1,)) + STOP,
    "a terabyte by strides": PROTO + tensor(4, (1 << 38,), (0,)) + STOP,
    "beyond its storage": PROTO + tensor(4, (2, 4), (4, 1)) + STOP,
    "before its storage": PROTO + tensor(4, (4,), (-1,), 3) + STOP,
    "an offset beyond": PROTO + tensor(4, (4,), (1,), 1) + STOP,
    "an overflowing shape": PROTO + tensor(4, (1 << 62, 1 << 62), (1 << 62, 1)) + STOP,
    "tensors": PROTO + b"](" + tensor(4, (1,), (1,)) * (TEN_MB // 200) + b"e" + STOP,
    "code": PROTO + b"cos\nsystem\n" + text("true") + b"\x85R" + STOP,
    "code by protocol 4": PROTO + b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R" + STOP,
    "a storage that is no tuple": PROTO + text("0") + b"Q" + STOP,
    "nothing": b"",
    "no end": PROTO + b"N",
}  # fmt: skip


def many_members():
    """A list of 100,000 members of no bytes."""
    buffer = io.BytesIO(archive_of(PROTO + b"}" + STOP))
    with zipfile.ZipFile(buffer, "a") as archive:
        for i in range(100_000):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{i}"), b"")
    return buffer.getvalue()


def overlapping():
    """One megabyte that 2,000 members share: the list claims 2 GB."""
    content = bytearray(archive_of(PROTO + b"}" + STOP, **{"data/0": bytes(1 << 20)}))
    at = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry = bytes(content[at:end])
    start = content.index(b"PK\x01\x02")
    listing = bytes(content[start:at])
    for i in range(2000):
        listing += entry.replace(b"archive/data/0", b"archive/d%05d" % i)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2001, 2001, len(listing), start, 0)
    return bytes(content[:start]) + listing + tail


READ = """
import json, resource, sys, time
from pathlib import Path
import torch
from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
torch.zeros(1).numpy()
found = {}
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    before, started_s = peak(), time.process_time()
    try:
        outcome = f"a {type(files.read_pt(path)).__name__}"
    except CheckpointError as err:
        outcome = "refused"
    found[path.stem] = [outcome, peak() - before, time.process_time() - started_s]
print(json.dumps(found))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="this test reads peak memory in the unit that only Linux uses"
)
def test_whatever_a_file_claims_it_is_refused_cheaply(tmp_path):
    content = np.arange(4, dtype=np.float32).tobytes()
    for name, structure in HOSTILE.items():
        (tmp_path / f"{name}.pt").write_bytes(archive_of(structure, **{"data/0": content}))
    (tmp_path / "many members.pt").write_bytes(many_members())
    (tmp_path / "members that share bytes.pt").write_bytes(overlapping())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    outcomes = json.loads(done.stdout)
    assert len(outcomes) == len(HOSTILE) + 2
    assert {k: v for k, v in outcomes.items() if v[0] != "refused"} == {}
    assert {k: v for k, v in outcomes.items() if v[1] > MEMORY_BYTES or v[2] > CPU_S} == {}


def test_the_hostile_structures_are_otherwise_well_formed(tmp_path):
    """The helpers above write what torch itself reads, so a refusal is for the reason that is tested."""
    numbers = np.arange(4, dtype=np.float32)
    structure = PROTO + b"}(" + text("x") + tensor(4, (2, 2), (2, 1)) + text("n") + number(-5) + b"u" + STOP
    more = {"data/0": numbers.tobytes(), "version": b"3\n", "byteorder": b"little"}
    (tmp_path / "a.pt").write_bytes(archive_of(structure, **more))
    content = files.read_pt(tmp_path / "a.pt")
    assert content["x"].tolist() == [[0, 1], [2, 3]]
    assert content["n"] == -5
    expected = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(expected["x"], content["x"])


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16,
          torch.int32, torch.int64, torch.bool]  # fmt: skip


def test_every_type_form_and_value_is_what_torch_reads(tmp_path):
    matrix = torch.arange(12.0).reshape(3, 4)
    content = {
        **{str(dtype): torch.tensor([0, 1, 1, 0]).to(dtype) for dtype in DTYPES},
        "transposed": matrix.T, "row": matrix[1], "the same numbers": matrix, "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3), "numbers": [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**40), 2**100],
        "floats": [0.5, -0.0, 1e308, float("inf")], "texts": ["", "é", "\U0001f600", "x" * 300], 3: (None, True, False),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "shared": [{"a": []}] * 2, "many": list(range(2000)),
    }  # fmt: skip
    (tmp_path / "a.pt").write_bytes(files.pt_bytes(content))
    ours, theirs = files.read_pt(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(ours) == list(theirs) == list(content)
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert (ours[key].dtype, ours[key].shape, ours[key].stride()) == (
                value.dtype,
                value.shape,
                value.stride(),
            )
            assert torch.equal(ours[key], value)
        else:
            assert repr(ours[key]) == repr(value)
    assert ours["row"].untyped_storage().data_ptr() == ours["the same numbers"].untyped_storage().data_ptr()


def test_a_gradient_and_a_foreign_byte_order_are_refused(tmp_path):
    weights = torch.zeros(2, requires_grad=True)
    (tmp_path / "a.pt").write_bytes(files.pt_bytes({"w": weights}))
    with pytest.raises(CheckpointError, match=says("a.pt", "gradient")):
        files.read_pt(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(archive_of(PROTO + b"}" + STOP, byteorder=b"big"))
    with pytest.raises(CheckpointError, match=says("b.pt", "endian")):
        files.read_pt(tmp_path / "b.pt")


def test_the_limits_hold_a_run_of_a_hundred_thousand_episodes():
    """One number an episode of fifteen statistics, and the tensors of three agents."""
    assert pt_file.MAX_OPCODES > 15 * 100_000
    assert pt_file.MAX_TENSORS > 1000
