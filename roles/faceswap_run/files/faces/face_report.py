"""What was found in a source: numbers, warnings with numbers, and a contact sheet to look at."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from alignments import drop, faces_of, landmarks_of, load
from identity import Finding
from media import Look
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.floating[Any]]

FEW = 250  # faces; Faceswap itself warns below this, and refuses to train below 25
SMALL = 64  # px in the frame; what the smallest models learn, so less is made up from nothing
# Of the side's median sharpness: in the demo the least sharp face, which looks away, has a third of it, and faces
# that are smeared over 9 of 256 px have less than a fifth.
BLURRED = 0.2
# Sharpness of a whole side: the demo's faces have 230 and more, or 8 to 15 if scaled up from 64 px or blurred by 2.
UNSHARP = 20.0
LACKING = 0.2  # share of frames without a face that is worth a word: a turned head or a cut
STRAYS = 0.02  # share of a side's faces that a passer-by, or a wrong detection, may have
SAME_PERSON = 0.6  # cosine of two identity vectors, from which Faceswap's own filter takes them for one person's

SHARPNESS_SIDE = 128  # px; sharpness is compared at one size
FACE_SHARE = 0.6  # of a face image's side, in its middle: the rest is hair and background

COLUMNS, ROWS, THUMB, CAPTION = 10, 6, 128, 18
MARKED = "#e02020"

log = logging.getLogger("extract")


@dataclass(frozen=True)
class Face:
    """A face: `size` is the longer side of its landmarks in px of the frame; `sharpness` is None without an image."""

    key: str
    image: Path | None
    size: float
    sharpness: float | None
    identity: Floats | None


@dataclass(frozen=True)
class Report:
    """The numbers of one side, without `strangers`, whose faces were left out.

    Sizes in px; `likeness` is how like the reference picture the middle face is, at most 1; `persons` is None where
    the engine told no faces apart.
    """

    frames: int
    looked_at: int
    with_face: int
    with_several: int
    faces: int
    strangers: int
    likeness: float | None
    size_least: int
    size_median: int
    size_most: int
    small: int
    sharpness_median: float
    blurred: int
    persons: int | None
    persons_faces: list[int]
    video: dict[str, Any]
    summary: str
    warnings: list[str]
    sheet: list[tuple[int, Face, str]]


def look(faces_folder: Path, alignments_file: Path, seen: Look, told: Finding | None = None) -> Report:
    """Count and measure what extract left, and was told of strangers."""
    _, frames = load(alignments_file)
    if told:
        drop(frames, told.strangers)
    counts = Counter(len(faces_of(entry)) for entry in frames.values())
    faces = [
        measure(faces_folder / f"{Path(key).stem}_{number}.png", key, face)
        for key, entry in frames.items()
        for number, face in enumerate(faces_of(entry))
    ]
    sizes = [face.size for face in faces] or [0.0]
    known = [face.sharpness for face in faces if face.sharpness is not None] or [0.0]
    middle = float(np.median(known))
    flaws = [flaw(face, middle) for face in faces]
    vectors = [face.identity for face in faces if face.identity is not None]
    groups = persons(np.array(vectors)) if vectors else []
    numbers: dict[str, Any] = {
        "frames": seen.frames,
        "looked_at": len(frames),
        "with_face": len(frames) - counts[0],
        "with_several": sum(count for several, count in counts.items() if several > 1),
        "faces": len(faces),
        "strangers": len(told.strangers) if told else 0,
        "likeness": told.likeness if told else None,
        "size_least": round(min(sizes)),
        "size_median": round(float(np.median(sizes))),
        "size_most": round(max(sizes)),
        "small": flaws.count("small"),
        "sharpness_median": round(middle, 1),
        "blurred": flaws.count("blurred"),
        "persons": len(groups) or None,
        "persons_faces": groups,
    }
    return Report(
        **numbers,
        video={key: value for key, value in asdict(seen).items() if key != "frames"},
        summary=summary(numbers),
        warnings=warnings(numbers, max(counts, default=0)),
        sheet=chosen(faces, flaws),
    )


def measure(image: Path, key: str, face: dict[str, Any]) -> Face:
    """Size, sharpness and identity of a face; its image may have been left out by `--min_scale`."""
    there = image.exists()
    vectors = list(face.get("identity", {}).values())
    return Face(
        key=key,
        image=image if there else None,
        size=float(np.ptp(landmarks_of(face), axis=0).max()),
        sharpness=sharpness(image) if there else None,
        identity=np.asarray(vectors[0], np.float64) if vectors else None,
    )


def sharpness(path: Path) -> float:
    """Variance of the Laplacian of the face, in grey levels at a fixed size: what is blurred has little of it."""
    with Image.open(path) as image:
        margin = (1 - FACE_SHARE) / 2
        box = (margin * image.width, margin * image.height, (1 - margin) * image.width, (1 - margin) * image.height)
        size = (SHARPNESS_SIDE, SHARPNESS_SIDE)
        grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX, box), np.float64)
    middle = grey[1:-1, 1:-1]
    return float(np.var(grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle))


def flaw(face: Face, middle: float) -> str:
    """What is wrong with a face: `small`, `blurred` or nothing."""
    if face.size < SMALL:
        return "small"
    return "blurred" if face.sharpness is not None and face.sharpness < BLURRED * middle else ""


def persons(vectors: Floats) -> list[int]:
    """How many faces each person has, most first, from identity vectors (n, d); strays are left out.

    Each face goes to the person whose mean it is most like, or begins a new one; then persons are joined whose means
    are alike, as the first faces of a person may not be typical.
    """
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    sums: list[Floats] = []
    counts: list[int] = []

    def nearest(vector: Floats, others: Sequence[int]) -> int | None:
        likeness = {n: float(vector @ sums[n] / (np.linalg.norm(vector) * np.linalg.norm(sums[n]))) for n in others}
        best = max(likeness, key=lambda n: likeness[n], default=None)
        return best if best is not None and likeness[best] >= SAME_PERSON else None

    for unit in units:
        person = nearest(unit, range(len(sums)))
        if person is None:
            sums.append(unit.copy())
            counts.append(1)
        else:
            sums[person] += unit
            counts[person] += 1
    for person in sorted(range(len(sums)), key=lambda n: counts[n]):
        larger = [n for n in range(len(sums)) if n != person and counts[n] >= counts[person] > 0]
        same = nearest(sums[person], larger)
        if same is not None:
            sums[same] += sums[person]
            counts[same], counts[person] = counts[same] + counts[person], 0
    return sorted((count for count in counts if count > STRAYS * len(units)), reverse=True)


def summary(n: dict[str, Any]) -> str:
    """The numbers in one line."""
    told = "" if n["persons"] is None else f", {n['persons']} person{'s' * (n['persons'] > 1)}"
    every = "" if n["looked_at"] == n["frames"] else f" ({n['frames']} in all)"
    return (
        f"{n['faces']} faces in {n['with_face']} of {n['looked_at']} frames{every}, {n['with_several']} frames with "
        f"several; {n['size_least']} to {n['size_most']} px, median {n['size_median']} px; sharpness "
        f"{n['sharpness_median']:g}; {n['small']} small, {n['blurred']} blurred{told}; "
        f"{n['strangers']} of strangers left out"
    )


def warnings(n: dict[str, Any], most: int) -> list[str]:
    """What a person should look at, each with its number and what to do."""
    faces, lacking = n["faces"], n["looked_at"] - n["with_face"]
    said = []
    if 0 < faces < FEW:
        said.append(f"{faces} faces are few: from {FEW} a model learns more of them, so give a longer source.")
    if n["strangers"]:
        said.append(
            f"{n['strangers']} of {faces + n['strangers']} faces are not the consented person's, or cannot be told "
            "to be, and were left out: they are neither trained nor swapped."
        )
    if n["looked_at"] and lacking > LACKING * n["looked_at"]:
        said.append(f"{lacking} of {n['looked_at']} frames have no face: they will stay as they are.")
    if n["persons"] is not None and n["persons"] > 1:
        shares = " and ".join(map(str, n["persons_faces"]))
        said.append(
            f"{n['persons']} persons seem to be there, with {shares} faces: weed out all but one of them, as a face "
            "that is deleted is not trained, nor swapped by Faceswap."
        )
    elif n["with_several"] and n["persons"] is None:
        said.append(
            f"{n['with_several']} frames show several faces, up to {most}: weed out other persons' faces, which "
            "faceswap_run_identity would tell apart."
        )
    if n["small"]:
        said.append(f"{n['small']} faces are smaller than {SMALL} px: they teach little, weed them out.")
    if n["blurred"]:
        said.append(f"{n['blurred']} faces are far less sharp than the others: weed them out.")
    if faces and 0 < n["sharpness_median"] < UNSHARP:
        said.append(f"The faces are unsharp (sharpness {n['sharpness_median']:g}): the swap will be no sharper.")
    return said


def chosen(faces: list[Face], flaws: list[str]) -> list[tuple[int, Face, str]]:
    """Faces for the sheet with their numbers from 1: evenly spread, up to a third of them flawed ones."""
    room = COLUMNS * ROWS
    there = [n for n, face in enumerate(faces) if face.image]
    bad = spread([n for n in there if flaws[n]], room // 3)
    good = spread([n for n in there if n not in set(bad)], room - len(bad))
    return [(n + 1, faces[n], flaws[n]) for n in sorted(bad + good)]


def spread(numbers: list[int], room: int) -> list[int]:
    """At most `room` of the numbers, evenly spread from the first to the last."""
    if len(numbers) <= room:
        return numbers
    return [numbers[round(place)] for place in np.linspace(0, len(numbers) - 1, room)]


def write(folder: Path, report: Report) -> None:
    """Put the numbers and the contact sheet into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sheet = draw(report)
    whole(folder / "sheet.jpg", lambda file: sheet.save(file, "jpeg", quality=88))
    content = {key: value for key, value in asdict(report).items() if key != "sheet"}
    whole(folder / "report.json", lambda file: file.write(json.dumps(content, indent=1).encode()))


