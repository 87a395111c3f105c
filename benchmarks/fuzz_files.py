"""The files of fuzz_loaders.py: sound ones of every format, damaged copies of them, and ones made to do harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import struct
import subprocess
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import nn
from torch.nn.utils import prune

File = tuple[str, str, bytes]
"""Kind, name, content."""

LARGE_BYTES = 200_000


# --- sound files ----------------------------------------------------------------------------------------


def seed_files(scratch: Path) -> dict[str, bytes]:
    """One small file of every format, by kind."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    network.eval()
    pruned = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    prune.l1_unstructured(pruned[0], "weight", amount=0.5)
    images_NCHW = torch.zeros(1, 1, 6, 6)
    state = network.state_dict()
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 1, 3, 3)}}, "param_groups": [{}]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compact = saved(_compact(state))
        script, export, onnx_path = scratch / "script", scratch / "export.pt2", scratch / "onnx"
        torch.jit.trace(network, images_NCHW).save(str(script))
        torch.export.save(torch.export.export(network, (images_NCHW,)), export)
        torch.onnx.export(network, (images_NCHW,), onnx_path, dynamo=False)
    return {
        "state_dict": saved({"state_dict": state, "optimizer": optimizer, "args": Namespace(arch="x"), "epoch": 3}),
        "state_dict before 1.6": saved({"model": state, "epoch": 3}, _use_new_zipfile_serialization=False),
        "averages": saved({"model": state, "model_ema": state, "arch": "resnet18"}),
        "masks, sparse and quantized": compact,
        "pickle.dump": pickle.dumps(dict(state), 4),
        "whole module": saved(pruned),
        "whole module before 1.6": saved(network, _use_new_zipfile_serialization=False),
        "safetensors": save_safetensors(state),
        "TorchScript": script.read_bytes(),
        "torch.export": export.read_bytes(),
        "ONNX": onnx_path.read_bytes(),
        "model.toml": b'teacher = "dense.pt"\nclasses = ["a", "b"]\n[input]\nshape = [3, 8, 8]\nmean = [0, 0, 0]\n',
    }


