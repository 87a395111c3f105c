"""Where a command may write: not over existing files unless forced, and never into a bundle."""

from __future__ import annotations

from pathlib import Path

from edgerecover.artifacts import sha256_of
from edgerecover.errors import BadInputError, VerificationError


def require_free(flag: str, path: Path, *, force: bool) -> None:
    """Refuse to overwrite a file unless `--force` was given, and to write inside a bundle in any case.

    Args:
        flag: the flag that named the path, for the message: "--out".
        path: file to write.
        force: the user wants an existing file replaced.

    Raises:
        BadInputError: the path exists, or is inside a bundle.
    """
    require_outside(flag, path)
    if path.is_dir():
        raise BadInputError(f"{flag} {path}: is a folder; a file was expected", hint="name a file")
    if not force and (path.exists() or path.is_symlink()):
        raise _already_there(f"{flag} {path}: already exists", flag)


def require_new_folder(flag: str, path: Path, *, force: bool) -> None:
    """Refuse to replace a folder that is not empty unless `--force` was given.

    Raises:
        BadInputError: the folder is not empty, or is inside a bundle.
    """
    require_outside(flag, path)
    if not force and path.is_dir() and any(path.iterdir()):
        raise _already_there(f"{flag} {path}: already exists", flag)


def require_suffix(flag: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a file name whose suffix does not match the format that will be written.

    Raises:
        BadInputError: it ends in none of the suffixes.
    """
    if path.suffix.lower() not in suffixes:
        raise BadInputError(
            f"{flag} {path}: must end in {' or '.join(suffixes)}",
            hint=f"for example {flag} {path.with_suffix(suffixes[0]).name}",
        )


def require_outside(flag: str, path: Path) -> None:
    """Refuse a path inside a bundle: with one more file it would not match its signature.

    Raises:
        BadInputError: the path is inside a bundle.
    """
    if (bundle := bundle_around(path)) is not None:
        raise BadInputError(
            f"{flag} {path}: is inside the bundle {bundle}, which must not change",
            hint=f"name a path outside it with {flag}",
        )


def require_same_release(out: Path, model: Path, target: str, *, force: bool, by_content: bool = False) -> None:
    """Refuse to replace the bundle of another model or target, unless `--force` was given.

    Args:
        out: folder of the bundle.
        model: the checkpoint or ONNX file.
        target: name of the target.
        force: the user wants any bundle replaced.
        by_content: the file's name says nothing, so that the same model is one with the same bytes.

    Raises:
        BadInputError: another model's or target's bundle is there, or `out` is inside a bundle.
    """
    from edgerecover.bundle.verify import read_manifest

    require_outside("--out", out)
    try:
        fields = read_manifest(out).fields
    except (BadInputError, VerificationError):
        return  # anything else there is refused when the bundle is written
    origins = fields["lineage"].values()
    names = [origin["name"] for origin in origins if origin["name"]]
    is_model = sha256_of(model) in [origin["sha256"] for origin in origins] if by_content else model.name in names
    is_same = fields["target"] == target and (model.is_dir() or is_model)
    if not force and not is_same:
        raise _already_there(f"--out {out}: contains the bundle of {names[-1]} for {fields['target']}", "--out")


def _already_there(what: str, flag: str) -> BadInputError:
    return BadInputError(
        f"{what}, and was not overwritten", hint=f"name another path with {flag}, or overwrite it with --force"
    )


def beside_bundle(folder: Path) -> Path:
    """A folder for files by default: `folder` itself, or the parent of the bundle that it is in."""
    around = bundle_around(folder / "any")
    return folder if around is None else around.parent


def bundle_around(path: Path) -> Path | None:
    """The outermost bundle that contains a path, found by the manifests of its parent folders; None: no bundle."""
    from edgerecover.bundle.manifest import MANIFEST_NAME
    from edgerecover.bundle.verify import read_manifest

    found = None
    for folder in path.absolute().resolve().parents:
        if not (folder / MANIFEST_NAME).is_file():
            continue
        try:
            read_manifest(folder)
        except (BadInputError, VerificationError):
            continue  # other projects have a manifest.json too
        found = folder
    return found
