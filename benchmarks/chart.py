"""The results as an SVG chart that reads well on a light and on a dark page."""

from html import escape

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.report import shown

WIDTH = 860
COLUMNS = 2
GAP = 30
PANEL = (WIDTH - GAP * (COLUMNS + 1)) // COLUMNS
LABEL = 130  # room for a contender's name
VALUE = 70  # room for its figure
BAR = 18
TITLE = 40
TITLES = {contender.name: contender.title for contender in CONTENDERS}

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .hint { fill: #6e7781; }
  .bar { fill: #b6bec8; }
  .ours { fill: #1f7a5c; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .hint { fill: #8b949e; }
    .bar { fill: #484f58; }
    .ours { fill: #3fb98b; }
  }
"""


def chart(document: dict) -> str:
    """One panel a row; every panel has its own scale, from nothing to its longest bar."""
    panels = [row for row in document["rows"] if any(row["median"].values())]
    column_ends = [GAP] * COLUMNS
    parts = []
    for row in panels:
        column = column_ends.index(min(column_ends))
        x, y = GAP + column * (PANEL + GAP), column_ends[column]
        drawn, height = _panel(row)
        parts.append(f'<g transform="translate({x},{y})">{drawn}</g>')
        column_ends[column] += height + GAP
    height = max(column_ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="Benchmark results by contender">\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(row: dict) -> tuple[str, int]:
    values = {name: value for name, value in row["median"].items() if value is not None}
    longest = max(values.values()) or 1
    hint = f"{row['unit']}, {'more' if row['more_is_better'] else 'less'} is better"
    parts = [
        f'<text class="title" y="12">{escape(row["title"])}</text>',
        f'<text class="hint" y="30">{escape(hint)}</text>',
    ]
    y = TITLE
    for contender in CONTENDERS:
        if contender.name not in values:
            continue
        value = values[contender.name]
        width = max(1.0, value / longest * (PANEL - LABEL - VALUE))
        kind = "bar ours" if contender is OURS else "bar"
        parts += [
            f'<text y="{y + 13}">{escape(TITLES[contender.name])}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 4}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{shown(value)}</text>',
        ]
        y += BAR
    return "".join(parts), y
