"""Change a bundle in every way there is, and count what verification lets through: it must be nothing.

    python benchmarks/tamper.py [--bundle BUNDLE] [--changes 10000] [--values 255] [--archive-values 255]

1. Every byte of every file of a minimal bundle, and of its archive, each with all 255 other values.
2. Random single-byte changes in a real bundle, and in its archive; without --bundle the demo's is made first.
3. Changes to the structure of folder and archive, each checksum made to fit.
4. Where model-signing is installed: bundles rewritten so that everything in them fits, against the signature.

Prints a table; ends with 1 if anything was let through.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgerecover.bundle.archive import BLOCK
from edgerecover.bundle.carry import pack_bundle
from edgerecover.bundle.manifest import MANIFEST_NAME, Manifest, Measurements
from edgerecover.bundle.verify import verify_bundle
from edgerecover.bundle.write import write_bundle
from edgerecover.errors import EdgeRecoverError


@dataclass(frozen=True)
class Row:
    what: str
    num_changes: int
    missed: tuple[str, ...]
    seconds: float


def main() -> int:
    options = _options()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="edgerecover-tamper-") as folder:
        place = Path(folder)
        small = _minimal(place / "small.bundle")
        small_archive = pack_bundle(small, place / "small.bundle.tar").path
        real = place / "real.bundle"
        shutil.copytree(options.bundle or _demo(place), real)
        real_archive = pack_bundle(real, place / "real.bundle.tar").path
        rows = [
            _swept(f"every byte, {options.values} values, minimal bundle", small, options.values),
            _swept(f"every byte, {options.archive_values} values, its archive", small_archive, options.archive_values),
            _at_random(f"random bytes, real bundle of {_megabytes(real)}", real, options.changes),
            _at_random(f"random bytes, its archive of {_megabytes(real_archive)}", real_archive, options.changes),
            _restructured("structure of a folder", small, FOLDER_CHANGES, place),
            _restructured("structure of an archive", small_archive, ARCHIVE_CHANGES, place),
            *_rewritten(small, place),
        ]
    _print(rows)
    return int(any(row.missed for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="real bundle, a folder [the demo's]")
    parser.add_argument("--changes", type=int, default=10_000, help="random changes in it [10000]")
    parser.add_argument("--values", type=int, default=255, help="other values per byte in the sweep [255]")
    parser.add_argument("--archive-values", type=int, default=255, help="and in that of its archive [255]")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _minimal(out: Path) -> Path:
    """Every kind of file that a bundle has, as short as it can be; with a stand-in for a signature."""
    from edgerecover.bundle.verify import signature_digest

    write_bundle({"a": b"ab", "d/b": b"1"}, out, {"seed": 0}, {"r": b"x"}, {})
    (out / "signature.json").write_bytes(b"{}")
    (out / "signature.sha256").write_bytes(signature_digest(b"{}"))
    return out


def _demo(place: Path) -> Path:
    subprocess.run([sys.executable, "-m", "edgerecover", "demo", "--out", str(place / "demo")], check=True)
    return next((place / "demo").glob("*.bundle"))


def _caught(bundle: Path) -> bool:
    try:
        verify_bundle(bundle)
    except EdgeRecoverError:
        return True
    return False


# --- bytes --------------------------------------------------------------------------------------------------


def _files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file()) if bundle.is_dir() else [bundle]


def _swept(what: str, bundle: Path, num_values: int) -> Row:
    started_s, missed, num_changes = time.perf_counter(), [], 0
    assert not _caught(bundle), "the whole bundle is good"
    for file in _files(bundle):
        content = file.read_bytes()
        with file.open("r+b", buffering=0) as opened:
            for place, value in enumerate(content):
                for step in range(1, num_values + 1):
                    other = (value + step) % 256
                    num_changes += 1
                    if not _changed(opened.fileno(), place, other, bundle):
                        missed.append(f"{file.name}[{place}] = {other}")
                os.pwrite(opened.fileno(), bytes([value]), place)
    assert not _caught(bundle), "and is good again"
    return Row(what, num_changes, tuple(missed), time.perf_counter() - started_s)


def _at_random(what: str, bundle: Path, num_changes: int) -> Row:
    started_s, missed = time.perf_counter(), []
    assert not _caught(bundle), "the whole bundle is good"
    files = [(file, file.stat().st_size) for file in _files(bundle) if file.stat().st_size]
    for _ in range(num_changes):
        file, size = random.choices(files, weights=[size for _, size in files])[0]
        place = random.randrange(size)
        with file.open("r+b", buffering=0) as opened:
            value = os.pread(opened.fileno(), 1, place)[0]
            other = (value + random.randrange(1, 256)) % 256
            if not _changed(opened.fileno(), place, other, bundle):
                missed.append(f"{file.name}[{place}] = {other}")
            os.pwrite(opened.fileno(), bytes([value]), place)
    assert not _caught(bundle), "and is good again"
    return Row(what, num_changes, tuple(missed), time.perf_counter() - started_s)


def _changed(descriptor: int, place: int, value: int, bundle: Path) -> bool:
    os.pwrite(descriptor, bytes([value]), place)
    return _caught(bundle)


# --- structure ----------------------------------------------------------------------------------------------


def _restructured(what: str, bundle: Path, changes: dict[str, Callable[[Path], None]], place: Path) -> Row:
    started_s, missed = time.perf_counter(), []
    for name, change in changes.items():
        copy = place / f"copy{bundle.suffix}"
        shutil.copytree(bundle, copy) if bundle.is_dir() else shutil.copyfile(bundle, copy)
        assert not _caught(copy), "a copy is as good"
        change(copy)
        if not _caught(copy):
            missed.append(name)
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
    return Row(f"{what}: {len(changes)} ways", len(changes), tuple(missed), time.perf_counter() - started_s)


def _link(bundle: Path) -> None:
    (bundle / "a").rename(bundle.parent / "aside")
    (bundle / "a").symlink_to(bundle.parent / "aside")


def _swap(bundle: Path) -> None:
    one, other = (bundle / "a").read_bytes(), (bundle / "d" / "b").read_bytes()
    (bundle / "a").write_bytes(other)
    (bundle / "d" / "b").write_bytes(one)


def _mixed(bundle: Path) -> None:
    other = write_bundle({"a": b"ab", "d/b": b"1"}, bundle.parent / "other", {"seed": 1}, {"r": b"x"}, {})
    shutil.copyfile(other / MANIFEST_NAME, bundle / MANIFEST_NAME)
    shutil.rmtree(other)


FOLDER_CHANGES: dict[str, Callable[[Path], None]] = {
    "extra file": lambda bundle: (bundle / "more").write_bytes(b"x") and None,
    "extra hidden file": lambda bundle: (bundle / ".more").write_bytes(b"") and None,
    "extra empty folder": lambda bundle: (bundle / "more").mkdir(),
    "missing file": lambda bundle: (bundle / "a").unlink(),
    "missing measurements": lambda bundle: (bundle / "measurements.json").unlink(),
    "missing manifest": lambda bundle: (bundle / MANIFEST_NAME).unlink(),
    "missing signature": lambda bundle: (bundle / "signature.json").unlink(),
    "missing signature digest": lambda bundle: (bundle / "signature.sha256").unlink(),
    "renamed file": lambda bundle: (bundle / "a").rename(bundle / "A") and None,
    "moved file": lambda bundle: (bundle / "a").rename(bundle / "d" / "a") and None,
    "contents swapped": _swap,
    "link in the place of a file": _link,
    "longer file": lambda bundle: (bundle / "a").open("ab").write(b"\0") and None,
    "shorter file": lambda bundle: os.truncate(bundle / "a", 1),
    "manifest of another bundle": _mixed,
    "byte order mark": lambda bundle: _prefixed(bundle / MANIFEST_NAME, b"\xef\xbb\xbf"),
    "Windows line ends": lambda bundle: _replaced(bundle / MANIFEST_NAME, b"\n", b"\r\n"),
    "a key twice": lambda bundle: _replaced(bundle / MANIFEST_NAME, b'"seed": 0', b'"seed": 0,\n  "seed": 0'),
    "a space more": lambda bundle: _replaced(bundle / MANIFEST_NAME, b'"seed": 0', b'"seed":  0'),
    "another spelling of a number": lambda bundle: _replaced(bundle / MANIFEST_NAME, b'"seed": 0', b'"seed": -0'),
}


def _prefixed(file: Path, prefix: bytes) -> None:
    file.write_bytes(prefix + file.read_bytes())


def _replaced(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))


def _entries(archive: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            content = opened.extractfile(member)
            yield member, content.read() if content else b""


def _written(
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], list[tuple[tarfile.TarInfo, bytes]] | None],
    format: int = tarfile.USTAR_FORMAT,
) -> Callable[[Path], None]:
    """The archive written anew by Python's tarfile, so that every checksum fits, after a change of its entries."""

    def write(archive: Path) -> None:
        entries = list(_entries(archive))
        entries = change(entries) or entries
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as opened:
            for info, content in entries:
                opened.addfile(info, io.BytesIO(content))
        end = -(-len(out.getvalue().rstrip(b"\0")) // BLOCK) * BLOCK
        archive.write_bytes(out.getvalue()[:end] + bytes(2 * BLOCK))

    return write


def _field(name: str, value: object) -> Callable[[Path], None]:
    return _written(lambda entries: setattr(entries[-1][0], name, value))


def _entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def _edited(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda archive: archive.write_bytes(change(archive.read_bytes())) and None


ARCHIVE_CHANGES: dict[str, Callable[[Path], None]] = {
    "written anew with tarfile's own padding": lambda archive: _prefixed_end(archive),
    "order reversed": _written(lambda entries: entries[::-1]),
    "two entries swapped": _written(lambda entries: [*entries[:-2], entries[-1], entries[-2]]),
    "entry left out": _written(lambda entries: entries[:-1]),
    "manifest left out": _written(lambda entries: [e for e in entries if e[0].name != MANIFEST_NAME]),
    "entry twice": _written(lambda entries: [*entries, entries[-1]]),
    "entry twice, first": _written(lambda entries: [entries[0], *entries]),
    "entry twice, other content": _written(lambda entries: [*entries, _entry(entries[-1][0].name, b"evil")]),
    "entry in another case": _written(lambda entries: [*entries, _entry("R", b"x")]),
    "entry added": _written(lambda entries: [*entries, _entry("zzz", b"x")]),
    "empty entry added": _written(lambda entries: [*entries, _entry("zzz")]),
    "folder added": _written(lambda entries: [*entries, _entry("zzz", type=tarfile.DIRTYPE)]),
    "symbolic link added": _written(lambda entries: [*entries, _entry("zz", type=tarfile.SYMTYPE, linkname="/etc")]),
    "hard link added": _written(lambda entries: [*entries, _entry("zz", type=tarfile.LNKTYPE, linkname="a")]),
    "device added": _written(lambda entries: [*entries, _entry("zz", type=tarfile.CHRTYPE, devmajor=1, devminor=3)]),
    "pipe added": _written(lambda entries: [*entries, _entry("zz", type=tarfile.FIFOTYPE)]),
    "absolute path added": _written(lambda entries: [*entries, _entry("/zz", b"x")]),
    "path that steps up added": _written(lambda entries: [*entries, _entry("../zz", b"x")]),
    "entry renamed": _field("name", "s"),
    "entry renamed with ./": _field("name", "./r"),
    "mode": _field("mode", 0o755),
    "set-uid": _field("mode", 0o4644),
    "date": _field("mtime", 1),
    "owner": _field("uid", 1),
    "group": _field("gid", 1),
    "owner's name": _field("uname", "root"),
    "group's name": _field("gname", "root"),
    "link target of a file": _field("linkname", "x"),
    "type: contiguous file": _field("type", tarfile.CONTTYPE),
    "type: old file": _field("type", tarfile.AREGTYPE),
    "type: sparse": _field("type", tarfile.GNUTYPE_SPARSE),
    "GNU format": _written(lambda entries: None, tarfile.GNU_FORMAT),
    "comment in an extended header": _written(
        lambda entries: setattr(entries[-1][0], "pax_headers", {"comment": "x"}), tarfile.PAX_FORMAT
    ),
    "path in an extended header": _written(
        lambda entries: setattr(entries[-1][0], "pax_headers", {"path": "evil"}), tarfile.PAX_FORMAT
    ),
    "byte appended": _edited(lambda content: content + b"\0"),
    "block appended": _edited(lambda content: content + bytes(BLOCK)),
    "text appended": _edited(lambda content: content + b"x" * 100),
    "archive appended": _edited(lambda content: content + content),
    "archive appended without the end between": _edited(lambda content: content[: -2 * BLOCK] + content),
    "byte put before": _edited(lambda content: b"\0" + content),
    "block put before": _edited(lambda content: bytes(BLOCK) + content),
    "script put before": _edited(lambda content: b"#!/bin/sh\n".ljust(BLOCK, b"#") + content),
    "cut by a byte": _edited(lambda content: content[:-1]),
    "cut by a block": _edited(lambda content: content[:-BLOCK]),
    "cut by the end": _edited(lambda content: content[: -2 * BLOCK]),
    "cut in half": _edited(lambda content: content[: len(content) // 2]),
    "cut to nothing": _edited(lambda content: b""),
    "empty block in the middle": _edited(lambda content: content[: 2 * BLOCK] + bytes(BLOCK) + content[2 * BLOCK :]),
    "text in the padding": _edited(lambda content: content[: BLOCK + 400] + b"x" + content[BLOCK + 401 :]),
    "text in the end": _edited(lambda content: content[:-1] + b"x"),
    "compressed": _edited(lambda content: __import__("gzip").compress(content)),
}


def _prefixed_end(archive: Path) -> None:
    entries = list(_entries(archive))
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as opened:
        for info, content in entries:
            opened.addfile(info, io.BytesIO(content))


# --- rewritten so that everything fits ------------------------------------------------------------------------


def _rewritten(bundle: Path, place: Path) -> list[Row]:
    """What no digest can show, and a signature does."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        from edgerecover.bundle.carry import sign_bundle
        from edgerecover.bundle.signature import KeySigner, PublicKey

        key = ec.generate_private_key(ec.SECP256R1())
        (place / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (place / "key.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        sign_bundle(bundle, KeySigner(place / "key.pem"))
    except (ImportError, EdgeRecoverError) as error:
        print(f"signatures were left out: {error}", file=sys.stderr)
        return []
    trusted = PublicKey(place / "key.pub")
    verify_bundle(bundle, trusted)
    started_s, missed = time.perf_counter(), []
    for name, change in REWRITTEN.items():
        copy = place / "rewritten"
        shutil.copytree(bundle, copy)
        change(copy)
        verify_bundle(copy)  # without a key it passes: that is what the signature is for
        try:
            verify_bundle(copy, trusted)
            missed.append(name)
        except EdgeRecoverError:
            pass
        shutil.rmtree(copy)
    what = f"rewritten so that all digests fit, signed: {len(REWRITTEN)} ways"
    return [Row(what, len(REWRITTEN), tuple(missed), time.perf_counter() - started_s)]


def _written_anew(bundle: Path, files: dict[str, bytes], fields: dict[str, object], measured: dict[str, bytes]) -> None:
    kept = {name: (bundle / name).read_bytes() for name in ("signature.json", "signature.sha256")}
    write_bundle(files, bundle, fields, measured, {})
    for name, content in kept.items():
        (bundle / name).write_bytes(content)


def _other_measurements(bundle: Path) -> None:
    digest = verify_bundle(bundle).manifest_sha256
    measured = Measurements.parse((bundle / "measurements.json").read_bytes())
    (bundle / "measurements.json").write_bytes(Measurements(digest, measured.files, {"verdict": "pass"}).dump())


def _stripped(bundle: Path) -> None:
    for name in ("signature.json", "signature.sha256"):
        (bundle / name).unlink()


_SAME = {"a": b"ab", "d/b": b"1"}
REWRITTEN: dict[str, Callable[[Path], None]] = {
    "another file": lambda bundle: _written_anew(bundle, {**_SAME, "a": b"xy"}, {"seed": 0}, {"r": b"x"}),
    "a file more": lambda bundle: _written_anew(bundle, {**_SAME, "more": b""}, {"seed": 0}, {"r": b"x"}),
    "a file less": lambda bundle: _written_anew(bundle, {"a": b"ab"}, {"seed": 0}, {"r": b"x"}),
    "another claim": lambda bundle: _written_anew(bundle, _SAME, {"seed": 1}, {"r": b"x"}),
    "another report": lambda bundle: _written_anew(bundle, _SAME, {"seed": 0}, {"r": b"y"}),
    "another verdict": _other_measurements,
    "signature taken off": _stripped,
}


# --- the table ----------------------------------------------------------------------------------------------


def _megabytes(bundle: Path) -> str:
    return f"{sum(file.stat().st_size for file in _files(bundle)) / 1e6:.2f} MB"


def _print(rows: list[Row]) -> None:
    print(f"{'what was changed':<68} {'changes':>9} {'caught':>9} {'missed':>7} {'s':>7}")
    for row in rows:
        caught = row.num_changes - len(row.missed)
        print(f"{row.what:<68} {row.num_changes:>9,} {caught:>9,} {len(row.missed):>7,} {row.seconds:>7.0f}")
        for name in row.missed[:20]:
            print(f"  missed: {name}")
    total = sum(row.num_changes for row in rows)
    print(f"{'all':<68} {total:>9,} {total - sum(len(row.missed) for row in rows):>9,}")


if __name__ == "__main__":
    assert Manifest  # what is changed here is what this version writes
    sys.exit(main())