def whole(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Replace a file in one step."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def draw(report: Report) -> Image.Image:
    """The contact sheet: faces in a grid with number and frame, flawed ones framed in red and named."""
    font = ImageFont.load_default(12)
    rows = max(1, -(-len(report.sheet) // COLUMNS))
    lines = [report.summary, *report.warnings]
    head = (CAPTION + 2) * len(lines) + 8
    sheet = Image.new("RGB", (COLUMNS * THUMB, head + rows * (THUMB + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        pen.text((4, 4 + row * (CAPTION + 2)), line, "black" if row == 0 else MARKED, font)
    for place, (number, face, wrong) in enumerate(report.sheet):
        assert face.image
        x, y = place % COLUMNS * THUMB, head + place // COLUMNS * (THUMB + CAPTION)
        with Image.open(face.image) as image:
            sheet.paste(image.convert("RGB").resize((THUMB - 4, THUMB - 4), Image.Resampling.LANCZOS), (x + 2, y + 2))
        if wrong:
            pen.rectangle((x + 1, y + 1, x + THUMB - 2, y + THUMB - 2), outline=MARKED, width=3)
        caption = f"{number}: {face.image.stem} {wrong}"  # the name of the file to remove
        pen.text((x + 4, y + THUMB), caption, MARKED if wrong else "black", font)
    return sheet
