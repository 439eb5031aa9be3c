"""The label that every released frame carries: what it may say, how it is drawn, and whether a picture has it.

Needs Pillow and NumPy only, so that who checks a video elsewhere draws and finds the same label. White text, always
opaque, on a dark box: through the box alone the picture shines. Pillow's built-in font has no letter with an accent:
those are drawn from the plain letter and a mark.
"""

import functools
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Short enough for small frames, and the AI Act's own word for it: manipulated, manipulé, manipuliert.
DEFAULT_TEXTS = {"en": "AI-manipulated", "fr": "Manipulé par IA", "de": "KI-manipuliert"}
SENTENCES = {
    "en": "The pictures in this video were manipulated by AI: a face was swapped.",
    "fr": "Les images de cette vidéo ont été manipulées par IA : un visage a été remplacé.",
    "de": "Die Bilder in diesem Video wurden mit KI manipuliert: Ein Gesicht wurde ersetzt.",
}
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
# Measured at the least of both, on checks, stripes, flashes and noise, in frames from 96x64 to 1280x720: encoded as
# released (crf 18), match is 0.74 and contrast 0.97 at the worst; encoded again poorly (crf 32), 0.52 and 0.57. An
# opacity of 55 would leave a match of 0.67; pictures without the label, or with another text, have 0.18 at most.
SIZES = (4, 15)  # % of the frame's shorter side
OPACITIES = (60, 100)  # % of the box; white on a white picture's box then still has a contrast of 5.7:1 (WCAG: 4.5)
DEFAULT_SIZE, DEFAULT_OPACITY = 5, 66

LIMIT = 100  # characters; what is longer is no label any more
PIXEL_ASPECTS = (0.5, 2)  # width by height of a pixel as shown; beyond them the label would be squeezed past reading
PREFERRED = 14  # px; the text size that small frames start from
LEAST = 11  # px; below this the built-in font stops being legible after encoding
ROOM = 1 / 2  # the share of the frame's height that a label of several lines may cover

LUMA = (0.299, 0.587, 0.114)
COMMON = (240, 360, 480, 540, 720, 1080, 1440, 2160)  # px; the shorter side of videos
SHIFTS = [(0, 0)] + [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]  # px; what scaling may round

# An own text follows the language's, so that nobody has to judge what it says. It may not deny it, as far as words
# can tell. The role's variables hold the same, and a test that they are the same. \u0301 and \u0308 are the accents
# of letters in two pieces.
BETWEEN = ": "  # with a lone dash or dot between spaces the text is found less well
BEGINNING = "({})\\b".format("|".join(DEFAULT_TEXTS.values()))
DENIED = (
    r"\b(not?|never|without|none?|free|real|really|genuine|authentic"
    r"|un(touched|altered|edited|manipulated|modified)"
    r"|pas|sans|jamais|aucune?|r(é|e\u0301)el(le)?s?|vraie?s?|authentiques?"
    r"|nicht|nie|niemals|ohne|kein\w*|echt\w*|unver(ä|a\u0308)ndert\w*)\b|n['\u2019]t\b"
)

# Beside printable ASCII: what the built-in font has, and what is drawn here with it.
MARKS = {
    # Lines from the middle of the letter, upwards from its top (cedilla: from the baseline), in shares of the size.
    "\u0300": [[(-0.13, 0.20), (0.05, 0.06)]],
    "\u0301": [[(-0.05, 0.06), (0.13, 0.20)]],
    "\u0302": [[(-0.15, 0.07), (0.0, 0.20), (0.15, 0.07)]],
    "\u0308": [[(-0.13, 0.12), (-0.13, 0.13)], [(0.13, 0.12), (0.13, 0.13)]],
    "\u0327": [[(0.0, 0.0), (0.0, -0.06), (0.07, -0.10), (0.04, -0.18), (-0.08, -0.19)]],
}
CEDILLA = "\u0327"
LETTERS = "ÀÂÄÇÈÉÊËÎÏÔÖÙÛÜŸàâäçèéêëîïôöùûüÿ"
SIGNS = "«»°·“”…\u2018\u2019"  # the font has them, and typographic apostrophes
SPELLED = {"ß": "ss", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "„": "“", "\u2013": "-", "\u2014": "-"}
ALLOWED = {chr(n) for n in range(32, 127)} | set(LETTERS) | set(SIGNS) | set(SPELLED)


class LabelError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Style:
    """What the label says, and how it looks; `checked` makes one that keeps the limits."""

    text: str
    corner: str = CORNERS[0]
    size_percent: int = DEFAULT_SIZE
    opacity_percent: int = DEFAULT_OPACITY


