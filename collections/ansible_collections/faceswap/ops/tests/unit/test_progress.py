import doctest

from ansible_collections.faceswap.ops.plugins.module_utils import progress


def test_the_examples_hold() -> None:
    assert doctest.testmod(progress).failed == 0


def test_what_is_not_known_is_left_out() -> None:
    tell = progress.format_progress
    assert tell({"stage": "convert", "done": 0, "total": None, "rate": None}) == "convert  starting"
    gpus = [{"percent": 97, "memory_mb": 9000, "memory_total_mb": 24000}, {"percent": 4}]
    assert tell({"stage": "train", "done": 3, "total": 9, "rate": 0.05, "gpus": gpus}) == (
        "train  3/9  3.0/min  GPU 97 %, 4 %"
    )
    assert tell({"stage": "release", "done": 3, "total": 9, "eta": 0}) == "release  3/9  0:00 left"
