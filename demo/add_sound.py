"""Give a clip a sound track made by us: a slow synthetic melody, as long as the picture.

    python demo/add_sound.py demo/clipA.mp4

The picture's packets are copied bit for bit and a track that is already there is replaced, so running it again
with the same PyAV gives the same file. Needs numpy and PyAV.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

RATE = 48_000  # samples per second
NOTE = 0.5  # seconds
MELODY = (0, 4, 7, 9, 7, 12, 9, 7, 4, 2)  # semitones above the A below middle C
ROOT = 220.0  # Hz
HARMONICS = (1.0, 0.45, 0.3, 0.12, 0.06)  # a mellow, somewhat voice-like tone


def melody(seconds: float) -> npt.NDArray[np.float32]:
    """Mono samples in -1..1 of the melody, repeated or cut to a length."""
    time = np.arange(round(seconds * RATE)) / RATE
    within = time % NOTE
    semitones = np.array(MELODY)[(time // NOTE).astype(int) % len(MELODY)]
    vibrato = 1 + 0.004 * np.sin(2 * np.pi * 5.5 * time)
    phase = 2 * np.pi * np.cumsum(ROOT * 2 ** (semitones / 12) * vibrato) / RATE
    tone = sum(level * np.sin(number * phase) for number, level in enumerate(HARMONICS, 1))
    swell = np.minimum(within / 0.05, 1) * np.minimum((NOTE - within) / 0.15, 1)
    sound: npt.NDArray[np.float32] = (0.25 * tone * swell).astype(np.float32)
    return sound


def add_sound(path: Path) -> None:
    """Replace the sound of a video file by the melody."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    with av.open(str(path)) as source, av.open(str(part), "w") as target:
        picture = source.streams.video[0]
        picture_out = target.add_stream_from_template(picture)
        sound_out = target.add_stream("aac", rate=RATE, layout="mono")
        sound_out.bit_rate = 64_000
        for packet in source.demux(picture):
            if packet.dts is not None:  # the last, empty one only says 'end'
                packet.stream = picture_out
                target.mux(packet)
        assert picture.average_rate is not None
        samples = melody(float(picture.frames / picture.average_rate))
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in [*sound_out.encode(frame), *sound_out.encode(None)]:
            target.mux(packet)
    part.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Give a clip a sound track made by us.")
    parser.add_argument("video", type=Path)
    add_sound(parser.parse_args().video)
