"""Is a bundle exactly what its manifest lists? Stdlib only: devices verify too."""

from __future__ import annotations

import stat
from pathlib import Path

from edgerecover.artifacts import sha256_of
from edgerecover.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, FileEntry, Manifest
from edgerecover.errors import BadInputError, VerificationError

MAX_NAMED = 20
"""Problems spelled out in one message."""


def verify_bundle(path: Path) -> Manifest:
    """Check every file of the bundle against its manifest, and that there is no other.

    The manifest is covered by no hash: this finds damage and mix-ups, not an attacker who rewrote both.

    Raises:
        BadInputError: no such folder, or no manifest in it.
        VerificationError: the manifest is malformed, or files are missing, extra, changed or not regular;
            names them.
    """
    manifest = read_manifest(path)
    problems = _problems(path, manifest.files)
    if problems:
        named = problems[:MAX_NAMED]
        if len(problems) > MAX_NAMED:
            named.append(f"and {len(problems) - MAX_NAMED} more")
        raise VerificationError(
            f"{path} is not what its manifest lists:\n  " + "\n  ".join(named),
            hint="copy the bundle again, or make it anew with `edgerecover run`",
        )
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Read the manifest alone, without checking the files it lists.

    Raises:
        BadInputError: no such folder, or no manifest in it.
        VerificationError: the manifest is malformed.
    """
    hint = "a bundle is the folder that `edgerecover run` wrote"
    if not path.is_dir():
        raise BadInputError(f"{path} {'is not a folder' if path.exists() else 'does not exist'}", hint=hint)
    file = path / MANIFEST_NAME
    if file.is_symlink() or not file.is_file():
        raise BadInputError(f"{path} is not a bundle: it has no {MANIFEST_NAME}", hint=hint)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_MANIFEST_BYTES:
        raise VerificationError(f"{file}: larger than the {MAX_MANIFEST_BYTES >> 20} MiB a manifest may take")
    return Manifest.parse(content)


def _problems(root: Path, listed: dict[str, FileEntry]) -> list[str]:
    found = _entries(root)
    problems = [f"missing: {path}" for path in sorted(listed.keys() - found.keys())]
    for path in sorted(found.keys() - {MANIFEST_NAME}):
        if path not in listed:
            problems.append(f"extra: {_printable(path)}")
        elif problem := _difference(root / path, found[path], listed[path]):
            problems.append(f"{problem}: {path}")
    return problems


def _entries(root: Path) -> dict[str, int]:
    """Mode of everything below `root` that is not a folder, by relative path; links are not followed."""
    found: dict[str, int] = {}
    folders = [root]
    while folders:
        for entry in folders.pop().iterdir():
            mode = entry.lstat().st_mode
            if stat.S_ISDIR(mode):
                folders.append(entry)
            else:
                found[entry.relative_to(root).as_posix()] = mode
    return found


def _difference(file: Path, mode: int, entry: FileEntry) -> str | None:
    if stat.S_ISLNK(mode):
        return "a symbolic link, not a file"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    size_bytes = file.stat().st_size
    if size_bytes != entry.size_bytes:
        return f"changed (size {size_bytes} instead of {entry.size_bytes})"
    return None if sha256_of(file) == entry.sha256 else "changed (sha256 differs)"


def _printable(path: str) -> str:
    """A stray file's name is anyone's text: shown escaped where it would play with the terminal."""
    return path if path.isprintable() else ascii(path)
