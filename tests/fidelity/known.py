"""What is known not to be right yet, and rows of the list whose proof is elsewhere."""

from __future__ import annotations

KNOWN: dict[str, str] = {}
"""Case to the reason why it is wrong: told in the published table, and no failure of `make test`."""

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "30": ("tests/unit/cells/test_modules.py", "tests/acceptance/test_ordinary.py"),
    "38": ("tests/acceptance/test_outputs.py::test_widgets_do_not_break_a_cell",),
    "44": ("tests/acceptance/test_running.py::test_an_interrupt_stops_a_cell_and_a_count_down_and_commits_nothing",),
    "46": ("tests/notebook/test_context.py::test_a_loop_of_steps_goes_on_where_the_kernel_died",),
    "50": ("tests/acceptance/test_validity.py::test_out_of_order_execution_is_what_it_would_be_in_the_plain_kernel",),
    "54": (
        "tests/acceptance/test_running.py::test_a_second_kernel_replays_and_runs_unsaved_and_says_who_holds_the_notebook",
    ),
    "55": ("tests/acceptance/test_values.py::test_a_store_signed_by_somebody_else_is_not_loaded",),
    "57": ("tests/acceptance/test_running.py::test_attempts_and_delay_survive_a_kill_during_the_count_down",),
    "58": ("tests/acceptance/test_ordinary.py::test_a_newer_store_is_left_alone_and_cells_run",),
    "60": ("tests/acceptance/test_main_job.py::test_every_runner_replays_what_another_one_ran",),
    "F1": (
        "tests/acceptance/test_running.py::test_a_second_kernel_replays_and_runs_unsaved_and_says_who_holds_the_notebook",
    ),
    "F2": ("tests/acceptance/test_main_job.py::test_a_run_that_is_killed_itself_is_resumed_at_once",),
    "F3": ("tests/conformance/test_journals.py",),
    "F4": ("tests/sdk",),
    "F5": (
        "tests/acceptance/test_running.py::test_an_at_most_once_cell_that_was_killed_is_refused_until_somebody_decides",
    ),
    "F6": ("tests/acceptance/test_running.py::test_attempts_and_delay_survive_a_kill_during_the_count_down",),
    "F9": ("tests/fidelity/test_corpus.py",),
    "F11": ("tests/sdk",),
    "F12": ("tests/acceptance/test_values.py::test_unchanged_data_costs_nothing_when_it_is_stored_again",),
}
"""Row to the tests that prove it: these need a second process, a second host, widgets or the SDK."""
