"""What the stages of a run spent their time on, in words."""

from batchrunner.views.stage_times import busy, in_words
from batchrunner.worker.stage_clock import StageClock, StageKind


def test_the_words_leave_out_what_did_not_happen():
    """A line for each stage, for a person in a hurry."""
    read = StageClock(
        "read", StageKind.READ, calling=20.0, waiting_output=80.0, peak_memory=1 << 30
    )
    stage = StageClock(
        "f", workers=3, calling=297, waiting_input=2, waiting_output=1, peak_memory=10**9
    )

    assert in_words(read) == "20 % at work, 80 % waiting for room"
    assert in_words(stage) == "99 % busy, <1 % waiting for rows; 3 workers, up to 1.0 GB in each"
    limited = StageClock("f", workers=0, calling=95, waiting_input=5, limited=90)
    assert in_words(limited) == "5 % busy, 90 % waiting for the rate limit, 5 % waiting for rows"
    assert in_words(StageClock("f", workers=1)) == "1 worker"
    assert in_words(StageClock("f", workers=0)) == ""
    assert busy([read, stage, StageClock("write")]) == "read 20 % · f 99 %"
