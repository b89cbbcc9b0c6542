"""A drill as one picture: requests by the region that answered, failures and latency over time, as an SVG.

One file without scripts, fonts or links, readable on light and on dark ground: it follows what the reader's system prefers.
Above is the whole run; below, in bars of 100 ms, the seconds around the fault and around the return of the region.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from operations.drills import terminal
from operations.drills.analysis import ALL_DOWN, BUCKET, FAULT, HEAL, HEALTHY, Analysis, Bucket
from operations.drills.result import DrillResult

_WIDTH = 960.0
_LEFT, _RIGHT = 76.0, 20.0
_BARS, _LANE, _LATENCY = 118.0, 18.0, 104.0
_PAUSE = 10.0
_LABELS = 34.0
_AXIS = 34.0
# What one zoom shows, around its mark.
_BEFORE, _AFTER = 1.0, 5.0
# Regions in their own colours; what is beyond shares one, as more are not told apart.
_COLOURS = 5
_OTHERS = "other regions"
_NARROWEST_BAR = 2.0
# In the whole run; of fewer requests a bar shows how they fell into it rather than how many there were.
_FEWEST_IN_A_BAR = 8

_LIGHT = {
    "ground": "#fcfcfb",
    "ink": "#1a1a19",
    "soft": "#5f5e59",
    "line": "#dddcd6",
    "bad": "#d03b3b",
    "c0": "#2a78d6",
    "c1": "#1baf7a",
    "c2": "#eda100",
    "c3": "#7a5bd0",
    "c4": "#d65f93",
    "c5": "#9b9a94",
}
_DARK = {
    "ground": "#1a1a19",
    "ink": "#f3f2ee",
    "soft": "#b1b0a9",
    "line": "#3a3a37",
    "bad": "#f06a6a",
    "c0": "#4a93ec",
    "c1": "#1fae7b",
    "c2": "#d19311",
    "c3": "#9d86f0",
    "c4": "#e07aa8",
    "c5": "#85847e",
}


def _colours(of: Mapping[str, str]) -> str:
    fills = {"text": "soft", ".title": "ink", ".part": "ink", ".mark": "ink", ".badtext": "bad", ".ground": "ground", ".bad": "bad"}
    fills |= {f".c{place}": f"c{place}" for place in range(_COLOURS + 1)}
    strokes = {".grid": "line", ".when": "ink", ".median": "ink", ".worst": "soft", ".mark": "ground"}
    rules = [f".fd {name}{{fill:{of[colour]}}}" for name, colour in fills.items()]
    return "".join(rules + [f".fd {name}{{stroke:{of[colour]}}}" for name, colour in strokes.items()])


# Plain colours rather than variables: viewers that are no browsers know nothing of those, nor of preferences, and show the light one.
_STYLE = f"""
.fd{{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}}
.fd text{{font-size:11px}}.fd .title{{font-size:17px;font-weight:600}}.fd .part{{font-size:12px;font-weight:600}}.fd .sub{{font-size:12px}}
.fd .end{{text-anchor:end}}.fd .mid{{text-anchor:middle}}.fd .mark{{stroke-width:4px;paint-order:stroke}}
.fd .grid{{stroke-width:1;shape-rendering:crispEdges}}.fd .when{{stroke-width:1;stroke-dasharray:3 3}}.fd .area{{shape-rendering:crispEdges}}
.fd .median{{fill:none;stroke-width:1.5;stroke-linejoin:round}}.fd .worst{{fill:none;stroke-width:3.2;stroke-linecap:round}}
{_colours(_LIGHT)}
@media (prefers-color-scheme:dark){{{_colours(_DARK)}}}
"""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where a part of the picture is, and which time it shows."""

    x: float
    y: float
    width: float
    begin: float
    end: float

    def at(self, time: float) -> float:
        return self.x + (time - self.begin) / (self.end - self.begin) * self.width

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True, kw_only=True)
class _Bar:
    at: float
    width: float
    series: Sequence[int]
    failed: int
    p50: float | None
    worst: float | None


def _height_of_part() -> float:
    return _LABELS + _BARS + _PAUSE + _LANE + _LATENCY + _AXIS


