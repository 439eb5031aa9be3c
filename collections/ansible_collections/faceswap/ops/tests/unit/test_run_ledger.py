from pathlib import Path

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import LISTED_AFTER_S, Ledger, LedgerBusyError

PLACE = ("us-ashburn-1", "compartment")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a stack" / "ledger.jsonl"


def test_an_intent_stands_in_the_file_before_its_request_is_sent(path: Path) -> None:
    with Ledger(path) as ledger:
        token = ledger.intend("vcn", *PLACE, {"cidr": "10.0.0.0/16"})
        assert token in path.read_text()


def test_a_killed_request_is_repeated_with_its_token_and_another_is_not(path: Path) -> None:
    with Ledger(path) as ledger:
        token = ledger.intend("instance", *PLACE, {"shape": "a"})
    with Ledger(path) as ledger:
        assert ledger.intend("instance", *PLACE, {"shape": "a"}) == token
        assert ledger.intend("instance", *PLACE, {"shape": "b"}) != token


@pytest.mark.parametrize("answer", ["made", "failed"])
def test_a_request_that_was_answered_is_a_new_one_next_time(path: Path, answer: str) -> None:
    with Ledger(path) as ledger:
        token = ledger.intend("instance", *PLACE, {})
        if answer == "made":
            ledger.made("instance", *PLACE, "ocid1")
        else:
            ledger.failed("instance", "500 InternalError")
        assert ledger.intend("instance", *PLACE, {}) != token


def test_a_line_that_a_kill_tore_hides_nothing_else(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.begin("run", "me", "2026-11-23T10:00:00Z")
        ledger.made("vcn", *PLACE, "ocid1.vcn")
    with path.open("a") as stream:
        stream.write('{"at": "2026-11-2')
    with Ledger(path) as ledger:
        ledger.made("subnet", *PLACE, "ocid1.subnet")
    with Ledger(path) as ledger:
        assert [line["id"] for line in ledger.standing()] == ["ocid1.vcn", "ocid1.subnet"]
        assert ledger.life["run"] == "run"


def test_what_is_gone_stands_no_more_and_a_life_ends(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.begin("run", "me", "2026-11-23T10:00:00Z")
        ledger.pin_image({"os": "x"}, "ocid1.image")
        ledger.made("vcn", *PLACE, "ocid1.vcn")
        assert ledger.pinned_image({"os": "x"}) == "ocid1.image"
        assert ledger.places() == {PLACE}
        ledger.gone("ocid1.vcn")
        ledger.end()
        assert (ledger.standing(), ledger.life, ledger.pinned_image({"os": "x"})) == ([], {}, None)
        assert (ledger.places(), ledger.met("run"), ledger.met("another")) == (set(), True, False)


def test_what_was_thought_gone_and_is_seen_again_stands(path: Path) -> None:
    with Ledger(path) as ledger:
        for event in (ledger.gone, lambda ocid: ledger.made("vcn", *PLACE, ocid)) * 2:
            event("ocid1.vcn")
        assert [line["id"] for line in ledger.standing()] == ["ocid1.vcn"]


def test_one_run_at_a_time(path: Path) -> None:
    with Ledger(path), pytest.raises(LedgerBusyError), Ledger(path):
        pass


def test_check_mode_writes_nothing(path: Path) -> None:
    with Ledger(path, writing=False) as ledger:
        ledger.intend("vcn", *PLACE, {})
    assert not path.parent.exists()


def test_only_its_owner_may_read_it(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.begin("run", "me", "2026-11-23T10:00:00Z")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_an_open_intent_is_one_that_nothing_answered(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.intend("vcn", *PLACE, {})
        ledger.made("vcn", *PLACE, "ocid1.vcn")
        ledger.intend("subnet", *PLACE, {})
        ledger.failed("subnet", "400 InvalidParameter")
        ledger.intend("instance", *PLACE, {"n": 1}, "VM.GPU.A10.1 in AD-2")
    with Ledger(path) as ledger:
        assert {kind: line["what"] for kind, line in ledger.open_intents().items()} == {
            "instance": "VM.GPU.A10.1 in AD-2"
        }
        ledger.end()
        assert ledger.open_intents() == {}


def test_an_open_intent_is_unsettled_for_as_long_as_oracle_may_not_list_it(path: Path) -> None:
    kinds = ["instance", "vcn"]
    with Ledger(path) as ledger:
        assert ledger.unsettled_s(kinds) == 0
        ledger.intend("instance", *PLACE, {})
        assert LISTED_AFTER_S - 2 <= ledger.unsettled_s(kinds) <= LISTED_AFTER_S
        assert ledger.unsettled_s(["vcn"]) == 0
    at = path.read_text()
    path.write_text(at.replace('"at": "20', '"at": "19'))  # a hundred years ago
    with Ledger(path) as ledger:
        assert ledger.unsettled_s(kinds) < 0
    path.write_text(at.replace('"at": "20', '"at": "21'))  # by a clock that was put back since
    with Ledger(path) as ledger:
        assert ledger.unsettled_s(kinds) == LISTED_AFTER_S
