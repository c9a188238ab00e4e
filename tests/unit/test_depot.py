"""The agent's folder and lock: nothing lost, nothing twice, nothing outside it."""

import io
import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from edgekit.board import agent as agents
from edgekit.board.depot import Depot
from edgekit.board.hold import held, holder, holder_words
from edgekit.board.orders import Order, order_from, order_text
from edgekit.core.digest import digest_bytes
from edgekit.core.errors import LinkError, RecipeError, ResourceError, VerificationError
from edgekit.devices import agents as hosts
from edgekit.devices.protocol import Ran

pytestmark = pytest.mark.light

DATA = os.urandom(200_000)
SHA = digest_bytes(DATA)


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    one = Depot(tmp_path / "agent")
    one.make()
    return one


def order(identity: str = "one", **words: object) -> Order:
    """Return an order for one file."""
    given = {
        "id": identity,
        "do": "bench",
        "who": "ann@desk",
        "when": "2026-11-25T12:00:00Z",
        "device": "gate-cam",
        "files": {"model/a.onnx": SHA},
    }
    return Order(**{**given, **words})  # type: ignore[arg-type]


def test_a_blob_that_arrives_in_parts_is_whole_and_verified(depot: Depot):
    assert depot.wanted({SHA: len(DATA)}) == {SHA: 0}
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA[:70_000]))
    assert depot.wanted({SHA: len(DATA)}) == {SHA: 70_000}
    depot.take(SHA, 70_000, len(DATA), io.BytesIO(DATA[70_000:]))
    assert depot.wanted({SHA: len(DATA)}) == {}
    assert (depot.blobs / SHA).read_bytes() == DATA


def test_a_blob_that_arrives_changed_is_thrown_away(depot: Depot):
    with pytest.raises(VerificationError, match="arrived changed"):
        depot.take(SHA, 0, len(DATA), io.BytesIO(DATA[:-1] + bytes([DATA[-1] ^ 1])))
    assert depot.wanted({SHA: len(DATA)}) == {SHA: 0}
    with pytest.raises(RecipeError, match="no SHA-256"):
        depot.take("../../etc/passwd", 0, 1, io.BytesIO(b"x"))


def test_small_blobs_travel_together(depot: Depot):
    parts = [os.urandom(n) for n in (1, 5000, 70_000)]
    pack = b"".join(f"{digest_bytes(p)} {len(p)}\n".encode() + p for p in parts)
    assert depot.take_pack(io.BytesIO(pack)) == 3
    assert depot.wanted({digest_bytes(p): len(p) for p in parts}) == {}
    # A cut inside the second loses that one alone.
    other = Depot(depot.root.with_name("other"))
    other.make()
    other.take_pack(io.BytesIO(pack[: 66 + 1 + 70 + 100]))
    assert len(other.wanted({digest_bytes(p): len(p) for p in parts})) == 2


def test_what_does_not_fit_is_refused_before_it_is_sent(depot: Depot):
    with pytest.raises(ResourceError, match="MB free"):
        depot.wanted({SHA: 10**15})


def test_an_order_without_its_files_is_refused_and_with_them_kept_once(depot: Depot):
    with pytest.raises(RecipeError, match="has not arrived"):
        depot.submit(order())
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    depot.submit(order())
    depot.submit(order())
    assert [o.id for o in depot.waiting()] == ["one"]
    assert (depot.arrange(order()) / "model" / "a.onnx").read_bytes() == DATA


def test_a_kill_between_result_and_order_does_not_run_it_again(depot: Depot):
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    depot.submit(order())
    text = (depot.orders / "one.json").read_text()
    depot.finish(order(), {"ok": {}})
    (depot.orders / "one.json").write_text(text)
    assert list(depot.waiting()) == []
    assert not (depot.orders / "one.json").exists()
    assert depot.state("one") == "done"
    depot.forget("one")
    assert depot.state("one") == ""
    assert depot.result("one") is None


def test_an_order_that_cannot_be_read_is_put_aside_and_the_next_one_done(depot: Depot):
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    (depot.orders / "bad.json").write_bytes(b"\xff\xfe{")
    depot.submit(order())
    assert [o.id for o in depot.waiting()] == ["one"]
    assert (depot.orders / "bad.damaged").exists()


@pytest.mark.parametrize(
    "words",
    [
        {"files": {"../x": SHA}},
        {"files": {"/etc/x": SHA}},
        {"files": {"x": "/etc/passwd"}},
        {"id": "../../x"},
        {"id": ""},
        {"frames": ("../x",)},
        {"bundle": "/etc"},
        {"artifact": {"main": "../../x"}},
        {"other": {"bundle": "../x"}},
        {"settings": {"entrants": {"a": {"main": "/x"}}}},
    ],
)
def test_an_order_that_names_anything_outside_its_folder_is_refused(words: dict):
    with pytest.raises(RecipeError, match="order:"):
        order_from(order_text(order(**words)))


