"""The page and the log that stand beside a released video.

`render` gives one self-contained HTML page that opens from disk: pictures are inline, the curve is inline
SVG, and its content security policy forbids every request but the one for the video beside it. Swapped
pictures in it are taken from the labelled, encoded video only.
"""

import base64
import csv
import hashlib
import html
import importlib.metadata
import io
import json
import math
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
from label import SENTENCES
from PIL import Image

STAGES = {
    "extract_a": "Extract A",
    "extract_b": "Extract B",
    "train": "Train",
    "convert": "Convert",
    "release": "Release",
}
POINTS = 400  # of a loss curve; more cannot be told apart at its size

Row = tuple[int, float, float]  # iteration, loss A, loss B
Pair = tuple[int, Image.Image, Image.Image]  # frame number from 1, source, released; as displayed


@dataclass(frozen=True)
class Result:
    """What the release step knows of its result.

    `video` is where the encoded file lies now, `video_name` how it will be called beside the page. `first` is the
    number of the first frame in the source, `of` how many frames that has where the video is a part of it, else 0.
    `percent` is the video's scale, `size` its width and height in px as stored, `rate` in frames/s, `seconds` its
    length, `sound` one note per track, `started` the release's start (epoch s). `pairs` are frames of the source and
    of the video, `language` is the label's, `preview` is the training's last preview with the label in it.
    """

    job: Path
    name: str
    video: Path
    video_name: str
    source: Path
    label: str
    language: str
    frames: int
    first: int
    of: int
    percent: int
    size: tuple[int, int]
    rate: Fraction
    constant_rate: bool
    seconds: float
    sound: Sequence[str]
    started: float
    pairs: Sequence[Pair]
    preview: Image.Image | None

    @property
    def span(self) -> str:
        """Which frames of the source these are, as HTML; empty: all."""
        return f"Frames {self.first}&ndash;{self.first + self.frames - 1} of {self.of}" if self.of else ""


def joined_logs(job: Path) -> str:
    """All stages' logs, each under a heading."""
    parts = []
    for stage, title in STAGES.items():
        path = job / "stages" / stage / "log.txt"
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "(no log)"
        parts.append(f"===== {title} =====\n{text.rstrip()}\n")
    return "\n".join(parts)


