"""Fetch a bundle file by file, each checked by its hash before it is used: from a folder, an `.ekb` or a server."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import struct
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from edgekit.bundle.manifest import MANIFEST, SIGNATURE, Manifest, parse_manifest
from edgekit.bundle.sign import check
from edgekit.core.errors import LinkError, RecipeError, VerificationError
from edgekit.core.files import resource_errors

_CHUNK = 256 * 1024
_TIMEOUT_S = 20.0
# As `open_bundle` allows.
_MANIFEST_MOST, _SIGNATURE_MOST = 64 * 2**20, 4096
_HEADER = struct.Struct("<IHHHHHIIIHH")
# Names in a bundle are shorter; a local header and its name come in one read.
_NAME = 256
_TAIL = _HEADER.size + _NAME
_LOCAL = b"PK\x03\x04"


class Origin(Protocol):
    """Where the files of a bundle come from."""

    def read(self, path: str, first: int) -> Iterator[bytes]:
        """Give a file's bytes from byte `first` on.

        Raises:
            LinkError: The server cannot be reached, or the connection broke.
            RecipeError: There is no such file.
        """


class Stream:
    """A bundle that is fetched as it is needed; a context manager.

    Args:
        where: A folder, an `.ekb`, or the `http://` or `https://` address of either.
        trusted_key: PEM file with the public key that must have signed it.

    Attributes:
        manifest: What the bundle holds; its signature was checked where a key was given.
        folder: Where fetched files lie; the bundle itself where that is a folder.
        signature: "none", "not checked", or "good".
        fetched: Bytes that came through so far, the manifest left out.

    Raises:
        RecipeError: There is nothing at `where`.
        LinkError: The server cannot be reached.
        VerificationError: The manifest or its signature is not right.
    """

    def __init__(self, where: str, *, trusted_key: Path | None = None) -> None:
        self.where = where
        self.fetched = 0
        self._origin, local = _origin_of(where)
        raw = _limited(self._origin.read(MANIFEST, 0), _MANIFEST_MOST, f"{where}: {MANIFEST}")
        self.manifest: Manifest = parse_manifest(raw, where=where)
        self.signature = self._signed(raw, trusted_key)
        self._own = local is None
        self.folder = local or Path(tempfile.mkdtemp(prefix="edgekit-"))
        self._good: set[str] = set()

    def __enter__(self) -> Stream:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was fetched."""
        self.close()

    def close(self) -> None:
        """Remove what was fetched."""
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _signed(self, raw: bytes, trusted_key: Path | None) -> str:
        # Some servers refuse what is not there; without a key it makes no difference.
        missing = (RecipeError, LinkError) if trusted_key is None else RecipeError
        try:
            found = _limited(self._origin.read(SIGNATURE, 0), _SIGNATURE_MOST, f"{self.where}: {SIGNATURE}")
        except missing:
            found = b""
        if trusted_key is None:
            return "not checked" if found else "none"
        if not found:
            raise VerificationError(
                f"{self.where}: is not signed, and a trusted key was given", hint="Ask for a signed bundle."
            )
        check(raw, found, trusted_key, where=self.where)
        return "good"

    def fetch(self, path: str, *, mb_s: float = 0.0, ended: threading.Event | None = None) -> Path:
        """Return a file of the bundle on this machine, its hash checked; what broke off is taken up where it stopped.

        Args:
            path: In the manifest.
            mb_s: Megabytes a second at most; 0 for as fast as it comes.
            ended: Set, it ends with a LinkError.

        Raises:
            LinkError: The connection broke.
            VerificationError: The file is not what the manifest says.
            ResourceError: No space or no permission for what comes over a line.
        """
        if path not in self.manifest.files:
            raise VerificationError(
                f"{self.where}: {path} is not in the manifest", hint="Fetch the bundle again."
            )
        target = self.folder / path
        if path in self._good:
            return target
        size, sha256 = self.manifest.files[path]
        pace = _Pace(mb_s, ended)
        if self._own:
            with resource_errors(target):
                self._copy(path, target, size, sha256, pace)
            self._good.add(path)
        else:
            # Anyone may have changed it since it was read last.
            self._check(path, size, sha256, pace)
        return target

    def _check(self, path: str, size: int, sha256: str, pace: _Pace) -> None:
        """Read a file where it lies."""
        digest, count = hashlib.sha256(), 0
        for chunk in pace.of(self._origin.read(path, 0)):
            digest.update(chunk)
            count += len(chunk)
        self.fetched += count
        _refuse_other(self.where, path, (count, digest.hexdigest()), (size, sha256))

    def _copy(self, path: str, target: Path, size: int, sha256: str, pace: _Pace) -> None:
        """Bring a file here, in one piece or in several."""
        part = target.with_name(target.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        digest, count = hashlib.sha256(), 0
        if part.exists():
            with part.open("rb") as file:
                for chunk in iter(lambda: file.read(_CHUNK), b""):
                    digest.update(chunk)
                    count += len(chunk)
        with part.open("ab") as file:
            # A line may break after the last byte: then nothing is left to ask for.
            for chunk in pace.of(self._origin.read(path, count)) if count < size or not count else ():
                digest.update(chunk)
                count += len(chunk)
                self.fetched += len(chunk)
                if count > size:
                    break
                file.write(chunk)
        if count < size and is_address(self.where):
            raise LinkError(
                f"{self.where}: {path} broke off after {count} of {size} bytes", hint="Check the connection."
            )
        if (count, digest.hexdigest()) != (size, sha256):
            # Begun anew next time: what is wrong cannot be mended by more of it.
            part.unlink()
        _refuse_other(self.where, path, (count, digest.hexdigest()), (size, sha256))
        part.replace(target)


def _refuse_other(where: str, path: str, found: tuple[int, str], wanted: tuple[int, str]) -> None:
    if found[0] != wanted[0]:
        raise VerificationError(
            f"{where}: {path} has {found[0]} bytes, the manifest says {wanted[0]}",
            hint="Fetch the bundle again.",
        )
    if found[1] != wanted[1]:
        raise VerificationError(
            f"{where}: {path} was changed, its SHA-256 is not the manifest's",
            hint="Do not use it; fetch the bundle again.",
        )


class _Pace:
    """Gives chunks no faster than asked, and none once it is ended."""

    def __init__(self, mb_s: float, ended: threading.Event | None) -> None:
        self._mb_s, self._ended = mb_s, ended or threading.Event()

    def of(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        began, count = time.perf_counter(), 0
        for chunk in chunks:
            yield chunk
            count += len(chunk)
            ahead_s = count / (self._mb_s * 1e6) - (time.perf_counter() - began) if self._mb_s else 0.0
            if self._ended.wait(ahead_s) if ahead_s > 0 else self._ended.is_set():
                raise LinkError("loading was ended", hint="Nothing is to be done.")


def _limited(chunks: Iterator[bytes], most: int, what: str) -> bytes:
    """Return all bytes, refused where they are more than a manifest has: a server may send without end."""
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > most:
            raise VerificationError(f"{what} is larger than {most} bytes", hint="This is no bundle.")
    return bytes(found)


def is_address(where: str) -> bool:
    """Return whether a bundle is on a server."""
    return where.startswith(("http://", "https://"))


def _origin_of(where: str) -> tuple[Origin, Path | None]:
    """Return where the files come from, and the folder they lie in where it is one."""
    if is_address(where):
        if urllib.parse.urlsplit(where).path.endswith(".ekb"):
            return _Archive(where, _Served(where)), None
        return _Folder(where, _Served), None
    path = Path(where)
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise RecipeError(
                f"{path}: no bundle, {MANIFEST} is missing", hint="Give the bundle's own folder."
            )
        return _Folder(str(path), _File), path
    if not path.is_file():
        raise RecipeError(f"{path}: no such bundle", hint="Check the path.")
    return _Archive(where, _File(where)), None


class _Bytes(Protocol):
    def read(self, first: int, count: int | None, *, whole: bool = True) -> Iterator[bytes]: ...


class _File:
    """Bytes of a file here."""

    def __init__(self, where: str) -> None:
        self._where = Path(where)

    def read(self, first: int, count: int | None, *, whole: bool = True) -> Iterator[bytes]:
        try:
            with self._where.open("rb") as file:
                file.seek(first)
                yield from _chunks(file, count, whole=whole)
        except EOFError as error:
            raise VerificationError(
                f"{self._where}: is not whole, it {error}", hint="Fetch the bundle again."
            ) from error
        except OSError as error:
            raise RecipeError(
                f"{self._where}: cannot be read ({error.strerror or error})", hint="Check the path."
            ) from error


class _Served:
    """Bytes of a file on a server: a request for each range, or one line read forward where it has no ranges."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._line: Any = None
        self._at, self._ranges, self._tail = 0, False, b""

    def read(self, first: int, count: int | None, *, whole: bool = True) -> Iterator[bytes]:
        try:
            if self._line is None or self._at - len(self._tail) > first:
                self._open(first, count)
            if first < self._at:
                # The end of a header that was read with what follows it.
                held = self._tail[first - self._at :][:count]
                count = None if count is None else count - len(held)
                yield held
            for _ in self._forward(first - self._at):
                pass
            yield from self._forward(count, whole=whole)
        except urllib.error.HTTPError as error:
            kind = RecipeError if error.code in {404, 410} else LinkError
            raise kind(
                f"{self._where}: the server answers {error.code} {error.reason}", hint="Check the address."
            ) from error
        except (OSError, EOFError, http.client.HTTPException) as error:
            self._close()
            raise LinkError(
                f"{self._where}: {error or type(error).__name__}", hint="Check the connection."
            ) from error
        if self._ranges:
            self._close()

    def _forward(self, count: int | None, *, whole: bool = True) -> Iterator[bytes]:
        for chunk in _chunks(self._line, count, whole=whole):
            self._at += len(chunk)
            self._tail = (self._tail + chunk[-_TAIL:])[-_TAIL:]
            yield chunk

    def _open(self, first: int, count: int | None) -> None:
        """Ask for bytes; a server without ranges sends all of them."""
        self._close()
        last = "" if count is None else str(first + count - 1)
        asked = {"Range": f"bytes={first}-{last}"} if first or count is not None else {}
        request = urllib.request.Request(self._where, headers=asked)  # noqa: S310 - is_address and _Redirects see to it
        self._line = urllib.request.build_opener(_Redirects()).open(request, timeout=_TIMEOUT_S)
        self._ranges = self._line.status == 206
        self._at, self._tail = first if self._ranges else 0, b""

    def _close(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https, and from https to nothing less."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = (urllib.parse.urlsplit(u).scheme for u in (req.full_url, newurl))
        if new not in {"http", "https"} or (old, new) == ("https", "http"):
            raise urllib.error.HTTPError(newurl, code, f"{msg}, to an address of {new}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _chunks(file: Any, count: int | None, *, whole: bool = True) -> Iterator[bytes]:
    """Give `count` bytes of a file, all of them where None, as they come; fewer are an EOFError unless they may be."""
    left = count
    while left is None or left > 0:
        # Of a line, what has come: what breaks off later was not waited for in vain.
        chunk = file.read1(_CHUNK if left is None else min(_CHUNK, left))
        if not chunk:
            if left and whole:
                raise EOFError(f"broke off, {left} bytes are missing")
            return
        left = None if left is None else left - len(chunk)
        yield chunk


class _Folder:
    """A bundle's folder, here or on a server."""

    def __init__(self, where: str, kind: Any) -> None:
        self._where, self._kind = where.rstrip("/"), kind

    def read(self, path: str, first: int) -> Iterator[bytes]:
        name = urllib.parse.quote(path) if self._kind is _Served else path
        yield from self._kind(f"{self._where}/{name}").read(first, None)


class _Archive:
    """An `.ekb`: stored entries whose local headers say their sizes, read forward, each place remembered."""

    def __init__(self, where: str, source: _Bytes) -> None:
        self._where, self._source = where, source
        self._places: dict[str, tuple[int, int]] = {}
        self._next = 0

    def read(self, path: str, first: int) -> Iterator[bytes]:
        while path not in self._places:
            if path == SIGNATURE and len(self._places) > 1:
                # It comes second or not at all.
                raise RecipeError(f"{self._where}: holds no {path}", hint="Ask for a signed bundle.")
            self._step(path)
        place, size = self._places[path]
        if size > first:
            yield from self._source.read(place + first, size - first)

    def _step(self, wanted: str) -> None:
        """Read one more local header."""
        given = b"".join(self._source.read(self._next, _HEADER.size + _NAME, whole=False))
        if given[:4] != _LOCAL:
            if not self._places:
                raise VerificationError(
                    f"{self._where}: is no bundle, its first bytes are no ZIP's", hint="Check it."
                )
            raise VerificationError(f"{self._where}: {wanted} is missing", hint="Fetch the bundle again.")
        if len(given) < _HEADER.size:
            raise VerificationError(f"{self._where}: is no whole bundle", hint="Fetch it again.")
        _, _, flags, method, _, _, _, size, whole, length, extra = _HEADER.unpack(given[: _HEADER.size])
        if method or flags & 8 or size != whole or length > _NAME:
            raise VerificationError(
                f"{self._where}: cannot be read forward, its entries are not stored",
                hint="Pack it with edgekit bundle pack.",
            )
        name = given[_HEADER.size : _HEADER.size + length].decode(errors="replace")
        at = self._next + _HEADER.size + length + extra
        self._places[name] = (at, size)
        self._next = at + size