def of(result: DrillResult, found: Analysis) -> str:
    load = result.load
    victim = f" of {result.victim}" if result.victim else ""
    # Short enough for the width of the picture.
    title = f"{result.case}{victim}: {result.model}, {load.rate:g} {'streams' if load.stream else 'requests'}/s"
    engines = "vLLM" if result.backend == "vllm" else "mock engines behind the same gateways"
    return svg(found, title, f"{engines}, through the front doors of {', '.join(load.doors)}{terminal.compared(result)}", result.clusters, result.case)


def svg(found: Analysis, title: str, subtitle: str, clusters: Sequence[str], fault: str = "fault") -> str:
    """The picture. `clusters` fixes which region has which colour; `fault` names what was done, for the line that marks it."""
    seen = sorted({name for bar in found.buckets for name in bar.clusters} - set(clusters))
    names = [*clusters, *seen]
    coloured, others = names[:_COLOURS], names[_COLOURS:]
    zero = found.marks.get(FAULT, 0.0)
    end = max(found.buckets[-1].at + BUCKET if found.buckets else 0.0, BUCKET)
    labels = {FAULT: fault, ALL_DOWN: "nowhere to go", HEAL: "recovery begins", HEALTHY: "can serve again"}
    marks = [(found.marks[name], text) for name, text in labels.items() if name in found.marks]

    zooms = [(name, text) for name, text in ((FAULT, f"Around the fault: {fault}"), (HEALTHY, "Around the return")) if name in found.marks]
    # A run that is hardly longer than a zoom needs none.
    zooms = zooms if end > 2 * (_BEFORE + _AFTER) else []
    top, part = 86.0, _height_of_part()
    total = top + part + (part + 8 if zooms else 0) + 6

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fd" role="img" viewBox="0 0 {_WIDTH:g} {total:g}" width="{_WIDTH:g}" height="{total:g}">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(subtitle)}. {escape(_told(found))}.</desc>",
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH:g}" height="{total:g}" rx="6"/>',
        _text(_LEFT, 28, title, "title"),
        _text(_LEFT, 46, subtitle, "sub"),
        _text(_WIDTH - _RIGHT, 28, _told(found), "end part" + (" badtext" if any(phase.failed for phase in found.phases.values()) else "")),
        *_legend(coloured, bool(others)),
    ]
    whole = _Frame(x=_LEFT, y=top, width=_WIDTH - _LEFT - _RIGHT, begin=0.0, end=end)
    parts += _part(whole, found.buckets, coloured, others, marks, zero, "The whole run")
    room = (_WIDTH - _LEFT * len(zooms) - _RIGHT) / max(len(zooms), 1)
    for place, (name, text) in enumerate(zooms):
        middle = found.marks[name]
        begin = round(max(0.0, middle - _BEFORE) / BUCKET) * BUCKET
        frame = _Frame(x=_LEFT + place * (room + _LEFT), y=top + part + 8, width=room, begin=begin, end=min(begin + _BEFORE + _AFTER, end))
        parts += _part(frame, found.buckets, coloured, others, marks, zero, text)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _told(found: Analysis) -> str:
    failed = sum(phase.failed for phase in found.phases.values())
    return f"{failed:,} of {found.requests:,} requests failed"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "") + f">{escape(text)}</text>"


def _legend(coloured: Sequence[str], others: bool) -> Iterator[str]:
    x, y = _LEFT, 66.0
    entries = [*((name, f"c{place}") for place, name in enumerate(coloured)), *([(_OTHERS, f"c{_COLOURS}")] if others else []), ("failed", "bad")]
    for name, kind in entries:
        yield f'<rect class="{kind}" x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2"/>'
        yield _text(x + 15, y, name)
        x += 15 + _length(name) + 18
    yield f'<path class="median" d="M{x:.1f} {y - 4:.1f}h16"/>'
    yield _text(x + 21, y, "median latency")
    x += 21 + _length("median latency") + 18
    yield f'<path class="worst" d="M{x:.1f} {y - 4:.1f}h0"/>'
    yield _text(x + 8, y, "longest latency of a bar")


def _length(text: str) -> float:
    """About how wide a text of 11 px is."""
    return 6.1 * len(text)