def _compact(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """Every layout of sparse tensors, quantised ones, and masks in several places."""
    matrix = torch.eye(4)
    compact = {
        "coo.weight": torch.ones(2, 1, 3, 3).to_sparse(), "csr.weight": matrix.to_sparse_csr(),
        "csc.weight": matrix.to_sparse_csc(), "bsr.weight": matrix.to_sparse_bsr((2, 2)),
        "tensor.weight": torch.quantize_per_tensor(matrix, 0.1, 3, torch.qint8),
        "channel.weight": torch.quantize_per_channel(matrix, torch.ones(4), torch.zeros(4), 0, torch.quint8),
    }  # fmt: skip
    masks = {"csr": {"weight": matrix}, "state": {"csc.weight": {"mask": matrix.to_sparse()}}, "list": [matrix]}
    return {"state_dict": state | compact | {"bsr._weight_mask": matrix == 1}, "masks": masks}


def saved(content: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


# --- damaged copies -------------------------------------------------------------------------------------


def mutants(seeds: dict[str, bytes], count: int, seed: int) -> Iterator[File]:
    """`count` copies of each file for each way of damage; archives are also damaged inside and packed anew."""
    for kind, content in seeds.items():
        rng = random.Random(f"{seed} {kind}")
        for index in range(count):
            for way in (flip, overwrite, cut, insert, shuffle):
                yield kind, f"{way.__name__} {index}", way(content, rng)
            other = seeds[rng.choice(list(seeds))]
            yield kind, f"splice {index}", content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]
            if content.startswith(b"PK"):
                yield kind, f"inside {index}", damaged_inside(content, rng)
                yield kind, f"members {index}", swapped_members(content, rng)


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    where = rng.randrange(len(damaged))
    what = rng.choice((b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, rng.randbytes(4), b"R", b"\x85R", b"2" * 16))
    damaged[where : where + len(what)] = what
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def insert(content: bytes, rng: random.Random) -> bytes:
    where = rng.randrange(len(content))
    return content[:where] + rng.choice((rng.randbytes(1), rng.randbytes(9), b"(" * 64, b"\x94")) + content[where:]


def shuffle(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content)) for _ in range(2))
    where = rng.randrange(len(content))
    return content[:where] + content[start:end] + content[where:]


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def damaged_inside(content: bytes, rng: random.Random) -> bytes:
    """With sound checksums, so that the damage comes past the zip reader."""
    members = members_of(content)
    telling = [name for name in members if name.endswith((".pkl", ".json", ".py", ".pt"))] or list(members)
    name = rng.choice(telling if rng.random() < 0.8 else [name for name in members if members[name]])
    members[name] = rng.choice((flip, overwrite, cut, insert, shuffle))(members[name], rng)
    return packed(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def swapped_members(content: bytes, rng: random.Random) -> bytes:
    """Members under each other's names, missing, or of another size."""
    members = members_of(content)
    first, second = rng.sample(list(members), 2)
    way = rng.randrange(3)
    if way == 0:
        members[first], members[second] = members[second], members[first]
    elif way == 1:
        del members[first]
    else:
        members[first] = members[first] * 3 if rng.random() < 0.5 else members[first][: len(members[first]) // 2]
    return packed(members)


# --- files made to do harm ------------------------------------------------------------------------------


def hostile_files(canary: Path, seeds: dict[str, bytes]) -> Iterator[File]:
    """Everything by hand, of every format."""
    for name, program in [*hostile_pickles(canary), *hostile_tensors()]:
        for where, content in wrapped(program, seeds):
            if len(program) > LARGE_BYTES and where not in ("a zip", "the older format", "a plain pickle"):
                continue  # the same reader, and the minutes add up
            yield f"hostile pickle in {where}", name, content
    for name, content in hostile_zips(seeds):
        yield "hostile zip", name, content
    for name, content in hostile_safetensors():
        yield "hostile safetensors", name, content
    for name, content in hostile_exports(seeds):
        yield "hostile torch.export", name, content
    for name, content in hostile_onnx(seeds):
        yield "hostile ONNX", name, content
    for name, content in hostile_toml():
        yield "model.toml", name, content


def wrapped(program: bytes, seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The same pickle wherever one can stand."""
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    yield "a zip", packed({"m/data.pkl": program, "m/data/0": bytes(64), "m/version": b"3\n"})
    yield "a deflated zip", packed({"m/data.pkl": program, "m/data/0": bytes(64)}, zipfile.ZIP_DEFLATED)
    yield "the older format", head + program + pickle.dumps(["0"], 2) + struct.pack("<q", 16) + bytes(64)
    yield "a plain pickle", b"\x80\x02" + program.removeprefix(b"\x80\x02")
    script = members_of(seeds["TorchScript"])
    yield "TorchScript", packed({name: program if name.endswith("/data.pkl") else m for name, m in script.items()})
    nested = packed({"w/data.pkl": program, "w/data/0": bytes(64)})
    yield "torch.export", packed({"e/archive_format": b"pt2", "e/data/weights/model.pt": nested})


CALLS = (
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("os", "execv"), ("os", "remove"),
    ("builtins", "eval"), ("builtins", "exec"), ("builtins", "__import__"), ("builtins", "open"),
    ("builtins", "getattr"), ("builtins", "compile"), ("builtins", "bytearray"), ("__builtin__", "eval"),
    ("subprocess", "Popen"), ("subprocess", "check_output"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("pty", "spawn"), ("socket", "create_connection"), ("webbrowser", "open"), ("pickle", "loads"), ("shelve", "open"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.jit", "load"), ("torch.serialization", "load"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_import_dotted_name"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.utils.cpp_extension", "load_inline"), ("torch.fx.graph_module", "reduce_graph_module"),
    ("torch.fx.graph_module", "_forward_from_src"), ("torch._C", "import_ir_module"), ("torch.ops", "load_library"),
    ("torch", "classes.load_library"), ("torch.distributed.elastic.multiprocessing", "Std.from_str"),
    ("numpy", "load"), ("numpy.f2py.crackfortran", "param_eval"), ("numpy.testing._private.utils", "runstring"),
    ("operator", "attrgetter"), ("operator", "methodcaller"), ("functools", "partial"), ("types", "FunctionType"),
    ("code", "InteractiveInterpreter"), ("timeit", "timeit"), ("cProfile", "run"), ("doctest", "debug_script"),
    ("collections", "OrderedDict"), ("collections", "Counter"), ("_codecs", "encode"), ("copyreg", "_reconstructor"),
    ("ctypes", "CDLL"), ("__torch__", "Net"), ("__main__", "Net"), ("", ""), ("é\x1b[2J", "\x07\n"),
)  # fmt: skip


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def name_of(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def hostile_pickles(canary: Path) -> Iterator[tuple[str, bytes]]:
    yield from calls(canary)
    yield from objects(canary)
    yield from bombs()


def calls(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Each dangerous name, by each instruction that would call it."""
    argument = text(f"touch {canary}")
    for module, name in CALLS:
        what = name_of(module, name)
        for way, program in {
            "REDUCE": what + argument + b"\x85R.",
            "NEWOBJ": what + argument + b"\x85\x81.",
            "NEWOBJ_EX": what + argument + b"\x85}\x92.",
            "OBJ": b"(" + what + argument + b"o.",
            "BUILD": what + b")R}" + argument + argument + b"sb.",
            "INST": b"(" + argument + f"i{module}\n{name}\n.".encode() if "\n" not in name else b"i.",
            "beside weights": b"}(" + text("w") + tensor() + text("x") + what + argument + b"\x85Ru.",
        }.items():
            yield f"{way} {module}.{name}"[:60], b"\x80\x04" + program


class _Reduce:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.canary}",)


class _SetState:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __setstate__(self, state: dict[str, Path]) -> None:
        state["canary"].touch()


class _Delete(_SetState):
    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.canary.touch()


class _Popen(_Reduce):
    def __reduce__(self) -> object:
        return subprocess.Popen, (["touch", str(self.canary)],)


class _ReduceDict(dict):  # type: ignore[type-arg]
    def __reduce__(self) -> object:
        return eval, ("dict()",), None, None, iter(self.items())


def objects(canary: Path) -> Iterator[tuple[str, bytes]]:
    weights = {"w": torch.ones(2, 2)}
    for kind in (_Reduce, _SetState, _Delete, _Popen):
        for protocol in (0, 1, 2, 3, 4, 5):
            with contextlib.suppress(TypeError):
                yield f"{kind.__name__} by protocol {protocol}", pickle.dumps({"x": kind(canary)}, protocol)
        yield f"{kind.__name__} in torch.save", members_of(saved({"x": kind(canary), **weights}))["archive/data.pkl"]
    yield "a dict that calls", pickle.dumps(_ReduceDict(a=1), 4)
    canary.unlink(missing_ok=True)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Little bytes that ask for much memory, time or stack."""
    many = 400_000
    grow = b"](" + b"".join(b"(h%chh%cht" % (0, 0) for _ in range(2)) + b"e."
    yield from {
        "memo at 4294967295": b"\x80\x02]r\xff\xff\xff\xff.",
        "memo at 2147483647": b"\x80\x02]r\xff\xff\xff\x7f}.",
        "memo by text at 10**30": b"\x80\x02]p" + b"9" * 30 + b"\n.",
        "memo negative": b"\x80\x02]p-5\n.",
        "a million memo entries": b"\x80\x04]" + b"\x94" * 1_000_000 + b".",
        "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "bytearray of 2**40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        "bytearray of 2**64-1": b"\x80\x05\x96" + b"\xff" * 8 + b"x.",
        "text of 2**63": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 63) + b"x.",
        "text of 2**32-1": b"\x80\x02X\xff\xff\xff\xffx.",
        "frame of 2**63": b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"}.",
        "long of 2**31-1": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
        "long of negative length": b"\x80\x02\x8b\xff\xff\xff\xffx.",
        "long of a million bytes": b"\x80\x02\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b".",
        "a number of a million digits": b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.",
        "an int of 5000 digits": b"\x80\x02I" + b"9" * 5_000 + b"\n.",
        "a long line": b"\x80\x02S'" + b"a" * 3_000_000 + b"'\n.",
        "calls a bytearray": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (1 << 44).to_bytes(6, "little") + b"\x85R.",
        "deep lists": b"\x80\x02" + b"]" * many + b"a" * (many - 1) + b".",
        "deep tuples": b"\x80\x02)" + b"\x85" * many + b".",
        "deep dicts": b"\x80\x02" + b"}" + (text("state_dict") + b"}") * many + b"s" * many + b".",
        "deep calls": b"\x80\x02)" + b"0)cos\nsystem\n" + b")R" * 1 + b"\x85R" * 3 + b".",
        "marks alone": b"\x80\x02" + b"(" * 900_000 + b".",
        "empty lists": b"\x80\x02(" + b"]" * 900_000 + b"l.",
        "empty dicts": b"\x80\x02(" + b"}" * 900_000 + b"l.",
        "empty sets": b"\x80\x04(" + b"\x8f" * 900_000 + b"l.",
        "too many instructions": b"\x80\x02(" + b"N" * 1_100_000 + b"l.",
        "DUP": b"\x80\x02]" + b"2" * 900_000 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a dict in itself": b"\x80\x02}q\x00" + text("state_dict") + b"h\x00s.",
        "a tuple in itself": b"\x80\x02]q\x00h\x00\x85a.",
        "a module in itself": module_in_itself(),
        "modules that double": doubling_modules(),
        "lists that double": grow + b"".join(b"(h\x00h\x00lq\x00" for _ in range(100)),
        "dicts that double": doubling_dicts(),
        "colliding keys": b"\x80\x02}(" + b"".join(
            b"\x8a\x0a" + ((index * ((1 << 61) - 1)).to_bytes(10, "little")) + b"N" for index in range(30_000)
        ) + b"u.",
        "tuples as keys": b"\x80\x02}(" + (b")" + b"\x85" * 200 + b"N") * 2_000 + b"u.",
        "a list as key": b"\x80\x02}(]Nu.",
        "long keys": b"\x80\x02}(" + b"".join(
            text(f"{index}" + "k" * 100_000) + tensor() for index in range(20)
        ) + b"u.",
        "control characters": b"\x80\x02}" + text("\x1b[2J\x07\r") + text("\x1b]0;owned\x07") + b"s.",
        "no stop": b"\x80\x02}",
        "pops too much": b"\x80\x02000.",
        "SETITEMS to a number": b"\x80\x02K\x01(K\x01K\x02u.",
        "SETITEMS of an odd number": b"\x80\x02}(K\x01u.",
        "APPENDS to a dict": b"\x80\x02}(K\x01e.",
        "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "PERSID by text": b"\x80\x02Pstorage\n.",
        "protocol 255": b"\x80\xff}.",
    }.items()  # fmt: skip


def module_in_itself() -> bytes:
    return (
        b"\x80\x02" + name_of("nets", "Net") + b")\x81q\x00}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
        + text("_modules") + b"}" + text("self") + b"h\x00sub."
    )  # fmt: skip


def doubling_modules() -> bytes:
    """Forty levels, each holding the next one twice: 2**40 names."""
    net = name_of("nets", "Net")

    def module(children: bytes) -> bytes:
        parts = b"}(" + text("_parameters") + b"}" + text("w") + tensor() + b"s" + text("_buffers") + b"}"
        return net + b")\x81" + parts + text("_modules") + b"}" + children + b"ub"

    program = module(b"") + b"q\x000"
    for _ in range(40):
        program += module(b"(" + text("a") + b"h\x00" + text("b") + b"h\x00u") + b"q\x000"
    return b"\x80\x04" + program + b"h\x00."


def doubling_dicts() -> bytes:
    program = b"}q\x000"
    for _ in range(60):
        program += (
            b"}(" + b"".join(text(key) + b"h\x00" for key in ("state_dict", "model", "net", "module")) + b"uq\x000"
        )
    return b"\x80\x02" + program + b"h\x00."


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    sizes: bytes | None = None, strides: bytes | None = None, offset: bytes | None = None, *, key: str = "0",
    kind: str = "FloatStorage", numel: int = 16, maker: str = "_rebuild_tensor_v2", location: str = "cpu",
) -> bytes:  # fmt: skip
    """The record of a tensor, sound unless an argument says otherwise."""
    storage = (
        b"(" + text("storage") + name_of("torch", kind) + text(key) + text(location) + number(numel) + b"tQ"
    )  # fmt: skip
    sizes, strides, offset = sizes or numbers(2, 2), strides or numbers(2, 1), offset or b"K\x00"
    return name_of("torch._utils", maker) + b"(" + storage + offset + sizes + strides + b"\x89}tR"


def hostile_tensors() -> Iterator[tuple[str, bytes]]:
    lies = {
        "size 2**62": tensor(numbers(1 << 62), numbers(1)),
        "size 2**200": tensor(numbers(1 << 200), numbers(1)),
        "sizes that overflow": tensor(numbers(1 << 33, 1 << 33), numbers(1, 1)),
        "expanded to 2**34": tensor(numbers(1 << 17, 1 << 17), numbers(0, 0)),
        "expanded to 2**22": tensor(numbers(1 << 11, 1 << 11), numbers(0, 0)),
        "negative size": tensor(numbers(-1, 2)),
        "negative stride": tensor(strides=numbers(-2, 1)),
        "stride 2**62": tensor(strides=numbers(1 << 62, 1)),
        "negative offset": tensor(offset=number(-4)),
        "offset 2**62": tensor(offset=number(1 << 62)),
        "offset 2**100": tensor(offset=number(1 << 100)),
        "one value too many": tensor(offset=number(13)),
        "a thousand dimensions": tensor(numbers(*[1] * 1000), numbers(*[1] * 1000)),
        "a size too few": tensor(numbers(2)),
        "sizes of text": tensor(text("22")),
        "sizes of booleans": tensor(b"\x88\x88\x86"),
        "sizes of fractions": tensor(b"G" + struct.pack(">d", 2.0) + b"\x85"),
        "sizes in themselves": tensor(b"]q\x05h\x05a"),
        "storage elsewhere": tensor(key="../../../../etc/passwd"),
        "storage at an absolute path": tensor(key="/etc/passwd"),
        "a missing storage": tensor(key="7"),
        "a storage of 2**62": tensor(numel=1 << 62),
        "a storage of an odd type": tensor(kind="DoubleStorage"),
        "a storage of no type": tensor(kind="EvilStorage"),
        "booleans": tensor(kind="BoolStorage"),
        "complex": tensor(kind="ComplexFloatStorage"),
        "quantized": tensor(kind="QInt8Storage"),
        "on meta": tensor(location="meta"),
        "an older tensor": tensor(maker="_rebuild_tensor"),
        "a third kind": tensor(maker="_rebuild_tensor_v3"),
        "sparse": tensor(maker="_rebuild_sparse_tensor"),
        "no arguments": name_of("torch._utils", "_rebuild_tensor_v2") + b")R",
        "arguments that are no tuple": name_of("torch._utils", "_rebuild_tensor_v2") + b"]R",
        "a parameter of a parameter": name_of("torch._utils", "_rebuild_parameter") + b"(" * 1
        + (name_of("torch._utils", "_rebuild_parameter") + tensor() + b"\x85R") + b"\x89}tR",
        "a parameter in itself": name_of("torch._utils", "_rebuild_parameter") + b"]q\x06h\x06a\x85R",
        "typed by a call": name_of("torch._tensor", "_rebuild_from_type_v2") + b"("
        + name_of("os", "system") + name_of("torch", "Tensor") + text("touch x") + b"\x85}tR",
        "a packed storage in itself": name_of("torch._utils", "_rebuild_tensor_v2") + b"("
        + name_of("torch.storage", "_load_from_bytes") + b"C\x03abc\x85RK\x00" + numbers(2) + numbers(1) + b"\x89}tR",
    }  # fmt: skip
    for name, record in lies.items():
        yield name, b"\x80\x04}" + text("fc.weight") + record + b"s."
    flags = b"".join(text(f"mask{index}") + tensor(kind="BoolStorage", numel=64) for index in range(5_000))
    yield "many of one storage", b"\x80\x04}(" + flags + b"u."
    expanded = b"".join(text(f"w{index}") + tensor(numbers(200_000), numbers(0)) for index in range(500))
    yield "many expanded", b"\x80\x04}(" + expanded + b"u."


def hostile_zips(seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    sound = members_of(seeds["state_dict"])
    program = next(content for name, content in sound.items() if name.endswith("data.pkl"))
    yield "a bomb of zeros", packed({"m/data.pkl": program, "m/data/0": bytes(256 * 1024 * 1024)}, zipfile.ZIP_DEFLATED)
    yield "a pickle bomb", packed({"m/data.pkl": b"\x80\x02(" + b"]" * (64 << 20) + b"l."}, zipfile.ZIP_DEFLATED)
    just_allowed = packed({"m/data.pkl": b"\x80\x02(" + b"]" * 1_000_000 + b"l."}, zipfile.ZIP_DEFLATED)
    yield "a small pickle bomb", just_allowed
    yield (
        "bombs in a bomb",
        packed(
            {
                "m/data.pkl": program,
                **{f"m/data/{index}": packed({"z": bytes(32 << 20)}, zipfile.ZIP_DEFLATED) for index in range(20)},
            }
        ),
    )
    inner = packed({"w/data.pkl": program, "w/data/0": bytes(16 << 20)}, zipfile.ZIP_DEFLATED)
    yield "a bomb in torch.export", packed({"e/archive_format": b"pt2", "e/data/weights/model.pt": inner})
    twice = packed({"e/archive_format": b"pt2", "e/data/weights/model.pt": inner * 20}, zipfile.ZIP_DEFLATED)
    yield "a deflated bomb in torch.export", twice
    yield "many members", packed({"m/data.pkl": program} | {f"m/{index}": b"" for index in range(60_000)})
    yield "too many members", packed({"m/data.pkl": program} | {f"m/{index}": b"" for index in range(101_000)})
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"method {method}", packed(sound, method)
    yield "absolute paths", packed({f"/{name}": content for name, content in sound.items()})
    yield "paths upwards", packed({f"../../{name}": content for name, content in sound.items()})
    yield "no top folder", packed({name.partition("/")[2]: content for name, content in sound.items()})
    yield "duplicate names", duplicated(sound)
    content = seeds["state_dict"]
    directory = content.index(b"PK\x01\x02")
    for name, where, value in (
        ("encrypted", 8, b"\x01\x00"), ("a wrong checksum", 16, b"abcd"), ("no checksum", 16, bytes(4)),
        ("a huge size", 24, b"\xff\xff\xff\x7f"), ("a huge packed size", 20, b"\xff\xff\xff\x7f"),
        ("a size of zero", 24, bytes(4)), ("another method", 10, b"\x63\x00"), ("deflated", 10, b"\x08\x00"),
        ("another offset", 42, b"\x10\x00\x00\x00"), ("an offset behind the end", 42, b"\xff\xff\xff\x7f"),
        ("a long name", 28, b"\xff\xff"), ("zip64 sizes", 24, b"\xff\xff\xff\xff"),
    ):  # fmt: skip
        damaged = bytearray(content)
        damaged[directory + where : directory + where + len(value)] = value
        yield name, bytes(damaged)
    offsets = [index for index in range(directory, len(content) - 46) if content[index : index + 4] == b"PK\x01\x02"]
    same = bytearray(content)
    for index in offsets:
        same[index + 42 : index + 46] = content[offsets[0] + 42 : offsets[0] + 46]
    yield "all members at one place", bytes(same)
    end = content.rindex(b"PK\x05\x06")
    yield "members without end", content[: end + 8] + b"\xff\xff\xff\xff" + content[end + 12 :]
    yield "a long comment", content[:-2] + b"\xff\xff" + b"c" * 65_535
    yield "nothing but an end", b"PK\x03\x04" + content[end:]
    yield "two archives", content + content
    yield "big endian", packed({name: b"big" if name.endswith("byteorder") else m for name, m in sound.items()})


def duplicated(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            for name, content in members.items():
                archive.writestr(name, content)
    return buffer.getvalue()


def hostile_safetensors() -> Iterator[tuple[str, bytes]]:
    def made(header: str, size: int = 64) -> bytes:
        content = header.encode("utf-8", errors="surrogatepass")
        return struct.pack("<Q", len(content)) + content + bytes(size)

    entry = '{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}'
    headers = {
        "overlapping": f'{{"a":{entry},"b":{entry}}}',
        "duplicate keys": f'{{"a":{entry},"a":{entry}}}',
        "negative offsets": '{"a":{"dtype":"F32","shape":[4,4],"data_offsets":[-64,0]}}',
        "offsets reversed": '{"a":{"dtype":"F32","shape":[4,4],"data_offsets":[64,0]}}',
        "offsets behind the end": '{"a":{"dtype":"F32","shape":[4,4],"data_offsets":[64,128]}}',
        "offsets of 2**63": f'{{"a":{{"dtype":"F32","shape":[4],"data_offsets":[{(1 << 63) - 1},{1 << 63}]}}}}',
        "an absurd shape": '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,64]}}',
        "a shape of zeros": '{"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}}',
        "a negative shape": '{"a":{"dtype":"F32","shape":[-4,-4],"data_offsets":[0,64]}}',
        "a shape of floats": '{"a":{"dtype":"F32","shape":[4.0,4.0],"data_offsets":[0,64]}}',
        "an unknown type": '{"a":{"dtype":"F99","shape":[4,4],"data_offsets":[0,64]}}',
        "a small type": '{"a":{"dtype":"F4","shape":[128],"data_offsets":[0,64]}}',
        "integers as weights": '{"fc.weight":{"dtype":"I8","shape":[8,8],"data_offsets":[0,64]}}',
        "booleans": '{"a":{"dtype":"BOOL","shape":[8,8],"data_offsets":[0,64]}}',
        "missing keys": '{"a":{"dtype":"F32"}}',
        "no tensors": '{"__metadata__":{}}',
        "metadata of numbers": f'{{"__metadata__":{{"a":1}},"a":{entry}}}',
        "deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "deep lists": '{"a":' + "[" * 200_000 + "]" * 200_000 + "}",
        "a long number": '{"a":' + "9" * 1_000_000 + "}",
        "a long key": f'{{"{"k" * 1_000_000}":{entry}}}',
        "control characters": f'{{"\\u001b[2J\\u0007":{entry.replace("F32", "F16")}}}',
        "half a surrogate": f'{{"\\ud800":{entry}}}',
        "NaN": '{"a":NaN}',
        "many tensors": "{" + ",".join(
            f'"t{index}":{{"dtype":"U8","shape":[1],"data_offsets":[{index},{index + 1}]}}' for index in range(20_000)
        ) + "}",
        "many empty tensors": "{" + ",".join(
            f'"t{index}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for index in range(20_000)
        ) + "}",
    }  # fmt: skip
    for name, header in headers.items():
        yield name, made(header, 20_000 if name == "many tensors" else 0 if "empty" in name else 64)
    yield "a header of 2**63", struct.pack("<Q", 1 << 63) + b"{}" + bytes(100)
    yield "a header of 2**64-1", b"\xff" * 8 + b"{}" + bytes(100)
    yield "a header of everything", struct.pack("<Q", 100) + b"{" + b" " * 99
    yield "spaces", struct.pack("<Q", 4 << 20) + b"{" + b" " * ((4 << 20) - 2) + b"}"
    yield "NUL bytes", struct.pack("<Q", 64) + b"{" + bytes(63)


def hostile_exports(seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    members = members_of(seeds["torch.export"])
    table = next(name for name in members if name.endswith("_weights_config.json"))

    def made(config: object) -> bytes:
        content = config if isinstance(config, str) else json.dumps(config)
        return packed({**members, table: content.encode()})

    sound = json.loads(members[table])
    first = next(iter(sound["config"]))

    def changed(**meta: object) -> bytes:
        copy = json.loads(members[table])
        copy["config"][first]["tensor_meta"] |= meta
        return made(copy)

    def entry(**fields: object) -> bytes:
        copy = json.loads(members[table])
        copy["config"][first] |= fields
        return made(copy)

    yield "deep lists", made("[" * 300_000 + "]" * 300_000)
    yield "deep dictionaries", made('{"config":' * 100_000 + "1" + "}" * 100_000)
    yield "many lists", made('{"config":[' + "[]," * 1_000_000 + "[]]}")
    yield "a long number", made('{"config":' + "9" * 1_000_000 + "}")
    yield "infinite", made('{"config":{"a":Infinity}}')
    for value in (None, [], {}, 7, "x", [None], {"a": None}, {"a": []}, {"a": {}}, {"config": {}}, {"config": None}):
        yield f"table {value}", made(value)
        yield f"config {value}", made({"config": value})
    big, as_int = 1 << 62, "as_int"
    yield "an absurd shape", changed(sizes=[{as_int: big}, {as_int: big}], strides=[{as_int: 1}, {as_int: 1}])
    yield "expanded", changed(sizes=[{as_int: 1 << 20}, {as_int: 1 << 20}], strides=[{as_int: 0}, {as_int: 0}])
    yield "negative", changed(sizes=[{as_int: -1}], strides=[{as_int: 1}])
    yield "fractions", changed(sizes=[{as_int: 1.5}], strides=[{as_int: 1}])
    yield "expressions", changed(sizes=[{"as_expr": {"expr_str": "__import__('os').system('x')"}}])
    yield "offset", changed(storage_offset={as_int: big})
    yield "negative offset", changed(storage_offset={as_int: -1})
    for dtype in (0, 9, 12, 29, 99, -1, None, "7", [7], {}):
        yield f"dtype {dtype}", changed(dtype=dtype)
    yield "layout", changed(layout=1)
    for path in (
        "../../models/model.json",
        "/etc/passwd",
        "missing",
        "",
        None,
        7,
        ["weight_0"],
        "../../archive_format",
    ):
        yield f"path {path}", entry(path_name=path)
    yield "pickled", entry(use_pickle=True)
    yield "no meta", entry(tensor_meta=None)
    many = {f"n{index}": sound["config"][first] for index in range(30_000)}
    yield "many names of one weight", made({"config": many})
    yield "two programs", packed({**members, table.replace("model_w", "other_w"): members[table]})
    yield "no weights", packed({name: content for name, content in members.items() if "weights" not in name})
    root = table.partition("/")[0]
    yield "AOTInductor", packed({f"{root}/archive_format": b"pt2", f"{root}/data/aotinductor/model/a.so": b"\x7fELF"})
    yield "of 2.1 to 2.7", packed({
        "serialized_exported_program.json": b"{}", "version": b"8.8", "serialized_state_dict.pt": seeds["state_dict"],
    })  # fmt: skip
    yield "of 2.1 with rubbish", packed({"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b"x"})


def hostile_onnx(seeds: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    import onnx
    from onnx import TensorProto, helper

    def made(*tensors: TensorProto, nodes: int = 1) -> bytes:
        node = [helper.make_node("Conv", ["x", "w"], [f"y{index}"]) for index in range(nodes)]
        graph = helper.make_graph(
            node, "g", [helper.make_tensor_value_info("x\x1b[2J", 1, [1, "n"])], [], list(tensors)
        )
        return bytes(helper.make_model(graph).SerializeToString())

    def weight(dims: list[int], size: int = 64, kind: int = TensorProto.FLOAT) -> TensorProto:
        return TensorProto(name="w", data_type=kind, dims=dims, raw_data=bytes(size))

    yield "sound", made(weight([4, 4]))
    yield "an absurd shape", made(weight([1 << 40, 1 << 20]))
    yield "a negative shape", made(weight([-4, -4]))
    yield "an unknown type", made(weight([4, 4], kind=999))
    yield "text", made(TensorProto(name="w", data_type=TensorProto.STRING, dims=[1, 1], string_data=[b"x"]))
    external = weight([4, 4], 0)
    external.data_location = TensorProto.EXTERNAL
    entry = external.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    yield "external data", made(external)
    yield "many nodes", made(weight([4, 4]), nodes=20_000)
    loops = [helper.make_node("Identity", ["b"], ["w"]), helper.make_node("Identity", ["w"], ["b"])]
    graph = helper.make_graph([*loops, helper.make_node("Conv", ["x", "w"], ["y"])], "g", [], [], [])
    yield "values in a circle", bytes(helper.make_model(graph).SerializeToString())
    deep = onnx.GraphProto()
    for _ in range(60):
        outer = onnx.GraphProto()
        outer.node.add(op_type="If").attribute.add(name="then", type=onnx.AttributeProto.GRAPH).g.CopyFrom(deep)
        deep = outer
    yield "graphs in graphs", bytes(helper.make_model(deep).SerializeToString())
    yield "empty messages", seeds["ONNX"] + b"\x3a\x00" * 500_000
    yield "nothing but a version", b"\x08\x0a\x12\x00"


def hostile_toml() -> Iterator[tuple[str, bytes]]:
    yield "deep lists", b"teacher = " + b"[" * 20_000 + b"]" * 20_000
    yield "deep tables", b"[" + b".".join([b"a"] * 20_000) + b"]"
    yield "a long number", b"x = " + b"9" * 100_000
    yield "control characters", b'"\\u001b[2J" = 1'
    yield "bytes that are no text", b"\xff\xfe = 1"
    yield "code", b'architecture = "evil.py:run"'
    yield "code elsewhere", b'architecture = "../../evil.py:run"'
    yield "a package", b'architecture = "os:system"'
    yield "no factory", b'architecture = "torchvision:__init__"'
    yield "an absurd input", b"[input]\nshape = [3, 9999999, 9999999]"
    yield "a negative input", b"[input]\nshape = [-3, 1, 1]"
    yield "infinite", b"[input]\nshape = [3, 8, 8]\nmean = [inf, nan, 0]"
    yield "a teacher elsewhere", b'teacher = "/dev/zero"'
