"""Workers as real processes that are killed, moved, frozen and cut off, on a broker of the test's own."""

from pathlib import Path

import pytest

from bench.crash import MODES, campaign, main, table
from bench.crash_setting import Plan

pytestmark = pytest.mark.usefixtures("broker_packages")


@pytest.mark.parametrize("mode", MODES)
def test_kills_change_nothing(mode: str, tmp_path: Path) -> None:
    row = campaign(tmp_path, Plan(mode, times=2, snapshots="topic", pause_s=3.0, rate=300, seed=1))
    assert row["holds"], table([row])
    assert row["flags expected"] > 50
    assert row["scores found"] > 1000
    assert row["letters found"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("scenario", "times", "pause_s"),
    [("rebalance", 3, 3.0), ("broker-stop", 1, 8.0), ("broker-freeze", 1, 8.0), ("worker-freeze", 2, 3.0)],
)
def test_disturbances_change_nothing(mode: str, scenario: str, times: int, pause_s: float, tmp_path: Path) -> None:
    row = campaign(tmp_path, Plan(mode, scenario, times, pause_s, seed=2))
    assert row["holds"], table([row])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_in_each_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--times", "100"]) == 0
    print(capsys.readouterr().out)