def render(result: Result) -> str:
    """The page as HTML."""
    states = {stage: read_object(result.job / "stages" / stage / "state.json") for stage in STAGES}
    losses = read_losses(result.job / "stages" / "train" / "losses.csv")
    policy = (
        f"default-src 'none'; img-src data:; media-src 'self' file:; style-src 'sha256-{digest64(STYLE)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    rate = f"{float(result.rate):g} frames/s" + ("" if result.constant_rate else " on average (variable)")
    size = f"{result.size[0]} &times; {result.size[1]} px"
    size += f", {result.percent} % of the source" if result.percent != 100 else ""
    whose = (
        f"those of {result.span[0].lower() + result.span[1:]} of the source" if result.span else "the source&rsquo;s"
    )
    part = f"<div><dt>Part</dt><dd>{result.span}</dd></div>\n" if result.span else ""
    sound = "; ".join(result.sound) or "none in the source"
    title = text(result.name)
    link = text(quote(result.video_name))
    poster = result.pairs[len(result.pairs) // 2][2]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{text(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title} · AI-manipulated video</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="kicker">Face swap report</p>
<h1>{title}</h1>
<p class="verdict"><strong>Released.</strong> The encoded file was read back: all {result.frames} frames carry
the label, and frame count, time stamps{", size" if result.percent == 100 else ""} and sound tracks are {whose}.</p>
<dl class="key">
<div><dt>Length</dt><dd>{result.seconds:.2f} s</dd></div>
<div><dt>Frames</dt><dd>{result.frames}</dd></div>
{part}<div><dt>Rate</dt><dd>{text(rate)}</dd></div>
<div><dt>Size</dt><dd>{size}</dd></div>
<div><dt>Sound</dt><dd>{text(sound)}</dd></div>
</dl>
</header>
<main>
<p class="notice"><strong lang="{result.language}">{text(SENTENCES[result.language])}</strong>
The label <q lang="{result.language}">{text(result.label)}</q> is burnt into every frame.
When the video comes home, a signed C2PA manifest in it says so to programs; who signed it stands in
{link}.provenance.json beside it, and <code>faceswap-oci verify {link}</code> tells it to people.</p>
<section aria-labelledby="video"><h2 id="video">The video</h2>
<video controls preload="metadata" src="{link}" poster="{inline(poster, 960)}">
This browser does not play it: open <a href="{link}">{text(result.video_name)}</a>.
</video>
<p class="small">It lies beside this page:
<a href="{link}">{text(result.video_name)}</a></p></section>
<section aria-labelledby="strip"><h2 id="strip">Before and after</h2>
{strip(result.pairs)}</section>
<section aria-labelledby="faces"><h2 id="faces">Faces</h2>
{faces(result.job)}</section>
<section aria-labelledby="loss"><h2 id="loss">Training</h2>
{curve(losses)}
{training_preview(result.preview)}</section>
<section aria-labelledby="stages"><h2 id="stages">Stages</h2>
{stages_table(states, result.started)}</section>
<section aria-labelledby="settings"><h2 id="settings">Settings</h2>
{table(("Setting", "Value"), settings(result, states))}</section>
<section aria-labelledby="versions"><h2 id="versions">Versions</h2>
{table(("Part", "Version"), versions(states))}</section>
<section aria-labelledby="files"><h2 id="files">Files</h2>
{table(("File", "SHA-256"), files(result))}</section>
</main>
<footer><p>Made {time.strftime("%Y-%m-%d %H:%M %Z")} by the release step of faceswap-oci. This page asks no
other machine for anything.</p></footer>
</body>
</html>
"""


def text(value: object) -> str:
    """Anything as HTML text or attribute value."""
    return html.escape(str(value), quote=True)


def digest64(content: str) -> str:
    """The digest by which a content security policy allows an inline style."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or {} where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_losses(path: Path) -> list[Row]:
    """Rows of iteration, loss A, loss B; a row that a kill cut short is left out."""
    rows: list[Row] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for cells in csv.reader(file):
                try:
                    row = (int(cells[0]), float(cells[1]), float(cells[2]))
                except (ValueError, IndexError):
                    continue
                if all(map(math.isfinite, row)):
                    rows.append(row)
    except OSError:
        return []
    return rows


def table(head: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, the first one heading its row."""
    cells = "".join(f'<th scope="col">{text(h)}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="value">{text(value)}</td></tr>' for name, value in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


FOUND = {
    "looked_at": "Frames looked at",
    "with_face": "with a face",
    "with_several": "with several faces",
    "faces": "Faces",
    "likeness": "Likeness to the reference picture, median (0 to 1)",
    "strangers": "Faces of others, left out",
    "size_median": "Their size in the frame, median (px)",
    "size_least": "smallest (px)",
    "size_most": "largest (px)",
    "small": "too small",
    "blurred": "blurred",
    "persons": "Persons told apart",
}


def faces(job: Path) -> str:
    """What the extract stages found: numbers and warnings of both sides, and their contact sheets."""
    sides = {side: read_object(job / "faces" / side / "report.json") for side in ("a", "b")}
    if not any(sides.values()):
        return '<p class="small">There is no record of the faces.</p>'
    rows = []
    for key, name in FOUND.items():
        values = [found.get(key) for found in sides.values()]
        if any(value is not None for value in values):
            cells = "".join(f'<td class="number">{"&ndash;" if v is None else text(v)}</td>' for v in values)
            rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    parts = [
        '<table class="faces"><thead><tr><th scope="col">Found</th><th scope="col" class="number">A</th>'
        f'<th scope="col" class="number">B</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    ]
    for side, found in sides.items():
        said = found.get("warnings")
        parts += [f'<p class="small">{side.upper()}: {text(w)}</p>' for w in (said if isinstance(said, list) else [])]
        sheet = read_picture(job / "faces" / side / "sheet.jpg")
        if sheet:
            parts.append(
                f'<figure class="sheet"><img src="{inline(sheet, 1280)}" alt="Some of the faces of {side.upper()}">'
                f"<figcaption>Some of the faces of {side.upper()}, as extracted from the source</figcaption></figure>"
            )
    return "\n".join(parts)


def read_picture(path: Path) -> Image.Image | None:
    """A picture as RGB, or None where there is none that can be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None


def training_preview(preview: Image.Image | None) -> str:
    """The training's last preview, or nothing."""
    if preview is None:
        return ""
    return (
        f'<figure class="sheet"><img src="{inline(preview, 1280)}" alt="Preview of the training">'
        "<figcaption>The training&rsquo;s last preview, which carries the label</figcaption></figure>"
    )


def duration(seconds: float) -> str:
    """Seconds as `8.4 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def stages_table(states: dict[str, dict[str, Any]], release_started: float) -> str:
    """How long each stage took; the release's own time runs until this page."""
    body = []
    total = 0.0
    for stage, title in STAGES.items():
        state = states[stage]
        seconds = time.time() - release_started if stage == "release" else state.get("seconds")
        spent = "&ndash;"
        if isinstance(seconds, int | float):
            total += seconds
            spent = duration(seconds)
        note = ""
        if isinstance(state.get("iterations"), int):
            note = f"{state['iterations']:,} iterations"
        if stage == "release":
            note = "until this page was written"
        elif not state:
            note = "no record"
        elif state.get("exit_code") not in (0, None):
            note = f"exit code {state['exit_code']}"
        body.append(f'<tr><th scope="row">{title}</th><td class="number">{spent}</td><td>{text(note)}</td></tr>')
    return (
        '<table class="stages"><thead><tr><th scope="col">Stage</th><th scope="col" class="number">Time</th>'
        f'<th scope="col">Remark</th></tr></thead><tbody>{"".join(body)}</tbody>'
        f'<tfoot><tr><th scope="row">Together</th><td class="number">{duration(total)}</td>'
        "<td></td></tr></tfoot></table>"
    )


def settings(result: Result, states: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """The label, the encoding and the command of each stage, without this machine's folders."""
    rows = [("Label", result.label), ("Encoding", "H.264 (libx264, CRF 18), one encode from the frames")]
    for stage, title in STAGES.items():
        command = states[stage].get("command")
        if isinstance(command, list) and command:
            line = shlex.join(map(str, command)).replace(str(result.job), "JOB").replace(str(Path.home()), "~")
            rows.append((f"{title}: command", line))
    return rows


def versions(states: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """The engine as the stages recorded it, and the libraries at hand."""
    rows = []
    engines = [s["engine"] for s in states.values() if isinstance(s.get("engine"), dict)]
    for engine in {json.dumps(e, sort_keys=True): e for e in engines}.values():
        rows += [(f"Engine {key}", str(value)) for key, value in engine.items() if value]
    rows.append(("Python", platform.python_version()))
    for package in ("jax", "optax", "torch", "numpy", "pillow", "av"):
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    rows += [(name, ".".join(map(str, numbers))) for name, numbers in av.library_versions.items()]
    return rows


def files(result: Result) -> list[tuple[str, str]]:
    """SHA-256 of the result and of both inputs."""
    rows = [
        (f"{result.video_name}, before it was signed", file_digest(result.video)),
        (f"input A: {result.source.name}", file_digest(result.source)),
    ]
    folder = result.job / "input"
    others = sorted(p for p in folder.glob("b*") if p.stem == "b") if folder.is_dir() else []
    rows += [(f"input B: {p.name}", file_digest(p)) for p in others] or [("input B", "not in the job folder")]
    return rows


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of the list `digest  name` of a folder's files."""
    if path.is_dir():
        lines = [f"{file_digest(p)}  {p.name}\n" for p in sorted(path.iterdir()) if p.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest() + f" (of the list of {len(lines)} files)"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def strip(pairs: Sequence[Pair]) -> str:
    """Frames of the source above the same frames of the released video."""
    items = []
    for number, before, after in pairs:
        kinds = ((before, "source"), (after, "released video, which carries the label"))
        cells = "".join(f'<img src="{inline(p)}" alt="Frame {number} of the {kind}">' for p, kind in kinds)
        items.append(f"<li><figure>{cells}<figcaption>Frame {number}</figcaption></figure></li>")
    return f'<p class="small">Above the source, below the released video.</p><ol class="strip">{"".join(items)}</ol>'


def inline(picture: Image.Image, side: int = 360) -> str:
    """A picture as a data URI, its longer side at most `side` px."""
    small = picture.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thinned(rows: Sequence[Row]) -> list[Row]:
    """At most `POINTS` rows, each the mean of those it stands for."""
    if len(rows) <= POINTS:
        return list(rows)
    groups = [rows[len(rows) * n // POINTS : len(rows) * (n + 1) // POINTS] for n in range(POINTS)]
    return [(g[-1][0], math.fsum(r[1] for r in g) / len(g), math.fsum(r[2] for r in g) / len(g)) for g in groups]


def steps(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high, about `wanted` of them."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def curve(rows: Sequence[Row]) -> str:
    """Both losses over the iterations as inline SVG."""
    if len(rows) < 2:
        return '<p class="small">There is no record of the losses.</p>'
    points = thinned(rows)
    values = [v for row in points for v in row[1:]]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low >= 8
    if logarithmic:
        ticks = [
            m * 10.0**e
            for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for m in (1, 2, 5)
        ]
        low = max((t for t in ticks if t <= low), default=low)
        high = min((t for t in ticks if t >= high), default=high)
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) > 8:
            ticks = [t for t in ticks if f"{t:e}".startswith("1.")]
    else:
        low, high = min(low, 0.0) if low < high / 3 else low, high
        span = (high - low) or abs(high) or 1.0
        low, high = (low, high + 0.05 * span) if low == 0 else (low - 0.05 * span, high + 0.05 * span)
        ticks = steps(low, high, 5)
    begin, end = points[0][0], points[-1][0]
    end = max(end, begin + 1)
    left, right, top, bottom = 62, 512, 12, 240

    def across(iteration: float) -> float:
        return left + (right - left) * (iteration - begin) / (end - begin)

    def down(value: float) -> float:
        share = math.log(value / low) / math.log(high / low) if logarithmic else (value - low) / (high - low)
        return bottom - (bottom - top) * share

    parts = []
    for tick in ticks:
        y = f"{down(tick):.1f}"
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y}" dy="0.35em" text-anchor="end">{tick:g}</text>')
    for tick in steps(begin, end, 6):
        if tick == int(tick):
            x = f"{across(tick):.1f}"
            parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 20}" text-anchor="middle">{int(tick):,}</text>')
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>')
    for side, kind in ((1, "a"), (2, "b")):
        path = "L".join(f"{across(row[0]):.1f} {down(row[side]):.1f}" for row in points)
        parts.append(f'<path class="line {kind}" d="M{path}"/>')
    middle = (top + bottom) / 2
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 42}" text-anchor="middle">Iteration</text>')
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"Loss{' (logarithmic)' if logarithmic else ''}</text>"
    )
    first, last = rows[0], rows[-1]
    summary = (
        f"Loss A went from {first[1]:.4f} to {last[1]:.4f} and loss B from {first[2]:.4f} to {last[2]:.4f} "
        f"between iterations {first[0]:,} and {last[0]:,}."
    )
    return (
        '<ul class="legend"><li class="a">Loss A (whose head stays)</li>'
        '<li class="b">Loss B (whose face comes)</li></ul>'
        f'<svg viewBox="0 0 520 290" role="img" aria-label="{text(summary)}">{"".join(parts)}</svg>'
        f'<p class="small">{text(summary)}</p>'
    )


STYLE = """
:root { --paper: #fcfcfa; --ink: #1d2126; --soft: #575e67; --rule: #d9dbd7; --panel: #f1f2ee;
  --link: #0b57a4; --a: #0b62b0; --b: #b3480a; --mark: #8a5a00; --markpaper: #fdf3da; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #a4acb5;
  --rule: #353b42; --panel: #1e2328; --link: #82b7f2; --a: #6cb0f5; --b: #f5a066; --mark: #e4b659;
  --markpaper: #2b2415; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
a { color: var(--link); overflow-wrap: anywhere; }
.kicker { margin: 0; color: var(--soft); }
.small, footer { color: var(--soft); font-size: .9rem; }
.verdict { max-width: 44rem; margin: 0 0 1rem; }
.key { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 0; padding: 1rem 0;
  border-block: 1px solid var(--rule); }
.key dt { color: var(--soft); font-size: .85rem; }
.key dd { margin: 0; font-variant-numeric: tabular-nums; }
.notice { margin: 1.5rem 0 0; padding: .9rem 1.1rem; border-left: .25rem solid var(--mark);
  background: var(--markpaper); }
video { display: block; width: auto; max-width: 100%; height: auto; max-height: 70vh; background: #000; }
.strip { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem .75rem;
  grid-template-columns: repeat(4, 1fr); }
figure { margin: 0; }
.strip img { display: block; width: 100%; height: auto; }
.strip img + img { margin-top: 2px; }
.sheet { margin: 1rem 0; }
.sheet img { display: block; width: auto; max-width: 100%; height: auto; }
.faces { width: auto; min-width: 28rem; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; font-variant-numeric: tabular-nums; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0 0 .5rem; padding: 0;
  font-size: .9rem; }
.legend li::before { content: ""; display: inline-block; width: 1.5rem; vertical-align: .25em;
  margin-right: .5rem; border-top: 3px solid var(--a); }
.legend .b::before { border-top: 3px dashed var(--b); }
svg { display: block; width: 100%; max-width: 40rem; height: auto; }
svg text { fill: var(--soft); font-size: 13px; }
.grid { stroke: var(--rule); }
.axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
.line.a { stroke: var(--a); }
.line.b { stroke: var(--b); stroke-dasharray: 6 3; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1rem .4rem 0;
  border-bottom: 1px solid var(--rule); }
.stages { width: auto; min-width: 28rem; }
.stages th { white-space: nowrap; }
table:not(.stages, .faces) th:first-child { width: 12rem; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 400; }
tbody th, tfoot th { font-weight: 600; }
tfoot td, tfoot th { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.value { font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
footer { margin-top: 3rem; }
@media (max-width: 36rem) {
  h1 { font-size: 1.6rem; }
  .strip { grid-template-columns: repeat(2, 1fr); }
  .stages, .faces { min-width: 100%; }
  table:not(.stages, .faces) :is(tr, th:first-child, td) { display: block; width: auto; padding-right: 0; }
  table:not(.stages, .faces) thead { display: none; }
  table:not(.stages, .faces) tbody th { border-bottom: 0; padding-bottom: 0; }
}
@media print { video { display: none; } figure { break-inside: avoid; } }
"""
