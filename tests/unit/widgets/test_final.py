"""The line that a step leaves: a full sentence, escaped, of the source only."""

from __future__ import annotations

import pytest

from durable_nb.widgets.final import StepFacts, lasting, step_bundle


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (StepFacts(label="load", named=True), "Durable step load."),
        (StepFacts(label="load", attempts=3), "Durable step load: up to 3 attempts."),
        (StepFacts(label="pay", at_most_once=True), "Durable step pay: at most once."),
        (StepFacts(label="slow", timeout=600), "Durable step slow: at most 10 min."),
        (StepFacts(label="x", attempts=2, timeout=0.2), "Durable step x: up to 2 attempts, at most 200 ms each."),
    ],
)
def test_the_text_is_a_sentence(facts: StepFacts, text: str) -> None:
    assert step_bundle(facts)["text/plain"] == text


def test_the_html_holds_the_label_as_text() -> None:
    html = step_bundle(StepFacts(label="<img src=x onerror=alert(1)>"))["text/html"]
    assert "<img" not in html
    assert "&lt;img" in html


def test_a_remark_is_added_for_a_step_that_waits() -> None:
    bundle = step_bundle(StepFacts(label="pay"), remark="Decided: <it> happened.")
    assert bundle["text/plain"] == "Durable step pay. Decided: <it> happened."
    assert "&lt;it&gt;" in bundle["text/html"]


def test_durations_are_as_they_were_asked_for() -> None:
    assert [lasting(s) for s in (0.05, 90, 600, 7200, 61)] == ["50 ms", "90 s", "10 min", "2 h", "61 s"]
