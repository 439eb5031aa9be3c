"""The role oci_instance among the emulator's scenarios: each alone, and pairs. `make bench-oci-faults` has all pairs.

Every case is played by ansible-playbook from nothing to what must come of it, and back to nothing.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from oci_emulator import scenarios
from oci_faults import TROUBLES, Outcome, by_name, interruptions, on_stages, pairs, singles, some_pairs

CASES = by_name([*singles(), *interruptions(), *some_pairs(count=30, each=2)])

Played = Callable[[str], Outcome]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The outcome of a case, by its name: those that are asked for are played two at a time, each in a cloud."""
    here = [item for item in request.session.items if item.path == request.path and isinstance(item, pytest.Function)]
    names = [str(item.callspec.params["name"]) for item in here if hasattr(item, "callspec")]
    with on_stages([CASES[name] for name in names], tmp_path_factory.mktemp("stages")) as outcomes:
        by_case: dict[str, Future[Outcome]] = dict(zip(names, outcomes, strict=True))
        yield lambda name: by_case[name].result()


@pytest.mark.parametrize("name", CASES)
def test_there_is_what_was_wanted_and_after_it_nothing(played: Played, name: str) -> None:
    outcome = played(name)
    assert outcome.good, str(outcome)


def test_every_scenario_has_its_place_in_the_table() -> None:
    assert sorted(one.name for one in TROUBLES) == sorted(scenarios.known())


def test_enough_of_them_meet() -> None:
    chosen = some_pairs(count=30, each=2)
    assert len(chosen) >= 30 and len(pairs()) > len(chosen)
    for one in TROUBLES:
        assert one.ends or sum(one in case.troubles for case in chosen) >= 2, one.name
