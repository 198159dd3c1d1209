"""Whatever instant a process dies at, no sentinel lies and the next run ends with the same output."""

from __future__ import annotations

import pytest

from batchrunner.testing.crash import Death
from crash_sweep import sees, sweep

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize("death", list(Death))
def test_dying_at_any_change_to_the_disk_loses_and_doubles_nothing(tmp_path, death):
    """The promise that everything else rests on."""
    assert [] == sweep(tmp_path, death)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
@pytest.mark.parametrize("job", ["errors", "retry"])
def test_dying_with_rows_set_aside_loses_and_doubles_none_of_them(tmp_path, job, death):
    """A row that was set aside is in its file before any record names it, and is retried once."""
    assert [] == sweep(tmp_path, death, job=job, stride=2)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
def test_dying_after_new_times_were_noted_computes_nothing_again(tmp_path, death):
    """Files of other times and the same bytes are the old ones, whenever the process dies."""
    assert [] == sweep(tmp_path, death, job="touched", stride=3)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
@pytest.mark.parametrize("job", ["packed", "packed-retry", "packed-touched", "packed-damaged"])
def test_dying_with_several_files_in_a_shard_loses_and_doubles_no_row(tmp_path, job, death):
    """A part is of all its files or of none, and so is what is said of it at the end."""
    assert [] == sweep(tmp_path, death, job=job, stride=3)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
def test_dying_around_the_early_end_of_a_shard_loses_and_doubles_no_row(tmp_path, death):
    """Its sentinel says where it ended; until a generation has the rest, each session looks there."""
    assert [] == sweep(tmp_path, death, job="early", stride=4)


@pytest.mark.parametrize("death", [Death.TORN, Death.POWER_CUT])
def test_dying_around_journaled_answers_loses_and_doubles_no_row(tmp_path, death):
    """The journal is written beside the commit, and removed after it, by a thread that nothing waits for."""
    assert [] == sweep(tmp_path, death, job="journal", stride=5)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
def test_dying_while_starting_over_ends_with_the_new_output_and_nothing_of_the_old(tmp_path, death):
    """Between the claim and the plan there is neither run; the next session goes on clearing."""
    assert [] == sweep(tmp_path, death, job="fresh", stride=2)


@pytest.mark.parametrize("death", list(Death))
def test_dying_while_files_are_published_leaves_none_of_other_bytes(tmp_path, death):
    """Each attempt makes other bytes; the files are those of the part that won, whoever published them."""
    assert [] == sweep(tmp_path, death, job="files", stride=2)


@pytest.mark.parametrize("death", [Death.AFTER, Death.POWER_CUT])
@pytest.mark.parametrize("job", ["files-errors", "files-fresh", "files-changed"])
def test_dying_while_files_fail_start_over_or_change_leaves_only_what_parts_list(
    tmp_path, job, death
):
    """No file of the old run, of a changed file or of a row that failed is in the sink in the end."""
    assert [] == sweep(tmp_path, death, job=job, stride=3)


def test_dying_while_runs_are_recorded_loses_and_doubles_none_of_them(tmp_path):
    """A part never says that a run is recorded which is not, and the batch records itself once."""
    assert [] == sweep(tmp_path, Death.AFTER, job="runs", stride=2)


def test_the_sweep_sees_letters_that_come_too_late(tmp_path):
    """A driver that adopts a part cannot make its dead letters again."""
    assert sees(
        tmp_path,
        Death.AFTER,
        job="errors",
        mutant="dead_letters_last",
        sign="without its dead letters",
    )


def test_the_sweep_sees_a_sentinel_that_comes_before_its_part(tmp_path):
    """A sweep that a wrong order of writes survives would prove nothing."""
    assert sees(tmp_path, Death.AFTER, mutant="sentinel_first", sign="stands without its part")


def test_the_sweep_sees_a_note_that_is_forgotten_before_its_sentinel(tmp_path):
    """Without its note, a part whose worker died cannot be distinguished from a stranger's."""
    assert sees(tmp_path, Death.AFTER, mutant="forget_notes_early", sign="the next run fails")


def test_the_sweep_sees_an_early_end_that_is_not_in_the_intent(tmp_path):
    """A part whose worker died would be taken for all of its shard, and the rest would be lost."""
    mutant = "intents_forget_the_end"
    assert sees(tmp_path, Death.AFTER, job="early", mutant=mutant, sign="the next run fails")


def test_the_sweep_sees_shards_that_run_before_the_plan_has_them(tmp_path):
    """The next session would meet parts of shards that it does not know."""
    mutant = "grows_only_in_memory"
    assert sees(
        tmp_path, Death.AFTER, job="packed-damaged", mutant=mutant, sign="the next run fails"
    )


def test_the_power_cut_sees_missing_syncs(tmp_path):
    """A disk that was never synced may lose the part and keep the sentinel."""
    assert sees(tmp_path, Death.POWER_CUT, mutant="no_fsync")


@pytest.mark.parametrize(
    ("mutant", "sign"),
    [
        ("files_before_the_part", "the next run fails"),
        ("sentinel_before_its_files", "stands without its file"),
        ("adopts_without_files", "is not there"),
    ],
)
def test_the_sweep_sees_files_in_a_wrong_order(tmp_path, mutant, sign):
    """Files of a part that did not win, or a sentinel over files that are not there."""
    assert sees(tmp_path, Death.AFTER, job="files", mutant=mutant, sign=sign)
