"""Keep the agent on a device and talk to it: upload by hash, submit, wait, fetch."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgekit.board.agent import MARK
from edgekit.board.hold import LOCK
from edgekit.board.orders import Order, order_text
from edgekit.core import errors
from edgekit.core.digest import digest_bytes, digest_file
from edgekit.core.errors import DeviceError, EdgekitError, LinkError, MissingError, ResourceError
from edgekit.core.files import write_bytes
from edgekit.core.places import cache_home
from edgekit.core.watch import watcher
from edgekit.devices.protocol import Connection, Ran

# What runs without third-party packages but numpy and the engine: the rooms a board gets.
ROOMS = (
    "core", "machine", "codecs", "backends", "frames", "answers", "plans", "measure", "bundle", "runtime", "board",
)  # fmt: skip
_MAIN = b"from edgekit.board.agent import main\nmain()\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
# A link that comes back within this time is not worth a person's attention.
_AGAIN_S = (1.0, 3.0, 8.0)
# Files up to this many bytes travel together, so many at once.
_SMALL, _PACK = 1_000_000, 32
# Rounds of an upload without a new byte, and looks at an order that nobody works on.
_IDLE, _STILL = 3, 8
_WAITS_S = (2.0, 5.0, 10.0, 20.0)

Found = TypeVar("Found")


def agent_file() -> Path:
    """Return the agent as one zipapp, made from this edgekit's own light side; the same bytes each time."""
    import io

    package = Path(__file__).resolve().parent.parent
    sources = [package / "__init__.py", *(p for r in ROOMS for p in sorted((package / r).rglob("*.py")))]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
        for source in sources:
            name = f"edgekit/{source.relative_to(package).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source.read_bytes(), zipfile.ZIP_DEFLATED)
    data = buffer.getvalue()
    path = cache_home() / "agents" / f"agent-{digest_bytes(data)[:12]}.pyz"
    if not path.is_file():
        write_bytes(path, data)
    return path


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how the agent lives on a device.

    Attributes:
        root: Its folder there.
        python: The Python that runs it.
        lock: File whose lock says that the board is taken; one for all users of a board.
    """

    root: str = ".cache/edgekit-agent"  # below the home folder, where a login begins
    python: str = "python3"
    lock: str = LOCK


class Agent:
    """The agent of one device, installed at the first call."""

    def __init__(self, name: str, connection: Connection, place: Place) -> None:
        self.name, self.connection, self.place = name, connection, place
        self._file = agent_file()
        self._ready = False
        self._there: set[str] = set()

    def hello(self) -> dict[str, Any]:
        """Return what the device is and what waits there: see `board.agent.hello`."""
        return self.ask("hello")

    def ask(self, *words: str, given: bytes = b"", timeout_s: float = 60.0) -> dict[str, Any]:
        """Return the agent's reply to one call.

        Raises:
            EdgekitError: The agent's own error, as the same kind.
            DeviceError: The device cannot be reached, or what answers is no agent.
            MissingError: There is no Python 3.10 there.
        """
        self.install()
        return self._reply(self.connection.run(self._words(words), given=given, timeout_s=timeout_s))

    def install(self) -> None:
        """Put the agent there unless this very one is there already."""
        if self._ready:
            return
        path = self._path()
        # Home-relative paths work in every login shell; the version check comes first, its message is clearest.
        check = "import sys; print(sys.version_info[:2] >= (3, 10), sys.version.split()[0])"
        words = [
            "sh",
            "-c",
            f"{shlex.quote(self.place.python)} -c {shlex.quote(check)} && sha256sum {shlex.quote(path)}",
        ]
        ran = self.connection.run(words)
        found = re.search(r"^(True|False) (\S+)", ran.out, re.MULTILINE)
        if ran.code == 127 or (not found and "not found" in ran.err):
            raise MissingError(
                f"{self.name}: no {self.place.python} there",
                hint="Install Python 3.10, or name one with `python:`.",
            )
        if not found:
            raise self._garbage(ran)
        if found[1] == "False":
            raise MissingError(
                f"{self.name}: its {self.place.python} is {found[2]}, the agent needs 3.10 or newer",
                hint="Install a newer Python there and name it with `python:` in the devices file.",
            )
        if digest_file(self._file) not in ran.out:
            self._send_agent(path)
        self._ready = True

    def _send_agent(self, path: str) -> None:
        watcher().phase(f"{self.name}: installing the agent ({self._file.stat().st_size / 1e3:.0f} kB)")
        aside, sha256 = shlex.quote(f"{path}.part"), digest_file(self._file)
        script = (
            f"mkdir -p {shlex.quote(self.place.root)} && cat > {aside} && "
            f'[ "$(sha256sum < {aside} | cut -d" " -f1)" = {sha256} ] && mv {aside} {shlex.quote(path)}'
        )
        ran = self.connection.put(self._file, ["sh", "-c", script])
        if ran.code:
            raise ResourceError(
                f"{self.name}: the agent cannot be installed in {self.place.root}: {_last(ran.err)}",
                hint="Free space there, or set `root` in the devices file to a folder this user may write.",
            )

    def _path(self) -> str:
        return f"{self.place.root}/{self._file.name}"

    def _words(self, words: tuple[str, ...]) -> list[str]:
        return [
            self.place.python,
            self._path(),
            words[0],
            self.place.root,
            *words[1:],
            "--lock",
            self.place.lock,
        ]

    def _reply(self, ran: Ran) -> dict[str, Any]:
        lines = [line for line in ran.out.splitlines() if line.startswith(f"{MARK} ")]
        try:
            found: dict[str, Any] = json.loads(lines[-1].partition(" ")[2])
        except (IndexError, ValueError):
            raise self._garbage(ran) from None
        if not isinstance(found, dict):
            raise self._garbage(ran)
        if "error" in found:
            raise planned(found["error"], self.name)
        return found

    def _garbage(self, ran: Ran) -> EdgekitError:
        if ran.code == 137 or "Killed" in ran.err:
            return ResourceError(f"{self.name}: out of memory on the device", hint="Free memory there.")
        said = _last(ran.err) or _last(ran.out) or "nothing"
        return DeviceError(
            f"{self.name}: what answers there is no edgekit agent (exit {ran.code}, it said {said[:160]!r})",
            hint="Check the address, and `python` and `root` in the devices file.",
        )

    def upload(self, files: Mapping[str, Path]) -> None:
        """Send what the device does not have yet, by SHA-256; what was cut goes on where it stopped.

        Args:
            files: Local files by their SHA-256.

        Raises:
            ResourceError: They do not fit there.
        """
        sizes = {s: p.stat().st_size for s, p in files.items() if s not in self._there}
        if not sizes:
            return
        idle, before = 0, -1
        while idle < _IDLE:
            wanted = retried(lambda: self.ask("wanted", given=json.dumps(sizes).encode()))["wanted"]
            if not wanted:
                self._there |= set(sizes)
                return
            left = sum(sizes[s] - have for s, have in wanted.items())
            idle, before = (idle + 1 if left == before else 0), left
            small = [s for s, have in wanted.items() if sizes[s] <= _SMALL and not have]
            for k, sha256 in enumerate((s for s in wanted if s not in small), 1):
                watcher().step(f"{self.name}: uploading", k, len(wanted) - len(small))
                self._send(files[sha256], sha256, wanted[sha256])
            for k in range(0, len(small), _PACK):
                watcher().step(f"{self.name}: uploading small files", k + 1, len(small))
                self._send_pack([files[s] for s in small[k : k + _PACK]], small[k : k + _PACK])
        raise DeviceError(
            f"{self.name}: the upload makes no progress",
            hint="Check the link and the board's disk, and try again.",
        )

    def _send(self, path: Path, sha256: str, have: int) -> None:
        words = self._words(("take", sha256, str(have), str(path.stat().st_size)))
        try:
            self._reply(self.connection.put(path, words, offset=have))
        except errors.VerificationError as error:
            watcher().note(str(error.message))
        except LinkError as error:
            watcher().note(f"{error.message}; trying again")
            time.sleep(_AGAIN_S[0])

    def _send_pack(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        """Send small files in one call: a Python that starts for each would take longer than they do."""
        with tempfile.NamedTemporaryFile() as pack:
            for path, sha256 in zip(paths, names, strict=True):
                data = path.read_bytes()
                pack.write(f"{sha256} {len(data)}\n".encode() + data)
            pack.flush()
            try:
                self._reply(self.connection.put(Path(pack.name), self._words(("take-pack",))))
            except (errors.VerificationError, LinkError) as error:
                watcher().note(f"{error.message}; trying again")

    def submit(self, order: Order, *, wait: bool) -> None:
        """Hand over an order whose files are there; handing it over twice does nothing more.

        Raises:
            ResourceError: Someone else has the board, and `wait` is not set.
        """
        words = ("submit", "--wait") if wait else ("submit",)
        try:
            retried(lambda: self.ask(*words, given=order_text(order).encode()))
        except errors.RecipeError:
            # The board may have thrown away what it once had: the next upload asks again.
            self._there.clear()
            raise

    def wait(self, identity: str) -> dict[str, Any]:
        """Return the result of an order when it is done; a killed agent is started again.

        Raises:
            DeviceError: The link stays cut: the order goes on there and can be collected later.
        """
        turn, said, still = 0, "", 0
        while still < _STILL:
            patience = _WAITS_S[min(turn, len(_WAITS_S) - 1)]
            found = self.status(identity, patience)
            if isinstance(result := found.get("result"), dict):
                return result
            if not found.get("state"):
                raise DeviceError(f"{self.name}: does not know order {identity}", hint="Start the run again.")
            said = _show(self.name, identity, found, said)
            still = 0 if found.get("holder") or found.get("progress") else still + 1
            turn += 1
        raise DeviceError(
            f"{self.name}: its worker does not start", hint=f"See {self.place.root}/worker.log there."
        )

    def done(self, order: Order, sources: Mapping[str, Path], *, wait: bool) -> dict[str, Any]:
        """Return what an order gives that nobody collects later: send, hand over, wait, forget.

        Args:
            order: The order.
            sources: Local files by their path in it.
            wait: Wait for a board that is taken.

        Raises:
            EdgekitError: As there.
        """
        self.upload({order.files[p]: f for p, f in sources.items()})
        self.submit(order, wait=wait)
        body = self.wait(order.id)
        self.forget(order.id)
        if "error" in body:
            raise planned(body["error"], self.name)
        with understood(self.name):
            found: dict[str, Any] = body["ok"]
            return found

    def status(self, identity: str, patience_s: float) -> dict[str, Any]:
        """Return how far an order is, with its result when it is done: see `board.agent.status`."""
        return retried(lambda: self.ask("status", identity, str(patience_s), timeout_s=patience_s + 120))

    def forget(self, identity: str) -> bool:
        """Remove a result there, after it was stored here; return whether the device heard it."""
        try:
            self.ask("forget", identity)
        except DeviceError as error:
            watcher().note(f"{error.message}; the result is here, its copy stays there for now")
            return False
        return True


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn an answer that this edgekit does not understand into a planned error.

    Raises:
        DeviceError: It does not.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"{name}: answers what this edgekit does not understand ({type(error).__name__}: {str(error).splitlines()[0][:120]})",
            hint="Is something else listening there? See `edgekit devices doctor`.",
        ) from error


def retried(call: Callable[[], Found]) -> Found:
    """Return what `call` gives; a lost link is tried again three times within 12 s."""
    for pause in _AGAIN_S:
        try:
            return call()
        except LinkError as error:
            watcher().note(f"{error.message}; trying again in {pause:.0f} s")
            time.sleep(pause)
    return call()


def _show(name: str, identity: str, found: Mapping[str, Any], said: str) -> str:
    """Tell the watcher how far an order is; return what was said."""
    progress, owner = found.get("progress") or {}, found.get("holder") or {}
    if owner.get("order") not in {None, identity}:
        words = f"{name}: waiting for {owner.get('who')}"
    else:
        words = f"{name}: {progress.get('phase') or 'starting'}"
    if words != said:
        watcher().phase(words)
    if progress.get("total"):
        watcher().step(f"{name}: {progress['name']}", progress["done"], progress["total"])
    return words


def planned(error: Mapping[str, Any], name: str) -> EdgekitError:
    """Return the error an agent answered, as the same kind here."""
    kind: type[EdgekitError] = getattr(errors, str(error.get("kind")), EdgekitError)
    return kind(f"{name}: {error.get('message')}", hint=str(error.get("hint", "")))


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
