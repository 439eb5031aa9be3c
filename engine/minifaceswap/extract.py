"""extract: find the largest face of each frame, save it aligned, and write the alignments file."""

import logging
import sys
from pathlib import Path

from tqdm import tqdm

from minifaceswap import alignments
from minifaceswap.align import aligned, apply, warp
from minifaceswap.detect import FaceFinder
from minifaceswap.media import Source

log = logging.getLogger(__name__)


def extract(source_path: Path, faces_folder: Path | None, alignments_path: Path, size: int, every: int) -> None:
    """Extract from every `every`-th frame; faces are `size` pixels square.

    The alignments file is written last, so that its presence means a finished extract.
    """
    source = Source(source_path)
    finder = FaceFinder()
    if faces_folder is not None:
        faces_folder.mkdir(parents=True, exist_ok=True)
    found: alignments.Alignments = {}
    for number, frame in tqdm(source, "Extracting faces", source.count(), file=sys.stdout):
        if (number - 1) % every:
            continue
        landmarks = finder(frame)
        key = source.key(number)
        found[key] = [] if landmarks is None else [alignments.Face(landmarks)]
        if landmarks is not None and faces_folder is not None:
            matrix = aligned(landmarks, size, alignments.COVERAGE)
            face = warp(frame, matrix, (size, size))
            name = f"{Path(key).stem}_0.png"
            alignments.save_face(faces_folder / name, face, apply(matrix, landmarks), key)
    faces = sum(len(entry) for entry in found.values())
    if not faces:  # as with Faceswap no error: it may be one part of a video
        log.warning("No face was found in %s.", source_path)
    alignments.save(alignments_path, found)
    log.info("Images found: %d, faces detected: %d", len(found), faces)
    log.info("Alignments written to %s", alignments_path)