def test_an_order_of_another_schema_or_type_is_refused():
    for text in (
        "[]",
        "{",
        '{"schema": "edgekit/order/v9"}',
        json.dumps({**json.loads(order_text(order())), "id": 5}),
    ):
        with pytest.raises(RecipeError, match="order"):
            order_from(text)


def test_a_failed_order_answers_its_error_and_is_tried_three_times_at_most(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    depot.submit(order(artifact={"main": "model/a.onnx"}))
    agents.worker(depot, tmp_path / "lock")
    found = depot.result("one")
    assert found
    assert "error" in found
    depot.submit(order("two"))
    for _ in range(3):
        depot.tries(order("two"))
    agents.worker(depot, tmp_path / "lock")
    assert "3 times" in depot.result("two")["error"]["message"]  # type: ignore[index]
    assert agents._given_up(2)["error"]["exit_code"] == 8
    assert agents._given_up(-2)["error"]["exit_code"] == 5


def test_a_result_that_json_cannot_hold_is_an_error_at_once(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edgekit.board.work.carry_out", lambda *_: {"x": float("nan")})
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    depot.submit(order())
    agents.worker(depot, tmp_path / "lock")
    assert depot.result("one")["error"]["kind"] == "bug"  # type: ignore[index]


def test_a_lock_that_may_not_be_opened_fails_the_order_instead_of_waiting_for_ever(
    depot: Depot, tmp_path: Path
):
    depot.take(SHA, 0, len(DATA), io.BytesIO(DATA))
    depot.submit(order())
    (tmp_path / "lock").mkdir()
    agents.worker(depot, tmp_path / "lock")
    assert "Set `lock`" in depot.result("one")["error"]["hint"]  # type: ignore[index]


def _hold(path: Path, seconds: float) -> None:
    with held(path, who="ann@desk", order="x"):
        time.sleep(seconds)


def test_a_lock_names_its_holder_and_is_free_when_the_holder_is_killed(tmp_path: Path):
    path = tmp_path / "board.lock"
    assert holder(path) is None
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(path, 60))
    process.start()
    while not (found := holder(path)):
        time.sleep(0.01)
    assert found["who"] == "ann@desk"
    assert 0 <= found["age_s"] < 30
    assert "ann@desk, for" in holder_words(found)
    with pytest.raises(ResourceError, match="taken by ann@desk"), held(path, who="bob", order="y"):
        pass
    process.kill()
    process.join()
    assert "ann@desk" in path.read_text()
    assert holder(path) is None
    with held(path, who="bob", order="y"):
        pass


def test_a_lock_follows_no_link(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(ResourceError, match="symbolic links"), held(tmp_path / "lock", who="x", order="y"):
        pass
    assert victim.read_text() == "precious"


def test_unlock_ends_no_process_that_is_no_agent(depot: Depot, tmp_path: Path):
    path = tmp_path / "board.lock"
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(path, 60))
    process.start()
    while not holder(path):
        time.sleep(0.01)
    with pytest.raises(ResourceError, match="no agent's worker"):
        agents.unlock(depot, path)
    assert process.is_alive()
    process.kill()
    process.join()


class _Flaky:
    """A connection to a depot in this process that loses the line as told."""

    def __init__(self, depot: Depot, cuts: list[int]) -> None:
        self.depot, self.cuts, self.puts = depot, cuts, 0

    def run(self, words: list[str], *, given: bytes = b"", timeout_s: float = 60) -> Ran:
        reply = {"wanted": lambda: {"wanted": self.depot.wanted(json.loads(given))}}[words[2]]()
        return Ran(code=0, out=f"edgekit-reply {json.dumps(reply)}\n", err="")

    def put(self, local: Path, words: list[str], *, offset: int = 0) -> Ran:
        data = local.read_bytes()[offset:]
        most = self.cuts[self.puts] if self.puts < len(self.cuts) else len(data)
        self.puts += 1
        self.depot.take(words[4], offset, int(words[6]), io.BytesIO(data[:most]))
        if most < len(data):
            raise LinkError("the link was lost")
        return Ran(code=0, out="edgekit-reply {}\n", err="")


def test_an_upload_goes_on_through_any_number_of_cuts_that_let_bytes_through(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hosts, "_AGAIN_S", (0.0, 0.0, 0.0))
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1_200_000))
    sha = digest_bytes(large.read_bytes())
    flaky = _Flaky(depot, [100_000] * 7)
    host = hosts.Agent("gate-cam", flaky, hosts.Place(root="r"))  # type: ignore[arg-type]
    host._ready = True
    host.upload({sha: large})
    assert flaky.puts == 8
    assert (depot.blobs / sha).read_bytes() == large.read_bytes()
    dead = _Flaky(Depot(tmp_path / "dead"), [0] * 50)
    dead.depot.make()
    host = hosts.Agent("gate-cam", dead, hosts.Place(root="r"))  # type: ignore[arg-type]
    host._ready = True
    with pytest.raises(Exception, match="no progress"):
        host.upload({sha: large})
    assert dead.puts <= 5
