"""The agent's folder on a board: blobs by SHA-256, waiting orders, results; each written aside and renamed.

blobs/<sha256>          a whole file, verified when it arrived
blobs/<sha256>.part     what has arrived of one; an upload goes on from its end
orders/<id>.json        an order that has no result yet
work/<id>/              its files, links to blobs; progress.json and tries beside them
results/<id>.json       its result, until the host has taken it
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edgekit.board.hold import boot
from edgekit.board.orders import Order, is_digest, order_from, order_text
from edgekit.core.digest import digest_file
from edgekit.core.errors import RecipeError, ResourceError, VerificationError
from edgekit.core.files import link_or_copy, write_json, write_text

_PIECE = 1 << 16
# Left free, so that a board does not fill up with what it measures.
_SPARE_MB = 32
# Given up when the disk is full, so that at least the error can be written.
_RESERVE_BYTES = 65536
# What an order may still need is not swept away: blobs are sent before their order.
_YOUNG_S = 3600


class Depot:
    """The agent's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self.orders = root / "blobs", root / "orders"
        self.results, self.work = root / "results", root / "work"
        self._reserve = root / "reserve"

    def make(self) -> None:
        """Make the folders where they are missing."""
        for folder in (self.blobs, self.orders, self.results, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        if not self._reserve.is_file():
            self._reserve.write_bytes(b"\0" * _RESERVE_BYTES)

    def free_mb(self) -> int:
        """Return the free space in MB that this user may fill."""
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize // 1_000_000

    def wanted(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return, of blobs by their sizes, those that are not whole yet, with how much of each is here.

        Raises:
            ResourceError: What is missing does not fit on the disk.
        """
        for one in (self.blobs / s for s in sizes):
            if one.is_file():
                os.utime(one)
        missing = {s: self._arrived(s) for s in sizes if not (self.blobs / s).is_file()}
        needed = sum(sizes[s] - min(have, sizes[s]) for s, have in missing.items()) // 1_000_000 + 1
        if missing and needed + _SPARE_MB > self.free_mb():
            raise ResourceError(
                f"{self.root}: {self.free_mb()} MB free, {needed} MB are to come and {_SPARE_MB} MB stay free",
                hint="Free space on the board, or set `root` of the device to another disk there.",
            )
        return missing

    def _arrived(self, sha256: str) -> int:
        part = self.blobs / f"{sha256}.part"
        return part.stat().st_size if part.is_file() else 0

    def take(self, sha256: str, offset: int, size: int, source: IO[bytes]) -> None:
        """Write a blob's bytes from `offset` on; it counts only when whole and its hash is right.

        What arrives before a cut stays, and the next call goes on from there.

        Raises:
            ResourceError: The disk is full.
            VerificationError: The whole has another hash; it is thrown away.
        """
        if not is_digest(sha256):
            raise RecipeError(f"take: {sha256!r} is no SHA-256", hint="Send it again.")
        part = self.blobs / f"{sha256}.part"
        with part.open("r+b" if part.exists() else "w+b") as file:
            file.seek(min(offset, self._arrived(sha256)))
            if file.tell() != offset:
                raise RecipeError(f"take: {file.tell()} bytes are here, not {offset}", hint="Send it again.")
            file.truncate()
            while piece := source.read(_PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        found = part.stat().st_size
        if found < size:
            return
        if found != size or digest_file(part) != sha256:
            part.unlink()
            raise VerificationError(
                f"{sha256[:12]}: arrived changed", hint="It is sent again from the start."
            )
        part.replace(self.blobs / sha256)

    def take_pack(self, source: IO[bytes]) -> int:
        """Take small blobs, one after the other: a line with SHA-256 and size, then the bytes; return how many.

        A cut loses only the blob it falls into.
        """
        count = 0
        while line := source.readline(128):
            sha256, size = line.decode().split()
            self.take(sha256, 0, int(size), io.BytesIO(source.read(int(size))))
            count += 1
        return count

    def submit(self, order: Order) -> None:
        """Keep an order whose files are all here; one that is known already stays as it is.

        Raises:
            RecipeError: A file is missing.
        """
        for path, sha256 in order.files.items():
            if not (self.blobs / sha256).is_file():
                raise RecipeError(f"order {order.id}: {path} has not arrived", hint="Send it again.")
        if not self.state(order.id):
            write_text(self.orders / f"{order.id}.json", order_text(order))

    def state(self, identity: str) -> str:
        """Return "done", "waiting" (also while it runs), or nothing where it is not known."""
        if (self.results / f"{identity}.json").is_file():
            return "done"
        return "waiting" if (self.orders / f"{identity}.json").is_file() else ""

    def waiting(self) -> Iterator[Order]:
        """Give the orders without a result, oldest first; one that cannot be read is put aside."""
        for path in sorted(self.orders.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
            # A kill between writing a result and forgetting its order leaves both.
            if (self.results / path.name).is_file():
                path.unlink(missing_ok=True)
                continue
            try:
                yield order_from(path.read_text())
            except (RecipeError, UnicodeDecodeError):
                path.replace(path.with_suffix(".damaged"))

    def arrange(self, order: Order) -> Path:
        """Return a folder with the order's files at their paths, links to their blobs.

        Raises:
            VerificationError: A blob was changed since it arrived.
        """
        folder = self.work / order.id / "files"
        shutil.rmtree(folder, ignore_errors=True)
        for path, sha256 in order.files.items():
            blob, target = self.blobs / sha256, folder / path
            if digest_file(blob) != sha256:
                blob.unlink()
                raise VerificationError(f"{path}: was changed on the board", hint="Start the run again.")
            link_or_copy(blob, target)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def tries(self, order: Order) -> int:
        """Return how often an order was begun, this time included, and note it before it begins."""
        path = self.work / order.id / "tries"
        count, kills, this = path.read_text().split() if path.is_file() else ("0", str(oom_kills()), boot())
        write_text(path, f"{int(count) + 1} {kills if this == boot() else 0} {boot()}")
        return int(count) + 1

    def oom_kills_since(self, order: Order) -> int:
        """Return how many processes the kernel has ended for lack of memory since an order was first begun."""
        path = self.work / order.id / "tries"
        return oom_kills() - int(path.read_text().split()[1]) if path.is_file() else 0

    def finish(self, order: Order, body: dict[str, Any]) -> None:
        """Write an order's result, then forget the order: in that order, so that neither is lost."""
        try:
            write_json(self.results / f"{order.id}.json", body)
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            full = {
                "kind": "ResourceError",
                "message": f"the result cannot be written: {error.strerror}",
                "hint": "Free space on the board.",
                "exit_code": 8,
            }
            write_json(self.results / f"{order.id}.json", {"error": full})
        (self.orders / f"{order.id}.json").unlink(missing_ok=True)
        shutil.rmtree(self.work / order.id, ignore_errors=True)

    def result(self, identity: str) -> dict[str, Any] | None:
        """Return a finished order's result, None where there is none any more."""
        try:
            found: dict[str, Any] = json.loads((self.results / f"{identity}.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def forget(self, identity: str) -> None:
        """Remove an order and its result, after the host has stored it."""
        for path in (self.orders / f"{identity}.json", self.results / f"{identity}.json"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.work / identity, ignore_errors=True)

    def sweep(self, keep: int) -> None:
        """Remove the oldest blobs that no order needs until at most `keep` bytes are left."""
        needed = {s for o in self.waiting() for s in o.files.values()}
        blobs = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self.blobs.iterdir())
        total = sum(size for _, size, _ in blobs)
        newest = max((at for at, _, _ in blobs), default=0.0)
        for at, size, blob in blobs:
            if total <= keep:
                return
            # Ages are taken against the newest: the board's clock may have jumped.
            if blob.name not in needed and newest - at > _YOUNG_S:
                total -= size
                blob.unlink()

    def progress(self, identity: str) -> dict[str, Any]:
        """Return what the worker last said about an order."""
        try:
            found: dict[str, Any] = json.loads((self.work / identity / "progress.json").read_text())
        except (OSError, ValueError):
            return {}
        return found


def oom_kills() -> int:
    """Return how many processes this kernel has ended for lack of memory, 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in lines if x.startswith("oom_kill ")), 0)
