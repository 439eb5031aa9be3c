"""A test double of an engine, for tests of the supervisor alone: it counts instead of training.

`convert -i IN -o OUT` writes OUT/1.txt from IN; `fail` ends with an error of its own; `fill -o OUT` writes until the
disk is full; `hang` tells an error and then does nothing, deaf to SIGINT and SIGTERM; `doze` does nothing, the first
time.

`train -m MODEL -i N [--every SECONDS]` counts N iterations on in MODEL/double_state.json and saves on SIGINT, as
Faceswap does. Without `-s` it saves each iteration; with it also MODEL/double.keras, at the first, at each S-th and
at the last iteration, in place as Faceswap does. `check MODEL` tells whether that can be loaded.
"""

import argparse
import json
import signal
import sys
import time
import zipfile
from pathlib import Path

LOG = "01/02/2026 12:00:00"


CANNOT_BE_LOADED = 65


def refuse(text: str, code: int = 1) -> None:
    print(f"{LOG} ERROR    {text}", flush=True)
    sys.exit(code)


def load(model: Path) -> int:
    """Return the iterations of a model; it cannot be loaded when it was poisoned, though its archive is whole."""
    state, weights = model / "double_state.json", model / "double.keras"
    if weights.exists():
        try:
            with zipfile.ZipFile(weights) as archive:
                if archive.read("weights").startswith(b"poison"):
                    refuse("The weights make no sense.", CANNOT_BE_LOADED)
        except zipfile.BadZipFile:
            refuse("Unable to load the model: it most likely has corrupted.", CANNOT_BE_LOADED)
    return int(json.loads(state.read_text())["iterations"]) if state.exists() else 0


def save(model: Path, iteration: int, weights: bool) -> None:
    if weights:
        print(f"{LOG} INFO     Saving Model...", flush=True)
        with zipfile.ZipFile(model / "double.keras", "w") as archive:
            archive.writestr("weights", f"{iteration} " * 5000)
    (model / "double_state.json").write_text(json.dumps({"iterations": iteration}))
    if weights:
        print(f"{LOG} INFO     [Saved model]", flush=True)


def pass_time(seconds: float, burn: bool) -> None:
    end = time.monotonic() + seconds
    while burn and time.monotonic() < end:
        pass
    time.sleep(max(0.0, end - time.monotonic()))


def train(options: argparse.Namespace) -> None:
    stop: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: stop.append(number))
    model: Path = options.model
    model.mkdir(exist_ok=True, parents=True)
    done, more, last = load(model), int(options.input), 0
    for iteration in range(done + 1, done + more + 1):
        if options.memory and options.batch > options.memory:
            refuse(
                "You do not have enough GPU memory available to train the selected model at the selected settings."
                f" You can try a number of things:\n{LOG} ERROR    4) Use a more lightweight model"
            )
        if iteration in options.hang and not Path(f"hung at {iteration}").exists():
            Path(f"hung at {iteration}").touch()
            time.sleep(3600)
        loss = 1 / min(iteration, options.flat or iteration)
        print(f"[12:00:00] [#{iteration:05}] Loss A: {loss:.5f}, Loss B: 0.50000", end="\r", flush=True)
        last = iteration
        if not options.save or iteration == done + 1 or iteration % options.save == 0:
            save(model, iteration, bool(options.save))
        if stop:
            break
        pass_time(options.every * max(1.0, options.batch / options.full) ** 2, options.burn)
    if options.save:
        save(model, last, True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("-i", "--input")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("-s", "--save", type=int)
    parser.add_argument("-b", "--batch", type=int, default=1)
    parser.add_argument("-C", "--config", type=Path, help="an ini file, which is added to")
    parser.add_argument("-d", "--distributed", action="store_true")
    parser.add_argument("--every", type=float, default=0.0, help="seconds of an iteration")
    parser.add_argument("--burn", action="store_true", help="compute meanwhile")
    parser.add_argument("--full", type=int, default=1000, help="a larger batch trains fewer faces a second")
    parser.add_argument("--memory", type=int, help="a larger batch does not fit")
    parser.add_argument("--flat", type=int, help="the iteration from which on the loss stays")
    parser.add_argument("--hang", type=int, action="append", default=[], help="hang at this iteration, once")
    options = parser.parse_args()
    if options.verb == "check":
        load(options.folder)
        return 0
    print(f"{LOG} INFO     the double begins", flush=True)
    if options.config:
        with options.config.open("a") as stream:
            stream.write("# [Default: whatever]\nadded = 1\n")
    if options.verb == "train":
        train(options)
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
            print(f"{LOG} ERROR    {error}")
            print("a traceback, for which the log has no room either\n" * 500)
            return 1
    elif options.verb == "hang":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(f"{LOG} ERROR    Failed to download model. Exiting.\nExtract:   0%|    | 0/125 [00:00<?", flush=True)
        time.sleep(3600)
    elif options.verb == "doze":
        if not Path("dozed").exists():
            Path("dozed").touch()
            time.sleep(3600)
        options.output.mkdir(exist_ok=True)
        (options.output / "1.txt").touch()
    else:
        print(f"{LOG} ERROR    The disk is on fire: put it out.")
        print("Traceback or whatever follows")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
