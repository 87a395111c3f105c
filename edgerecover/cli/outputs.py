"""Where a command may write: over nothing that is there, unless told to, and never into a sealed bundle."""

from __future__ import annotations

from pathlib import Path

from edgerecover.errors import BadInputError, VerificationError


def require_free(flag: str, path: Path, *, force: bool) -> None:
    """Refuse to write where something is, unless `--force` was given, and inside a bundle in any case.

    Args:
        flag: that named the path, for the message: "--out".
        path: of the file to write.
        force: the user wants what is there replaced.

    Raises:
        BadInputError: something is there, or a bundle is around it.
    """
    require_outside(flag, path)
    if path.is_dir():
        raise BadInputError(f"{flag} {path}: is a folder; a file was expected", hint="name a file")
    if not force and (path.exists() or path.is_symlink()):
        raise _already_there(f"{flag} {path}: already exists", flag)


def require_new_folder(flag: str, path: Path, *, force: bool) -> None:
    """Refuse to write a folder where one with something in it is, unless `--force` was given.

    Raises:
        BadInputError: there is one, or a bundle is around it.
    """
    require_outside(flag, path)
    if not force and path.is_dir() and any(path.iterdir()):
        raise _already_there(f"{flag} {path}: already exists", flag)


def require_suffix(flag: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a name that promises another format than what will be written.

    Raises:
        BadInputError: it ends in none of the suffixes.
    """
    if path.suffix.lower() not in suffixes:
        raise BadInputError(
            f"{flag} {path}: must end in {' or '.join(suffixes)}",
            hint=f"for example {flag} {path.with_suffix(suffixes[0]).name}",
        )


def require_outside(flag: str, path: Path) -> None:
    """Refuse a place inside a bundle: a file more, and it is no longer what was signed.

    Raises:
        BadInputError: a bundle is around it.
    """
    if (bundle := bundle_around(path)) is not None:
        raise BadInputError(
            f"{flag} {path}: is inside the bundle {bundle}, which must not change",
            hint=f"name a path outside it with {flag}",
        )


def require_same_release(out: Path, model: Path, target: str, *, force: bool) -> None:
    """Refuse to replace the bundle of another model or target, unless `--force` was given.

    Raises:
        BadInputError: another one's bundle is there, or a bundle is around `out`.
    """
    from edgerecover.bundle.verify import read_manifest

    require_outside("--out", out)
    try:
        fields = read_manifest(out).fields
    except (BadInputError, VerificationError):
        return  # whatever else is there is refused by who writes
    names = [origin["name"] for origin in fields["lineage"].values() if origin["name"]]
    is_same = fields["target"] == target and (model.is_dir() or model.name in names)
    if not force and not is_same:
        raise _already_there(f"--out {out}: contains the bundle of {names[-1]} for {fields['target']}", "--out")


def _already_there(what: str, flag: str) -> BadInputError:
    return BadInputError(
        f"{what}, and was not overwritten", hint=f"name another path with {flag}, or overwrite it with --force"
    )


def beside_bundle(folder: Path) -> Path:
    """The folder itself, or the one that holds the bundle that it lies in: where a default may put its files."""
    around = bundle_around(folder / "any")
    return folder if around is None else around.parent


def bundle_around(path: Path) -> Path | None:
    """The outermost bundle that a path lies in, by the manifests of the folders above it; None: there is none."""
    from edgerecover.bundle.manifest import MANIFEST_NAME
    from edgerecover.bundle.verify import read_manifest

    found = None
    for folder in path.absolute().resolve().parents:
        if not (folder / MANIFEST_NAME).is_file():
            continue
        try:
            read_manifest(folder)
        except (BadInputError, VerificationError):
            continue  # many a project has a manifest.json of another kind
        found = folder
    return found
