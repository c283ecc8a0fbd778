"""Spans through the plugin interface, undoing, and plugins from the environment."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from durable_nb.sdk import DurableContext, StepContext, durable_execution, durable_step
from durable_nb.sdk.exceptions import PluginLoadError, ValidationError
from durable_nb.sdk.execution import DurableHandler
from durable_nb.sdk.plugin import DurableInstrumentationPlugin
from durable_nb.sdk.plugin_discovery import PLUGIN_ENVIRONMENT_VARIABLE, load_configured_plugins
from durable_nb.sdk.saga import Saga
from durable_nb.testing import DurableFunctionTestRunner, SimulatedCrash, crash_after

# --- spans -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans() -> Any:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def body(event: Any, context: DurableContext) -> None:
    context.step(lambda _: 1, name="first")
    context.wait(5, name="pause")
    context.run_in_child_context(lambda c: c.step(lambda _: 2, name="inner"), name="child")


def test_all_invocations_of_an_execution_write_one_trace(spans: Any) -> None:
    from durable_nb.sdk.otel import ExecutionOtelPlugin, OtelPluginConfig, ProviderSource, span_id_of, trace_id_of

    provider, exporter = spans
    config = OtelPluginConfig(ProviderSource.EXPLICIT, provider)
    handler = DurableHandler(body, plugins=[ExecutionOtelPlugin(config)])
    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run()
        arn = next(iter(runner._places))
    found = {span.name: span for span in exporter.get_finished_spans()}
    assert set(found) == {"first", "pause", "child", "inner", "Workflow"}
    assert {span.context.trace_id for span in found.values()} == {trace_id_of(arn)}
    root = span_id_of(arn, "execution")
    assert found["Workflow"].context.span_id == root
    assert found["first"].context.span_id == span_id_of(arn, result.get_step("first").operation_id)
    assert found["first"].parent.span_id == root
    assert found["inner"].parent.span_id == found["child"].context.span_id
    assert found["pause"].attributes["durable.operation.status"] == "SUCCEEDED"


def test_each_invocation_has_a_span_of_its_own(spans: Any) -> None:
    from durable_nb.sdk.otel import InvocationOtelPlugin, OtelPluginConfig, ProviderSource

    provider, exporter = spans
    config = OtelPluginConfig(ProviderSource.EXPLICIT, provider)
    handler = DurableHandler(body, plugins=[InvocationOtelPlugin(config)])
    with DurableFunctionTestRunner(handler) as runner:
        runner.run()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("Invocation") == 2
    statuses = [
        s.attributes["durable.invocation.status"] for s in exporter.get_finished_spans() if s.name == "Invocation"
    ]
    assert statuses == ["PENDING", "SUCCEEDED"]


def test_user_code_runs_inside_its_operation_s_span(spans: Any) -> None:
    from opentelemetry import trace

    from durable_nb.sdk.otel import ExecutionOtelPlugin, OtelPluginConfig, ProviderSource, span_id_of

    provider, exporter = spans

    def traced(event: Any, context: DurableContext) -> str:
        def inside(_: StepContext) -> str:
            with provider.get_tracer("mine").start_as_current_span("mine"):
                pass
            return str(trace.get_current_span().get_span_context().span_id)

        return context.step(inside, name="outer")

    config = OtelPluginConfig(ProviderSource.EXPLICIT, provider)
    with DurableFunctionTestRunner(DurableHandler(traced, plugins=[ExecutionOtelPlugin(config)])) as runner:
        result = runner.run()
        arn = next(iter(runner._places))
    outer = span_id_of(arn, result.get_step("outer").operation_id)
    assert result.result == str(outer)
    mine = next(span for span in exporter.get_finished_spans() if span.name == "mine")
    assert mine.parent.span_id == outer


def test_a_failed_operation_s_span_says_so(spans: Any) -> None:
    from durable_nb.sdk.otel import ExecutionOtelPlugin, OtelPluginConfig, ProviderSource

    provider, exporter = spans
    config = OtelPluginConfig(ProviderSource.EXPLICIT, provider)
    handler = DurableHandler(
        lambda event, context: context.step(lambda _: 1 / 0, name="bad"), plugins=[ExecutionOtelPlugin(config)]
    )
    with DurableFunctionTestRunner(handler) as runner:
        runner.run()
    bad = next(span for span in exporter.get_finished_spans() if span.name == "bad")
    assert bad.attributes["error.type"] == "ZeroDivisionError"
    assert not bad.status.is_ok


def test_a_provider_must_be_given_where_it_is_said_to_be() -> None:
    from durable_nb.sdk.otel import OtelPluginConfig, ProviderSource

    with pytest.raises(ValidationError, match="tracer_provider"):
        OtelPluginConfig(ProviderSource.EXPLICIT)


# --- undoing -----------------------------------------------------------------------------------------------------------

DONE: list[str] = []


@durable_step
def do(_: StepContext, what: str) -> str:
    DONE.append(what)
    return what


@durable_execution
def trip(event: Any, context: DurableContext) -> Any:
    try:
        with Saga(context) as saga:
            saga.step(do("flight"), undo=lambda what: do(f"cancel {what}"), name="flight")
            saga.step(do("hotel"), undo=lambda what: do(f"cancel {what}"), name="hotel")
            context.wait(5)
            saga.step(lambda _: [][0], name="car")
    except IndexError:
        return "undone"


def test_what_was_done_is_undone_in_reverse_and_a_suspension_undoes_nothing(run: Any) -> None:
    DONE.clear()
    result = run(trip)
    assert result.result == "undone"
    assert DONE == ["flight", "hotel", "cancel hotel", "cancel flight"]
    assert [one.name for one in result.operations][-2:] == ["undo hotel", "undo flight"]


def test_undoing_goes_on_after_a_crash() -> None:
    DONE.clear()
    with DurableFunctionTestRunner(trip) as runner:
        with pytest.raises(SimulatedCrash):
            runner.run(fault=crash_after(6, before_write=False))  # the first undo step is recorded
        assert runner.resume().result == "undone"
    assert DONE == ["flight", "hotel", "cancel hotel", "cancel flight"]


# --- plugins from the environment ----------------------------------------------------------------------------------------


class Offered(DurableInstrumentationPlugin):
    pass


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        metadata.EntryPoint("mine", f"{__name__}:Offered", "durable_nb.plugins"),
        metadata.EntryPoint("broken", "no_such_module:x", "durable_nb.plugins"),
        metadata.EntryPoint("number", "math:pi", "durable_nb.plugins"),
        metadata.EntryPoint("twice", "math:pi", "durable_nb.plugins"),
        metadata.EntryPoint("twice", "math:e", "durable_nb.plugins"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)


@pytest.mark.usefixtures("offered")
def test_plugins_are_chosen_by_name() -> None:
    explicit = Offered()
    plugins = load_configured_plugins([explicit], environment={PLUGIN_ENVIRONMENT_VARIABLE: " mine ,"})
    assert plugins[0] is explicit
    assert isinstance(plugins[1], Offered)


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("absent", "no plugin 'absent'"),
        ("broken", "cannot be loaded"),
        ("number", "neither"),
        ("twice", "several"),
        ("mine,mine", "twice"),
    ],
)
def test_a_plugin_that_is_asked_for_and_not_there_is_an_error(names: str, why: str) -> None:
    with pytest.raises(PluginLoadError, match=why):
        load_configured_plugins(None, environment={PLUGIN_ENVIRONMENT_VARIABLE: names})


def test_what_is_no_plugin_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="neither"):
        load_configured_plugins([5])  # type: ignore[list-item]