def _part(
    frame: _Frame,
    buckets: Sequence[Bucket],
    coloured: Sequence[str],
    others: Sequence[str],
    marks: Sequence[tuple[float, str]],
    zero: float,
    title: str,
) -> Iterator[str]:
    inside = [each for each in buckets if frame.begin - 1e-9 <= each.at < frame.end - 1e-9]
    requests = sum(each.requests for each in inside)
    least = _FEWEST_IN_A_BAR * len(inside) / requests * BUCKET if requests and len(inside) == len(buckets) else 0.0
    width = _bar_width(frame, least)
    bars = _merge(inside, width, coloured, others)
    bars_top = frame.y + _LABELS
    lane_top = bars_top + _BARS + _PAUSE
    latency_top = lane_top + _LANE
    bottom = latency_top + _LATENCY
    yield _text(frame.x, frame.y + 4, title, "part")
    yield from _requests(frame, bars, bars_top, width)
    yield from _failures(frame, bars, lane_top)
    yield from _latencies(frame, bars, latency_top)
    yield from _times(frame, bottom, zero)
    yield from _marks(frame, bars_top, bottom, marks)


def _bar_width(frame: _Frame, least: float) -> float:
    for step in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        width = step * BUCKET
        # A run must not become a handful of bars.
        if width < least and width * 60 < frame.end - frame.begin:
            continue
        if frame.width * width / (frame.end - frame.begin) >= _NARROWEST_BAR:
            return width
    return 1000 * BUCKET


