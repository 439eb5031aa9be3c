"""The label: what it may say, how it is drawn, and that it is found where it is and nowhere else."""

import io
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ROLE = Path(__file__).resolve().parents[1] / "roles" / "faceswap_run"
sys.path.insert(0, str(ROLE / "files" / "release"))

import label as labels  # noqa: E402

Array = NDArray[Any]
DEFAULT = labels.Style("AI-manipulated")
FRENCH = labels.Style("Manipulé par IA")
LONG = "Künstlich verändert: Gesichter wurden getauscht"
SIZES = [(96, 64), (160, 90), (160, 640), (320, 320), (1920, 1080), (1080, 1920)]


def grey(values: Array, width: int, height: int) -> Array:
    return np.repeat(np.broadcast_to(values, (height, width))[..., None], 3, axis=2).astype(np.uint8)


def scene(kind: str, number: int, width: int, height: int) -> Array:
    """A picture (height, width, 3) of a kind that is hard for a label."""
    y, x = np.mgrid[0:height, 0:width]
    if kind == "text":  # in the label's own font, and it scrolls
        lines = Image.new("L", (width, height), 255)
        for top in range(0, height, 16):
            ImageDraw.Draw(lines).text((-number, top), "KI-manipuliert AI-manipulated " * 9, fill=0, font_size=14)
        return grey(np.asarray(lines), width, height)
    if kind == "noise":
        return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "moving":
        return np.stack([(x * 2 + number * 9) % 256, y * 255 // height, x * 0 + 128], axis=2).astype(np.uint8)
    values = {
        "white": x * 0 + 255,
        "black": x * 0,
        "checks": ((x + 3 * number) // 5 + y // 5) % 2 * 255,
        "flashes": x * 0 + number % 2 * 255,
    }
    return grey(values[kind], width, height)


KINDS = ("white", "black", "text", "noise", "moving", "checks", "flashes")


def burnt(picture: Array, style: labels.Style) -> Array:
    overlay = labels.draw(style, picture.shape[1], picture.shape[0]).astype(float)
    opacity = overlay[..., 3:] / 255
    return np.round(picture * (1 - opacity) + overlay[..., :3] * opacity).astype(np.uint8)


def encoded(pictures: list[Array], crf: int = 32, scale: float = 1) -> list[Array]:
    """As somebody else's copy: in another size, poorly encoded, and decoded again."""
    height, width = (round(side * scale / 2) * 2 for side in pictures[0].shape[:2])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            small = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(small), "rgb24")))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# -- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", labels.DEFAULT_TEXTS)
def test_an_empty_text_is_the_language_s_own(language: str) -> None:
    style = labels.checked(" \n", language, "top-left", 5, 66)
    assert style.text == labels.DEFAULT_TEXTS[language]
    assert labels.from_record({"text": style.text, "corner": "top-left", "size": 5, "opacity": 66}) == style


OWN = {  # what is in the picture, for an own text in English
    "The Rome project": "AI-manipulated: The Rome project",
    " J'ai  fait\nce film ": "AI-manipulated: J'ai fait ce film",
    "Ai Weiwei: made in Berlin": "AI-manipulated: Ai Weiwei: made in Berlin",
    "Deepfake": "AI-manipulated: Deepfake",
    "Hypertrucage": "AI-manipulated: Hypertrucage",
    "AI-manipulatedly": "AI-manipulated: AI-manipulatedly",
    # One that begins with a language's own text is taken as it is.
    "AI-manipulated": "AI-manipulated",
    "AI-MANIPULATED by Rome": "AI-MANIPULATED by Rome",
    "KI-manipuliert, Szene 4": "KI-manipuliert, Szene 4",
    "  manipulé \u00a0par ia  ": "manipulé par ia",
    unicodedata.normalize("NFD", "Manipulé par IA"): "Manipulé par IA",
}


@pytest.mark.parametrize("own", OWN)
def test_an_own_text_follows_the_language_s(own: str) -> None:
    assert labels.checked(own, "en", "top-left", 5, 66).text == OWN[own]


