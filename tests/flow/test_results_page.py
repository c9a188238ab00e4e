"""The page of many boards, in a real browser at two widths."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from edgekit.core.result import Result, Subject
from edgekit.reports.boards import boards_page
from tests.boards_data import result, soak

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not CHROMIUM and os.environ.get("EDGEKIT_LAB_REQUIRED"):
    raise RuntimeError("pages must be looked at in a browser here, and there is no Chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")]

MEASURE = """<script>
const parts = {};
for (const name of ['h1', 'table', 'section', 'svg', 'polyline.line', 'polyline.heat', 'rect.chosen', 'details'])
  parts[name] = [...document.querySelectorAll(name)].map(e => { const r = e.getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, r.height].map(Math.round); });
const overlaps = [...document.querySelectorAll('svg')].map(s => { const t = [...s.querySelectorAll('text')].map(e => e.getBoundingClientRect());
  return t.flatMap((a, i) => t.slice(i + 1).filter(b => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length; });
const pre = document.createElement('pre'); pre.id = 'measured';
pre.textContent = JSON.stringify({parts, overlaps, wide: document.documentElement.scrollWidth, view: innerWidth, tall: document.documentElement.scrollHeight});
document.body.replaceChildren(pre);
</script>"""


def boards() -> list[Result]:
    """Five boards: one leads cold and trails hot, one failed, one is emulated."""
    failed = Result(
        id="x", when="2026-11-25T12:00:00Z", mode="soak", device="attic-cam", subject=Subject(name="cam", kind="bundle", sha256=""),
        state="failed", reason=("DeviceError", "attic-cam: it does not answer"),
    )  # fmt: skip
    return [
        soak("gate-cam", 8.0, 14.0), soak("yard-cam", 10.0, 10.1), result("desk-cam", 12.0, seed=3), failed,
        result("lab-pi5", 350.0, seed=4, emulated="qemu-aarch64"),
    ]  # fmt: skip


def browse(page: Path, *words: str) -> str:
    """Return what Chromium prints for a page."""
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *words, page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "lab.html"
    path.write_text(boards_page(boards()))
    return path


@pytest.mark.parametrize("width", [1280, 500])
def test_every_part_is_on_the_page_and_fits_its_width(page: Path, width: int):
    measured = page.with_name(f"measured{width}.html")
    measured.write_text(page.read_text().replace("</body>", f"{MEASURE}</body>"))
    found = json.loads(
        re.search(
            r'<pre id="measured">(.*?)</pre>', browse(measured, f"--window-size={width},900", "--dump-dom")
        )[1].replace("&quot;", '"')
    )
    parts = found["parts"]
    assert found["wide"] <= found["view"], "the page scrolls sideways"
    assert len(parts["section"]) == 4
    assert len(parts["polyline.line"]) == 4
    assert len(parts["polyline.heat"]) == 2, "only the soaks have temperatures"
    assert len(parts["rect.chosen"]) > 40
    assert all(w > 250 and h > 100 for _, _, w, h in parts["svg"])
    assert not any(found["overlaps"]), "labels lie on each other"
    # Plots stand beside each other on a wide screen and below each other on a narrow one.
    (x0, y0, *_), (x1, y1, *_) = parts["svg"][:2]
    assert (y0 == y1 and x1 > x0) if width > 900 else (x0 == x1 and y1 > y0)


def test_the_lines_and_bars_are_drawn(page: Path, tmp_path: Path):
    shot = tmp_path / "page.png"
    browse(page, "--window-size=1280,2600", f"--screenshot={shot}")
    image = cv2.imread(str(shot)).astype(int)
    blue = (abs(image - [214, 111, 31]).sum(axis=2) < 60).sum()
    red = (abs(image - [30, 38, 179]).sum(axis=2) < 90).sum()
    assert blue > 3000, "no latency line and no bars"
    assert red > 300, "no temperature line"


def test_ranks_change_between_minute_1_and_minute_30(page: Path):
    rows = re.findall(
        r"<tr><td>(\S+?)</td><td>cam .*?</td><td class=n>([\d.]+) ms</td><td class=n>(\d)</td><td class=n>(.*?)</td><td class=n>(.)</td>",
        page.read_text(),
    )
    ranks = {device: (cold, warm) for device, _, cold, _, warm in rows}
    assert ranks == {"yard-cam": ("2", "1"), "desk-cam": ("3", "-"), "gate-cam": ("1", "2")}
    text = page.read_text()
    assert "Not ranked" in text
    assert "attic-cam: it does not answer" in text