def _merge(buckets: Sequence[Bucket], width: float, coloured: Sequence[str], others: Sequence[str]) -> list[_Bar]:
    """Wider bars. The median of a wider bar is the median of the medians: enough for a line of two pixels a step."""
    step = round(width / BUCKET)
    bars: list[_Bar] = []
    for begin in range(0, len(buckets), step):
        held = buckets[begin : begin + step]
        medians = sorted(each.p50 for each in held if each.p50 is not None)
        series = [sum(each.clusters.get(name, 0) for each in held) for name in coloured]
        series.append(sum(each.clusters.get(name, 0) for each in held for name in others))
        bars.append(
            _Bar(
                at=held[0].at,
                width=len(held) * BUCKET,
                series=series,
                failed=sum(each.failed for each in held),
                p50=medians[(len(medians) - 1) // 2] if medians else None,
                worst=max((each.worst for each in held if each.worst is not None), default=None),
            )
        )
    return bars


def nice_top(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten; whole where the value is a count."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value - 1e-9 and (step * power).is_integer())


def _requests(frame: _Frame, bars: Sequence[_Bar], top: float, width: float) -> Iterator[str]:
    highest = nice_top(max((sum(bar.series) + bar.failed for bar in bars), default=1))
    scale = _BARS / highest
    base = top + _BARS
    # Half a request is none.
    for value in (0, highest / 2, highest) if highest % 2 == 0 else (0, highest):
        y = base - value * scale
        yield f'<path class="grid" d="M{frame.x:.1f} {y:.1f}H{frame.right:.1f}"/>'
        yield _text(frame.x - 6, y + 4, f"{value:g}", "end")
    unit = f"{width * 1000:g} ms" if width < 1 else f"{width:g} s"
    yield _vertical(frame.x - 58, top + _BARS / 2, f"requests per {unit}")
    heights = [0.0] * len(bars)
    kinds = [f"c{place}" for place in range(len(bars[0].series))] if bars else []
    for place, kind in enumerate([*kinds, "bad"]):
        counts = [bar.failed if kind == "bad" else bar.series[place] for bar in bars]
        # A gap between bars, where they are wide enough to show it.
        gap = 1.0 if bars and frame.at(frame.begin + width) - frame.x >= 5 else 0.0
        pieces: list[str] = []
        for index, (bar, count) in enumerate(zip(bars, counts, strict=True)):
            if count:
                x, right = frame.at(bar.at), frame.at(bar.at + bar.width)
                y = base - (heights[index] + count) * scale
                pieces.append(f"M{x:.1f} {y:.1f}h{right - x - gap:.1f}v{count * scale:.1f}h{-(right - x - gap):.1f}z")
                heights[index] += count
        if pieces:
            yield f'<path class="area {kind}" d="{"".join(pieces)}"/>'


def _failures(frame: _Frame, bars: Sequence[_Bar], top: float) -> Iterator[str]:
    """One failure among hundreds is no pixel of a bar: each bar with one gets a tick of its own."""
    yield _text(frame.x - 6, top + 6, "failed", "end badtext")
    pieces: list[str] = []
    for bar in bars:
        if bar.failed:
            x, right = frame.at(bar.at), frame.at(bar.at + bar.width)
            pieces.append(f"M{x:.1f} {top - 3:.1f}h{max(right - x, 2):.1f}v9H{x:.1f}z")
    if pieces:
        yield f'<path class="bad" d="{"".join(pieces)}"/>'


def latency_decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten, in seconds, between which all values lie; two apart at least."""
    known = [each for each in values if each > 0] or [0.01]
    low = math.floor(math.log10(min(known)) + 1e-9)
    high = math.ceil(math.log10(max(known)) - 1e-9)
    return low, max(high, low + 2)


def _latencies(frame: _Frame, bars: Sequence[_Bar], top: float) -> Iterator[str]:
    low, high = latency_decades([each for bar in bars for each in (bar.p50, bar.worst) if each is not None])

    def height(value: float) -> float:
        return top + _LATENCY * (1 - (math.log10(max(value, 10.0**low)) - low) / (high - low))

    for power in range(low, high + 1):
        y = height(10.0**power)
        yield f'<path class="grid" d="M{frame.x:.1f} {y:.1f}H{frame.right:.1f}"/>'
        yield _text(frame.x - 6, y + 4, duration(10.0**power), "end")
    yield _vertical(frame.x - 58, top + _LATENCY / 2, "latency")
    middle = [(frame.at(bar.at + bar.width / 2), bar) for bar in bars]
    dots = "".join(f"M{x:.1f} {height(bar.worst):.1f}h0" for x, bar in middle if bar.worst is not None)
    line, pen = "", "M"
    for x, bar in middle:
        # The line breaks where nothing was answered.
        if bar.p50 is None:
            pen = "M"
            continue
        line += f"{pen}{x:.1f} {height(bar.p50):.1f}"
        pen = "L"
    yield f'<path class="worst" d="{dots}"/>' if dots else ""
    yield f'<path class="median" d="{line}"/>' if line else ""


def duration(seconds: float) -> str:
    """For a label: `5 ms`, `1.5 s`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _times(frame: _Frame, bottom: float, zero: float) -> Iterator[str]:
    span = frame.end - frame.begin
    step = next((each for each in (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600) if frame.width * each / span >= 44), 1200)
    yield f'<path class="grid" d="M{frame.x:.1f} {bottom:.1f}H{frame.right:.1f}"/>'
    tick = math.ceil((frame.begin - zero) / step - 1e-9) * step
    while zero + tick <= frame.end + 1e-9:
        x = frame.at(zero + tick)
        yield f'<path class="grid" d="M{x:.1f} {bottom:.1f}v4"/>'
        yield _text(x, bottom + 15, f"{tick + 0.0:g}", "mid")
        tick += step
    yield _text(frame.x + frame.width / 2, bottom + 29, "seconds since the fault" if zero else "seconds since the begin of the load", "mid")


def _marks(frame: _Frame, top: float, bottom: float, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
    """Labels that would cover each other go into the next of two rows."""
    taken = [-math.inf, -math.inf]
    lines: list[str] = []
    texts: list[str] = []
    for time, text in sorted(marks):
        if not frame.begin - 1e-9 <= time <= frame.end + 1e-9:
            continue
        x, length = frame.at(time), _length(text)
        begin = min(x + 4, frame.right - length)
        row = 0 if begin > taken[0] else 1
        taken[row] = begin + length + 8
        y = top - 4 - 12 * row
        lines.append(f'<path class="when" d="M{x:.1f} {y - 8:.1f}V{bottom:.1f}"/>')
        texts.append(_text(begin, y, text, "mark"))
    yield from lines
    yield from texts


def _vertical(x: float, y: float, text: str) -> str:
    return f'<text class="mid" transform="translate({x:.1f} {y:.1f}) rotate(-90)">{escape(text)}</text>'