def test_an_own_text_follows_its_own_language_s() -> None:
    assert labels.checked("Le film de Rome", "fr", "top-left", 5, 66).text == "Manipulé par IA: Le film de Rome"


DENIALS = [
    "Not AI-manipulated",
    "This isn't a deepfake",
    "100% real, deepfake-free",
    "Warning: deepfakes exist. This is real footage",
    "No: not",
    "AI-manipulated? Never",
    "Untouched by AI: man-made",
    "GENUINE",
    "Ce n'est pas un deepfake",
    "Images réelles",
    "La vraie Anna",
    "Kein Deepfake",
    "Nicht mit KI verändert",
    "KI-manipuliert? Echtes Bild",
    "Unverändert",
]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("own", DENIALS)
def test_an_own_text_must_not_deny(own: str, form: Any) -> None:
    own = unicodedata.normalize(form, own)
    with pytest.raises(labels.LabelError, match="may be read to deny"):
        labels.checked(own, "en", "top-left", 5, 66)
    denied = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__faceswap_run_label_denied"]
    assert re.search(denied, own, re.IGNORECASE)  # which sees the text as it was written


BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "long": (("deepfake " * 10, "en", "top-left", 5, 66), "105 characters: shorten your own text"),
    "letters": (("AI \u751f\u6210 made", "en", "top-left", 5, 66), r"cannot be drawn \('\\u6210' '\\u751f'\)"),
    "control": (("AI\x1b[2Jmade", "en", "top-left", 5, 66), r"cannot be drawn \('\\x1b'\)"),
    "hidden": (("AI-manipulated\u200b", "en", "top-left", 5, 66), "cannot be drawn"),
    "language": (("", "es", "top-left", 5, 66), "language is 'es': choose one of en, fr, de"),
    "corner": (("", "en", "middle", 5, 66), "corner is 'middle': choose one of top-left"),
    "small": (("", "en", "top-left", 3, 66), "size is 3 %, and it is legible from 4 to 15"),
    "large": (("", "en", "top-left", 16, 66), "size is 16 %"),
    "faint": (("", "en", "top-left", 5, 59), "opacity is 59 %, and it is legible from 60 to 100"),
    "thick": (("", "en", "top-left", 5, 101), "opacity is 101 %"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_beyond_a_limit_is_refused_in_one_sentence(fault: str) -> None:
    values, reason = BAD[fault]
    with pytest.raises(labels.LabelError, match=reason) as caught:
        labels.checked(*values)
    assert re.fullmatch(r"[^\n]+: [^\n]+\.", str(caught.value))


def test_the_role_holds_the_same_limits() -> None:
    """The role refuses before anything is made; release.py, because variables can be set past the role."""
    private = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    options = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["release"][
        "options"
    ]
    assert private["__faceswap_run_label_texts"] == labels.DEFAULT_TEXTS
    assert f"join('{labels.BETWEEN}')" in private["__faceswap_run_label_text"]
    assert private["__faceswap_run_label_denied"] == labels.DENIED
    letters = re.compile(private["__faceswap_run_label_letters"])
    taken = {chr(n) for n in range(0x3000) if letters.match("x" + chr(n)) and letters.fullmatch("x" + chr(n))}
    assert taken == labels.ALLOWED | set(labels.MARKS)
    assert letters.match("") and not letters.match("--help")
    assert options["faceswap_run_label_language"]["choices"] == list(labels.DEFAULT_TEXTS)
    assert options["faceswap_run_label_corner"]["choices"] == list(labels.CORNERS)
    assert options["faceswap_run_label_size"]["default"] == labels.DEFAULT_SIZE
    assert options["faceswap_run_label_opacity"]["default"] == labels.DEFAULT_OPACITY
    rows = str(private["__faceswap_run_objection_table"])
    assert f"__faceswap_run_label_text | length > {labels.LIMIT} " in rows
    for name, (least, most) in {"size": labels.SIZES, "opacity": labels.OPACITIES}.items():
        assert f"not {least} <= faceswap_run_label_{name} | int <= {most} " in rows


def test_a_record_gives_the_label_back_and_a_stranger_s_none() -> None:
    record = {"text": "KI-manipuliert: Rom", "corner": "top-right", "size": 9, "opacity": 80, "width": 640}
    assert labels.from_record(record) == labels.Style("KI-manipuliert: Rom", "top-right", 9, 80)
    for change in (
        {"size": 10**9},
        {"size": "9e9"},
        {"text": "Holiday"},
        {"text": "Deepfake"},
        {"text": "A film that is AI-manipulated"},
        {"text": "AI-manipulated: not"},
        {"opacity": float("inf")},
        {"corner": None},
    ):
        with pytest.raises(labels.LabelError):
            labels.from_record(record | change)
    with pytest.raises(labels.LabelError):
        labels.from_record({})


# -- how it is drawn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", [*labels.DEFAULT_TEXTS.values(), LONG])
def test_the_label_is_legible(size: tuple[int, int], text: str) -> None:
    style = labels.Style(text)
    if size[0] < 100 and text == LONG:
        with pytest.raises(labels.LabelError, match="does not fit legibly"):
            labels.draw(style, *size)
        return
    overlay = labels.draw(style, *size)
    assert overlay.shape == (size[1], size[0], 4)
    rows, columns = np.nonzero(overlay[..., 0] > 200)
    boxed = np.nonzero(overlay[..., 3])
    for ink, box in zip((rows, columns), boxed, strict=True):
        assert box.min() < ink.min() and ink.max() < box.max()  # nothing is cut off
    filled = np.unique(rows)
    lines = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    tall = max(len(line) for line in lines)
    assert tall >= max(7, 0.03 * min(size))


@pytest.mark.parametrize("corner", labels.CORNERS)
def test_it_is_in_its_corner(corner: str) -> None:
    rows, columns = np.nonzero(labels.draw(labels.Style("Deepfake", corner), 640, 360)[..., 3])
    near = 18 // 2  # half the text's size
    assert (rows.min() if corner.startswith("top") else 359 - rows.max()) == near
    assert (columns.min() if corner.endswith("left") else 639 - columns.max()) == near
    assert rows.max() - rows.min() < 60 and columns.max() - columns.min() < 200


def test_size_and_opacity_are_as_asked() -> None:
    small, large = (labels.lay_out(labels.Style("Deepfake", "top-left", size), 1280, 720).size for size in (4, 15))
    assert (small, large) == (29, 108)
    for opacity in (60, 100):
        overlay = labels.draw(labels.Style("Deepfake", "top-left", 5, opacity), 1280, 720)
        assert np.unique(overlay[..., 3]).tolist()[1] == round(2.55 * opacity)
        assert (overlay[overlay[..., 0] == 255][:, 3] == 255).all()  # the text is opaque


def drawn(text: str, size: int) -> Array:
    font = labels.label_font(size)
    return labels.write(text, font, size, 2 * size, (3 * size, 4 * size))


@pytest.mark.parametrize("size", [labels.LEAST, labels.PREFERRED, 36])
def test_every_letter_is_drawn_with_its_accent(size: int) -> None:
    missing = drawn("\uffff", size)  # the font's sign for a missing letter
    shapes = {}
    for letter in sorted(labels.ALLOWED - {" ", "-", "\u2013", "\u2014", "„", "“"}):
        shape = drawn(letter, size)
        assert shape.max() > 0.5, letter
        assert np.abs(shape - missing).max() > 0.5, letter
        shapes[letter] = shape
    for letter in labels.LETTERS:
        base, mark = list(unicodedata.normalize("NFD", letter))
        added = np.clip(shapes[letter] - shapes[base], 0, None)
        assert added.sum() > 0.02 * size**2 * 0.4, letter  # ink enough for an accent
        rows, columns = np.nonzero(added > 0.4)
        body, middle = np.nonzero(shapes[base] > 0.4)
        assert abs(columns.mean() - middle.mean()) < 0.2 * size, letter  # above its letter
        if mark == labels.CEDILLA:
            assert rows.mean() > body.max()
        elif base != "i":
            assert rows.max() <= body.min(), letter
    accents = "éèêë"
    for one in accents:
        for other in accents.replace(one, ""):
            assert np.abs(shapes[one] - shapes[other]).max() > 0.3, (one, other, size)


# -- whether it is there ---------------------------------------------------------------------------------------------


def seen(pictures: list[Array], style: labels.Style) -> list[labels.Score]:
    return [labels.presence(picture, style) for picture in pictures]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 64), (160, 120), (640, 360)])
