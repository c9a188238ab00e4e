"""What all HTML pages share: the style sheet and tables."""

from __future__ import annotations

from collections.abc import Sequence

CSS = """
:root{color-scheme:light dark;--ink:#1c2330;--soft:#5b6577;--line:#d9dee7;--paper:#fff;--card:#f5f7fa;
--good:#137a4b;--bad:#b3261e;--open:#8a5a00;--one:#1f6fd6;--two:#a9b3c3}
@media(prefers-color-scheme:dark){:root{--ink:#e7ebf2;--soft:#9aa5b8;--line:#333c4b;--paper:#14181f;
--card:#1c222c;--good:#4cc38a;--bad:#ff8a80;--open:#e5b567;--one:#6aa7ff;--two:#5d6a7e}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1080px;
margin:32px auto;padding:0 20px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 10px}p{margin:6px 0}
.soft{color:var(--soft)}.verdict{border-left:6px solid var(--tone);background:var(--card);padding:16px 20px;border-radius:6px}
.verdict b{color:var(--tone);font-size:20px;text-transform:uppercase;letter-spacing:.04em}
.good{--tone:var(--good)}.bad{--tone:var(--bad)}.open{--tone:var(--open)}td .state,span.state{color:var(--tone);font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.chosen td{background:var(--card);font-weight:600}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:20px}
svg{width:100%;height:auto;background:var(--card);border-radius:6px}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
svg .axis{stroke:var(--soft)}svg .grid{stroke:var(--line)}svg .chosen{fill:var(--one);fill-opacity:.85}
svg .other{fill:var(--two);fill-opacity:.8}svg .line{fill:none;stroke:var(--one);stroke-width:1.6}
svg .second,svg .third,svg .fourth{fill:none;stroke-width:1.6}svg .second{stroke:var(--bad)}svg .third{stroke:var(--good)}svg .fourth{stroke:var(--open)}
svg .heat{fill:none;stroke:var(--bad);stroke-width:1.4;stroke-dasharray:5 3}svg text.heat{fill:var(--bad);stroke:none}
.bar{height:8px;background:var(--one);border-radius:2px;min-width:1px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:12px}.pictures img{width:100%;border-radius:6px}
details{margin:8px 0}summary{cursor:pointer;color:var(--soft)}
pre{background:var(--card);padding:12px;border-radius:6px;overflow-x:auto;font-size:13px}
"""


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), chosen: int = -1
) -> str:
    """Return a table; cells are HTML already."""
    head = "".join(f"<th{' class=n' if c in numbers else ''}>{h}</th>" for c, h in enumerate(heads))
    body = []
    for k, row in enumerate(rows):
        cells = "".join(f"<td{' class=n' if c in numbers else ''}>{cell}</td>" for c, cell in enumerate(row))
        body.append(f"<tr{' class=chosen' if k == chosen else ''}>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )
