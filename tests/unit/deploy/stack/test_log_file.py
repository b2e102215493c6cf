"""Logs of tiers on disks that take nothing more: the tier goes on, and one warning is given."""

import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from deploy.stack.log_file import LogFile
from deploy.stack.tier import Tier, TierEvent, TierExited
from tests.support.disks import fill, forbid_writing, small_disk

# More than a pipe holds: a tier whose log nobody reads stops at it.
CHATTERBOX = "import sys\nfor at in range(5000): print('line', at, 'x' * 40, file=sys.stderr)"


def test_lines_are_kept_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.log"
    for keeps, line in ((False, "first\n"), (True, "séc\ud800ond\n"), (True, "third\n")):
        log = LogFile(path, keeps=keeps)
        log.write(line)
        log.close()
        log.close()
    assert path.read_text() == "first\nséc?ond\nthird\n"
    LogFile(path, keeps=False).close()
    assert path.read_text() == ""


@pytest.mark.parametrize("state", ["full", "full later", "read-only"])
def test_a_tier_goes_on_without_its_log_and_one_warning_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    events: SimpleQueue[TierEvent] = SimpleQueue()
    with small_disk(tmp_path / "disk", kib=64) as disk:
        if state == "full":
            fill(disk)
        elif state == "read-only":
            forbid_writing(disk)
        log_file = disk / "logs" / "a.log"
        command = (sys.executable, "-c", CHATTERBOX)
        tier = Tier("a", command, events=events, log_file=log_file)
        tier.start()
        ended = events.get(timeout=20)
        assert tier.wait(5)
        assert isinstance(ended, TierExited) and ended.code == 0
        assert ended.reason.startswith("line 4999")
        assert log_file.is_file() == (state != "read-only")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "a.log cannot be written" in warnings[0] and "serving goes on" in warnings[0]
