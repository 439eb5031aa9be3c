"""A test double of an engine, for tests of the supervisor alone: it counts instead of training.

`convert -i IN -o OUT` writes OUT/1.txt from IN; `train -m MODEL -i N [--every SECONDS]` counts N iterations on
in MODEL/double_state.json and saves on SIGINT, as Faceswap does; `fail` ends with an error of its own; `fill -o OUT`
writes until the disk is full.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path


def train(model: Path, more: int, every: float) -> None:
    stop: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stop.append(number))
    model.mkdir(exist_ok=True)
    state = model / "double_state.json"
    done = json.loads(state.read_text())["iterations"] if state.exists() else 0
    for iteration in range(done + 1, done + more + 1):
        print(f"[12:00:00] [#{iteration:05}] Loss A: {1 / iteration:.5f}, Loss B: 0.50000", end="\r", flush=True)
        state.write_text(json.dumps({"iterations": iteration}))
        if stop:
            break
        time.sleep(every)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("-i", "--input")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("-s", "--save")
    parser.add_argument("--every", type=float, default=0.0)
    options = parser.parse_args()
    print("01/02/2026 12:00:00 INFO     the double begins", flush=True)
    if options.verb == "train":
        train(options.model, int(options.input), options.every)
    elif options.verb == "convert":
        options.output.mkdir(exist_ok=True)
        print("Converting:  50%|#    | 1/2 [00:01<00:01,  1.00it/s]\rConverting: 100%|##| 2/2 [00:02<00:00]")
        (options.output / "1.txt").write_text(Path(options.input).read_text().upper())
    elif options.verb == "fill":
        options.output.mkdir(exist_ok=True)
        try:
            for number in range(10_000):
                (options.output / f"{number}.png").write_bytes(bytes(65536))
                print(f"picture {number} is written", flush=True)
        except OSError as error:
            print(f"01/02/2026 12:00:00 ERROR    {error}")
            print("a traceback, for which the log has no room either\n" * 500)
            return 1
    else:
        print("01/02/2026 12:00:00 ERROR    The disk is on fire: put it out.")
        print("Traceback or whatever follows")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