class Score(NamedTuple):
    """How well a picture shows a label, by its worst piece of about two letters.

    `match` is the correlation of the picture with the drawn text, `contrast` how much brighter text is than box, as a
    share of what it is on a white picture, and `light` how bright the text is, as a share of white. `whole` is the
    correlation over all of the label.
    """

    match: float
    contrast: float
    light: float
    whole: float

    @property
    def legible(self) -> bool:
        """Whether each piece of the label is there and unfaded: what a released frame must be."""
        return self.match >= 0.65 and self.contrast >= 0.9 and self.light >= 0.9

    @property
    def present(self) -> bool:
        """Whether the label is there, perhaps in a copy that was encoded anew or scaled.

        Of poor copies (crf 32) at 50 to 150 %, the worst had a whole of 0.59, and pictures without a label 0.21 at
        most; 0.40 where they are full of text, with a match of 0.33.
        """
        return self.whole >= 0.45 and self.match >= 0.3 and self.contrast >= 0.12


def checked(own: str, language: str, corner: str, size: int, opacity: int) -> Style:
    """A label within its limits: the language's own text, and an own one after it, which may begin with one itself.

    Raises:
        LabelError: says which limit is not kept.
    """
    if language not in DEFAULT_TEXTS:
        raise LabelError(f"The label's language is {language!r}: choose one of {', '.join(DEFAULT_TEXTS)}.")
    own = tidy(own)
    text = own if discloses(own) else BETWEEN.join(filter(None, (DEFAULT_TEXTS[language], own)))
    return within_limits(Style(text, corner, size, opacity))


def from_record(record: Mapping[str, Any]) -> Style:
    """The label that a released video's record tells of, held to the limits as a stranger may have written it.

    Raises:
        LabelError: it tells of none.
    """
    try:
        size, opacity = int(record["size"]), int(record["opacity"])
        style = within_limits(Style(tidy(str(record["text"])), str(record["corner"]), size, opacity))
    except (KeyError, TypeError, ValueError, OverflowError):
        style = None
    if style is None or not discloses(style.text):
        raise LabelError("The record tells of no label: look for the usual ones.")
    return style


