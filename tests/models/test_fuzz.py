"""Damaged files of every format load or are refused, and run nothing; benchmarks/fuzz_loaders.py does it at length."""

import contextlib
import io
import pickle
import random
import sys
import warnings
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from torch import nn

from edgerecover.errors import BadInputError
from edgerecover.models.read.load import read_checkpoint
from edgerecover.models.read.pickles import parse
from edgerecover.models.read.records import PickleError


class _Watch:
    """Notes what only code out of a file would do."""

    def __init__(self):
        self.events = None
        sys.addaudithook(self._note)

    def _note(self, event, args):
        is_codec = event == "exec" and "encodings" in args[0].co_filename  # Python's own, at their first use
        watched = event in ("os.system", "subprocess.Popen", "exec", "pickle.find_class")
        if self.events is not None and watched and not is_codec:
            self.events.append((event, str(args)[:100]))

    @contextlib.contextmanager
    def on(self):
        self.events = []
        try:
            yield
            assert not self.events
        finally:
            self.events = None


_WATCH = _Watch()

NAMES = ("compact", "export.pt2", "legacy", "module", "pickle", "safetensors", "script", "zip")


def compact():
    """Sparse and quantised weights, and masks."""
    mask, weight = torch.eye(4), torch.eye(4) - 0.5
    return {
        "model": {
            "coo.weight": mask.to_sparse(), "csr.weight": mask.to_sparse_csr(), "fc.weight": weight,
            "bsc.weight": mask.to_sparse_bsc((2, 2)), "fc._weight_mask": mask == 1,
            "one.weight": torch.quantize_per_tensor(weight, 0.1, 3, torch.qint8),
            "each.weight": torch.quantize_per_channel(weight, torch.ones(4), torch.zeros(4), 0, torch.quint8),
        },
        "masks": {"csr": {"weight": mask}, "list": [mask.to_sparse()]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)).eval()
    images_NCHW = torch.zeros(1, 1, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, images_NCHW).save(str(folder / "script"))
        torch.export.save(torch.export.export(network, (images_NCHW,)), folder / "export.pt2")
        torch.save(compact(), folder / "compact")
    for name, content in (("zip", {"state_dict": network.state_dict(), "epoch": 3}), ("module", network)):
        torch.save(content, folder / name)
    torch.save(network.state_dict(), folder / "legacy", _use_new_zipfile_serialization=False)
    (folder / "pickle").write_bytes(pickle.dumps(network.state_dict(), 4))
    (folder / "safetensors").write_bytes(save_safetensors(network.state_dict()))
    for path in folder.iterdir():
        read_checkpoint(path)  # imports what is imported when it is first needed
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def opened(path, content):
    path.write_bytes(content)
    with _WATCH.on(), contextlib.suppress(BadInputError):
        read_checkpoint(path)


def damaged(content, rng):
    """One of: bits flipped, cut, a part doubled, bytes overwritten."""
    where, way = rng.randrange(len(content)), rng.randrange(4)
    if way == 0:
        return content[:where] + bytes([content[where] ^ 1 << rng.randrange(8)]) + content[where + 1 :]
    if way == 1:
        return content[:where]
    if way == 2:
        return content[:where] + content[rng.randrange(where + 1) :]
    what = rng.choice((b"\xff" * 8, b"\x85R", b"\x93\x85R", rng.randbytes(3)))
    return content[:where] + what + content[where + len(what) :]


def damaged_inside(content, rng):
    """A member damaged, with a sound checksum."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w") as after:
        names = before.namelist()
        chosen = rng.choice([name for name in names if name.endswith((".pkl", ".json"))])
        for name in names:
            member = before.read(name)
            after.writestr(name, damaged(member, rng) if name == chosen else member)
    return buffer.getvalue()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32), inside=st.booleans())
def test_damaged_files(tmp_path, files, name, seed, inside):
    rng, content = random.Random(seed), files[name]
    if inside and content.startswith(b"PK"):
        opened(tmp_path / name, damaged_inside(content, rng))
    else:
        opened(tmp_path / name, damaged(content, rng))


_OPERATIONS = (
    *(bytes([code]) for code in b"()]}N012abelostuRQ\x81\x85\x86\x87\x89\x8f\x90\x91\x92\x93\x94"),
    *(b"q\x00", b"h\x00", b"K\x07", b"X\x02\x00\x00\x00id", b"cos\nsystem\n", b"ios\nsystem\n"),
    b"ctorch._utils\n_rebuild_tensor_v2\n",
)


@settings(max_examples=400, deadline=None)
@given(operations=st.lists(st.sampled_from(_OPERATIONS), max_size=40))
def test_programs_of_any_instructions(operations):
    with _WATCH.on(), contextlib.suppress(PickleError):
        parse(b"\x80\x04" + b"".join(operations) + b".")