def test_the_faintest_label_is_legible_on_every_ground_once_encoded(kind: str, size: tuple[int, int]) -> None:
    style = labels.Style("Manipulé par IA", "bottom-right", labels.SIZES[0], labels.OPACITIES[0])
    pictures = encoded([burnt(scene(kind, number, *size), style) for number in range(4)], crf=18)
    assert all(score.legible for score in seen(pictures, style)), seen(pictures, style)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 0.5, 0.667, 1.5])
def test_it_is_found_in_a_poor_copy_of_any_size_and_not_in_one_without(kind: str, scale: float) -> None:
    bare = [scene(kind, number, 640, 360) for number in range(3)]
    copy = encoded([burnt(picture, FRENCH) for picture in bare], scale=scale)
    assert all(score.present for score in seen(copy, FRENCH)), seen(copy, FRENCH)
    assert not any(score.present for score in seen(encoded(bare, scale=scale), FRENCH))
    other = encoded([burnt(picture, DEFAULT) for picture in bare], scale=scale)
    assert not any(score.present for score in seen(other, FRENCH))


def cover(left: float, right: float, value: int) -> Callable[[Array, Array], Array]:
    """Lays something over a part of the label, told in shares of its width."""

    def spoil(picture: Array, _: Array) -> Array:
        layout = labels.lay_out(FRENCH, picture.shape[1], picture.shape[0])
        rows, columns = layout.ink.shape
        begin, end = (layout.left + round(share * columns) for share in (left, right))
        picture[layout.top : layout.top + rows, begin:end] = value
        return picture

    return spoil


