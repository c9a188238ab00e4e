"""Open bundles: nothing in one is used before its hash was checked."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest
from edgekit.bundle.sign import check
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError, VerificationError


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A verified bundle; a context manager, since an `.ekb` is unpacked into a private folder.

    Attributes:
        folder: Where the verified files are.
        manifest: What they are.
        signature: "none", "not checked", or "good".
    """

    folder: Path
    manifest: Manifest
    signature: str
    unpacked: bool = False

    def __enter__(self) -> Bundle:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was unpacked."""
        self.close()

    def close(self) -> None:
        """Remove what was unpacked."""
        if self.unpacked:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_bundle(path: Path, *, trusted_key: Path | None = None) -> Bundle:
    """Return the verified bundle at `path`, a folder or an `.ekb` file.

    Args:
        path: The bundle.
        trusted_key: PEM file with the public key that must have signed it.

    Raises:
        RecipeError: There is nothing at `path`, or a folder without a manifest.
        VerificationError: A file's hash, the manifest or the signature is not right.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise RecipeError(
                f"{path}: no bundle, {MANIFEST} is missing", hint="Give the bundle's own folder."
            )
        manifest = verify_folder(path)
        return Bundle(folder=path, manifest=manifest, signature=_signature(path, trusted_key, str(path)))
    if not path.is_file():
        raise RecipeError(f"{path}: no such bundle", hint="Check the path.")
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
    try:
        _unpack(path, folder)
        manifest = verify_folder(folder, where=str(path))
        signature = _signature(folder, trusted_key, str(path))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Bundle(folder=folder, manifest=manifest, signature=signature, unpacked=True)


def verify_folder(folder: Path, *, where: str = "") -> Manifest:
    """Check every file of a bundle folder against its manifest and return the manifest.

    Raises:
        VerificationError: A file is missing, changed, extra, or a link.
    """
    name = where or str(folder)
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), where=name)
    for path, (size, sha256) in manifest.files.items():
        file = folder / path
        if not file.is_file() or file.is_symlink():
            raise VerificationError(f"{name}: {path} is missing", hint="Fetch the bundle again.")
        found = file.stat().st_size
        if found != size:
            raise VerificationError(
                f"{name}: {path} has {found} bytes, the manifest says {size}", hint="Fetch the bundle again."
            )
        if digest_file(file) != sha256:
            raise VerificationError(
                f"{name}: {path} was changed, its SHA-256 is not the manifest's",
                hint="Do not use it; fetch the bundle again.",
            )
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if extra := sorted(present - set(manifest.files) - {MANIFEST, SIGNATURE}):
        raise VerificationError(
            f"{name}: {extra[0]} is not in the manifest", hint="Remove it or fetch the bundle again."
        )
    return manifest


def _unpack(path: Path, folder: Path) -> None:
    """Unpack only what the manifest names, at the sizes it says."""
    try:
        with zipfile.ZipFile(path) as archive:
            raw = _member(archive, MANIFEST, 64 << 20)
            manifest = parse_manifest(raw, where=str(path))
            (folder / MANIFEST).write_bytes(raw)
            if SIGNATURE in archive.namelist():
                (folder / SIGNATURE).write_bytes(_member(archive, SIGNATURE, 4096))
            for name, (size, _) in manifest.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_member(archive, name, size))
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, NotImplementedError) as error:
        raise VerificationError(
            f"{path}: is no whole bundle ({error})", hint="Fetch the bundle again."
        ) from error


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as member:
        data = member.read(limit + 1)
    if len(data) > limit:
        raise zipfile.BadZipFile(f"{name} is larger than the manifest says")
    return data


def _signature(folder: Path, trusted_key: Path | None, where: str) -> str:
    path = folder / SIGNATURE
    if trusted_key is None:
        return "not checked" if path.exists() else "none"
    if not path.exists():
        raise VerificationError(
            f"{where}: is not signed, and a trusted key was given", hint="Ask for a signed bundle."
        )
    check((folder / MANIFEST).read_bytes(), path.read_bytes(), trusted_key, where=where)
    return "good"