def tidy(text: str) -> str:
    """A text in one line, each letter in one piece."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def discloses(text: str) -> bool:
    """Whether a text begins with what a language says by itself, in capitals or not."""
    return re.match(BEGINNING, text, re.IGNORECASE) is not None


def within_limits(style: Style) -> Style:
    """The label, where it keeps the limits; LabelError says which one it does not."""
    if style.corner not in CORNERS:
        raise LabelError(f"The label's corner is {style.corner!r}: choose one of {', '.join(CORNERS)}.")
    sizes = (("size", style.size_percent, SIZES), ("opacity", style.opacity_percent, OPACITIES))
    for what, value, (least, most) in sizes:
        if not least <= value <= most:
            raise LabelError(f"The label's {what} is {value} %, and it is legible from {least} to {most}: change it.")
    if len(style.text) > LIMIT:
        raise LabelError(
            f"The label has {len(style.text)} characters: shorten your own text, so that {LIMIT} are left."
        )
    lacking = sorted(set(style.text) - ALLOWED)
    if lacking:
        raise LabelError(
            f"The label has characters that cannot be drawn ({' '.join(map(ascii, lacking))}): "
            "write it in letters of English, French or German."
        )
    denied = re.search(DENIED, style.text, re.IGNORECASE)
    if denied:
        raise LabelError(
            f"The label {style.text!r} may be read to deny that AI made the pictures ({denied[0]}): "
            "leave that word out, or the own text empty."
        )
    return style


def label_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font at a size in px, which sets a text alike on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # PyPI's Pillow is always built with FreeType
    # Left to itself Pillow sets text otherwise where a library for complex scripts is there.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def plain(text: str) -> tuple[str, dict[int, str]]:
    """A text in letters that the font has, and the marks on them by their place."""
    letters, marks = "", {}
    for letter in unicodedata.normalize("NFD", "".join(SPELLED.get(c, c) for c in text)):
        if letter in MARKS:
            marks[len(letters) - 1] = letter
        else:
            letters += letter
    return letters, marks


def length(text: str, font: ImageFont.FreeTypeFont) -> float:
    """How wide a text is in px."""
    return font.getlength(plain(text)[0])


def wrap(text: str, font: ImageFont.FreeTypeFont, room: float, pieces: str) -> list[str] | None:
    """Lines no wider than `room` px, broken after the pieces that the pattern finds; None: does not fit."""
    lines = [""]
    for piece in re.findall(pieces, text):
        if length((lines[-1] + piece).rstrip(), font) > room and lines[-1]:
            lines.append("")
        lines[-1] += piece
    lines = [line.strip() for line in lines]
    return lines if all(length(line, font) <= room for line in lines) else None


class Layout(NamedTuple):
    """Where the label lies in a picture (px), and its text: 0 where the box shows, 1 where the text covers it."""

    left: int
    top: int
    ink: Floats
    size: int
    baselines: tuple[int, ...]


def lay_out(style: Style, width: int, height: int) -> Layout:
    """The label's box for a picture of `width` x `height` px.

    Text that does not fit is first wrapped, then made smaller down to 11 px, and only then broken inside a word.

    Raises:
        LabelError: it does not fit.
    """
    short = min(width, height)
    preferred = max(PREFERRED, round(style.size_percent / 100 * short))
    for pieces in (r"[^\s-]*(?:-+|\s+|$)", r"."):
        for size in range(preferred, LEAST - 1, -1):
            font = label_font(size)
            margin = min(size // 2, round(0.03 * short))
            padding = round(0.35 * size)
            lines = wrap(style.text, font, width - 2 * (margin + padding), pieces)
            if lines is None:
                continue
            ascent, descent = font.getmetrics()
            box_width = math.ceil(max(length(line, font) for line in lines)) + 2 * padding
            box_height = len(lines) * (ascent + descent) + 2 * padding
            if box_height + 2 * margin > height or (len(lines) > 1 and box_height > ROOM * height):
                continue
            baselines = tuple(padding + ascent + n * (ascent + descent) for n in range(len(lines)))
            ink = np.zeros((box_height, box_width), np.float32)
            for line, baseline in zip(lines, baselines, strict=True):
                np.maximum(ink, write(line, font, padding, baseline, ink.shape), out=ink)
            return Layout(
                left=margin if style.corner.endswith("left") else width - margin - box_width,
                top=margin if style.corner.startswith("top") else height - margin - box_height,
                ink=ink,
                size=size,
                baselines=baselines,
            )
    raise LabelError(f"The label does not fit legibly into frames of {width}x{height} px: shorten it.")


def write(text: str, font: ImageFont.FreeTypeFont, left: int, baseline: int, shape: Sequence[int]) -> Floats:
    """A line of text from 0 to 1 on a surface of `shape` (height, width), accents and umlauts included."""
    letters, marks = plain(text)
    surface = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(surface)
    draw.text((left, baseline), letters, font=font, fill=255, anchor="ls")
    fine = 4  # marks are drawn so many times larger, which gives them soft edges
    over = Image.new("L", (shape[1] * fine, shape[0] * fine))
    pen = ImageDraw.Draw(over)
    for place, mark in marks.items():
        letter = letters[place]
        x = left + font.getlength(letters[:place])
        middle = x + font.getlength(letter) / 2
        top = baseline + font.getbbox("x" if letter in "ij" else letter, anchor="ls")[1]
        if letter in "ij":  # the mark takes the place of the dot
            draw.rectangle((round(x), 0, round(x + font.getlength(letter)) - 1, top - 1), fill=0)
        foot = baseline if mark == CEDILLA else top
        thick = max(1.1, 0.085 * font.size) * fine
        for line in MARKS[mark]:
            points = [((middle + dx * font.size) * fine, (foot - dy * font.size) * fine) for dx, dy in line]
            pen.line(points, fill=255, width=round(thick), joint="curve")
            for px, py in points:
                pen.ellipse((px - thick / 2, py - thick / 2, px + thick / 2, py + thick / 2), fill=255)
    ink: Bytes = np.maximum(np.asarray(surface), np.asarray(over.reduce(fine)))
    return ink.astype(np.float32) / np.float32(255)


def draw(style: Style, width: int, height: int) -> Bytes:
    """The label for a picture of `width` x `height` px as displayed: RGBA of that size, clear outside its box."""
    found = lay_out(style, width, height)
    alpha = 1 - (1 - style.opacity_percent / 100) * (1 - found.ink)
    picture = np.zeros((height, width, 4), np.uint8)
    rows, columns = found.ink.shape
    box = picture[found.top : found.top + rows, found.left : found.left + columns]
    box[..., :3] = np.round(255 * found.ink / alpha)[..., None]
    box[..., 3] = np.round(255 * alpha)
    return picture


class Template:
    """The drawn text to hold the label's region of a picture against, in pieces of about two letters."""

    def __init__(self, layout: Layout, opacity_percent: float) -> None:
        ink, size = layout.ink, layout.size
        pieces = np.full(ink.shape, -1)
        count = 0
        for baseline in layout.baselines:
            rows = slice(max(0, round(baseline - 0.95 * size)), round(baseline + 0.25 * size))
            inked = np.flatnonzero((ink[rows] > 0.5).any(axis=0))
            begin, end = max(0, int(inked[0]) - 2), int(inked[-1]) + 3
            here = max(1, round((end - begin) / (1.4 * size)))
            for n in range(here):
                pieces[rows, begin + (end - begin) * n // here : begin + (end - begin) * (n + 1) // here] = count
                count += 1
        self._where = np.flatnonzero(pieces >= 0)
        self._piece = pieces.ravel()[self._where]
        self._count = count
        self._area = self._sums(np.ones(len(self._where), np.float32))
        text = ink.ravel()[self._where]
        self._mean = self._sums(text) / self._area
        self._text = text - self._mean[self._piece]
        self._spread = self._sums(self._text**2)
        self._promised = 2.55 * opacity_percent

    def _sums(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.bincount(self._piece, values, self._count)

    def score(self, grey: NDArray[Any]) -> Score:
        """How well a picture of the label's region (black is 0, white 255) shows the text."""
        values = grey.ravel()[self._where].astype(np.float32)
        mean = self._sums(values) / self._area
        values -= mean[self._piece]
        common = self._sums(self._text * values)
        spread = self._sums(values**2)
        match = common / np.sqrt(np.maximum(self._spread * spread, 1e-6))
        contrast = common / self._spread  # the slope of grey over text, and so the step from box to text
        light = mean + contrast * (1 - self._mean)
        whole = common.sum() / math.sqrt(max(self._spread.sum() * spread.sum(), 1e-6))
        return Score(
            match=float(match.min()),
            contrast=float(contrast.min() / self._promised),
            light=float(light.min() / 255),
            whole=float(whole),
        )


@functools.lru_cache(maxsize=64)
def template_of(style: Style, width: int, height: int) -> tuple[Layout, Template]:
    """Where a label lies in a picture of `width` x `height` px as displayed, and what is to be seen there."""
    layout = lay_out(style, width, height)
    return layout, Template(layout, style.opacity_percent)


def presence(picture: NDArray[Any], style: Style, drawn_for: tuple[int, int] | None = None) -> Score:
    """How well a picture (height, width, 3; RGB as displayed) shows a label, wherever it was copied from.

    `drawn_for` is the width and height in px for which the label was drawn. If that is not known, the common ones are
    tried: above 280 px, where text is not made larger than its share, the label looks alike in all sizes.
    """
    height, width = picture.shape[:2]
    grey = Image.fromarray((picture @ np.array(LUMA, np.float32)).astype(np.float32))
    sizes = [drawn_for or (width, height)]
    if drawn_for is None:
        sizes += [(round(width * s / min(width, height)), round(height * s / min(width, height))) for s in COMMON]
    best = Score(0, 0, 0, 0)
    for size in sizes:
        try:
            layout, template = template_of(style, *size)
        except LabelError:  # so small a picture cannot carry it
            continue
        across, down = width / size[0], height / size[1]
        rows, columns = layout.ink.shape
        left, top, right, bottom = layout.left, layout.top, layout.left + columns, layout.top + rows
        for dy, dx in SHIFTS:
            box = (left * across + dx, top * down + dy, right * across + dx, bottom * down + dy)
            if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
                continue
            region = grey.resize((columns, rows), Image.Resampling.BICUBIC, box)
            best = max(best, template.score(np.asarray(region)), key=lambda score: score.whole)
            if best.legible:
                return best
    return best


def swaps_axes(matrix: Sequence[int]) -> bool:
    """Whether a display matrix turns by a quarter."""
    return abs(matrix[1]) > abs(matrix[0])


def rotation(matrix: Sequence[int] | None) -> int:
    """By how many degrees, clockwise, a player turns what is stored."""
    if matrix is None:
        return 0
    turned = math.degrees(math.atan2(matrix[1], matrix[0]))
    return round(turned / 90) % 4 * 90


def to_display(picture: Bytes, matrix: Sequence[int] | None) -> Bytes:
    """Turn a stored picture (rows, columns, ...) as the display matrix has a player turn it.

    With FFmpeg's matrix (a b u, c d v, x y w) a stored point goes to x' = ax + cy, y' = bx + dy. Only the
    eight ways that map the pixel grid onto itself are done; any other angle counts as the nearest.
    """
    if matrix is None:
        return picture
    quarter = swaps_axes(matrix)
    a, d = (matrix[3], matrix[1]) if quarter else (matrix[0], matrix[4])
    if quarter:
        picture = picture.swapaxes(0, 1)
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