def faded(share: float) -> Callable[[Array, Array], Array]:
    return lambda picture, bare: np.round(share * picture + (1 - share) * bare.astype(float)).astype(np.uint8)


SPOILT: dict[str, Callable[[Array, Array], Array]] = {
    "missing": lambda _, bare: bare,
    "covered": cover(0, 1, 40),
    "first letters": cover(0.05, 0.2, 0),
    "last letters, in the text's colour": cover(0.8, 0.95, 255),
    "the middle, in the box's colour": cover(0.45, 0.65, 90),
    "faded": faded(0.6),
    "moved": lambda picture, _: np.roll(picture, 6, axis=1),
    "mirrored": lambda picture, _: picture[:, ::-1].copy(),
}


@pytest.mark.parametrize("kind", ["white", "black", "text", "noise", "moving"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_label_is_not_legible(how: str, kind: str) -> None:
    bare = scene(kind, 1, 320, 180)
    good = burnt(bare, FRENCH)
    layout, template = labels.template_of(FRENCH, 320, 180)
    box = np.s_[layout.top : layout.top + layout.ink.shape[0], layout.left : layout.left + layout.ink.shape[1]]
    assert template.score((good @ np.array(labels.LUMA))[box]).legible
    (spoilt,) = encoded([SPOILT[how](good.copy(), bare)], crf=18)
    assert not template.score((spoilt @ np.array(labels.LUMA))[box]).legible


@pytest.mark.parametrize("value", [0, 90, 255])
def test_two_letters_of_a_long_label_are_not_lost_among_the_others(value: int) -> None:
    style = labels.Style(LONG)
    layout, template = labels.template_of(style, 640, 360)
    box = np.s_[layout.top : layout.top + layout.ink.shape[0], layout.left : layout.left + layout.ink.shape[1]]
    good = burnt(scene("moving", 1, 640, 360), style)
    for left in range(layout.size, layout.ink.shape[1] - 3 * layout.size, layout.size):
        spoilt = good.copy()
        spoilt[box][:, left : left + round(1.5 * layout.size)] = value
        assert not template.score((spoilt @ np.array(labels.LUMA))[box]).legible, left


def test_a_picture_without_room_for_a_label_has_none() -> None:
    assert not labels.presence(np.zeros((8, 8, 3), np.uint8), DEFAULT).present
