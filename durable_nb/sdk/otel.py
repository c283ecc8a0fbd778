"""OpenTelemetry spans for executions, through the plugin interface. Needs the extra `otel`.

Every span id is derived from the execution and the operation, so that all invocations of one execution, in whatever
process, write into one trace: an operation that began in one invocation and ended in another is one span of that trace.

- `ExecutionOtelPlugin`: one span per execution (`workflow_span_name`), below it one per operation.
- `InvocationOtelPlugin`: one span per invocation, below it the operations that ended in it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from durable_nb.events import Status
from durable_nb.exceptions import ValidationError
from durable_nb.sdk.plugin import (
    DurableInstrumentationPlugin,
    InvocationEndInfo,
    InvocationStartInfo,
    OperationEndInfo,
    OperationInfo,
    UserFunctionEndInfo,
    UserFunctionStartInfo,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

INSTRUMENT_NAME = "durable_nb"
_WHAT_FOR = "OpenTelemetry spans need the extra: pip install 'durable_nb[otel]'"


class ProviderSource(Enum):
    """Where the tracer provider comes from."""

    EXPLICIT = "EXPLICIT"
    """`tracer_provider`."""
    GLOBAL = "GLOBAL"
    """The one that the program has set."""
    AUTO_OTLP = "AUTO_OTLP"
    """One made here, which exports by OTLP as the environment says (needs opentelemetry-exporter-otlp)."""


@dataclass(frozen=True)
class OtelPluginConfig:
    """Options of both plugins."""

    provider_source: ProviderSource = ProviderSource.GLOBAL
    tracer_provider: TracerProvider | None = None
    context_extractor: Callable[[InvocationStartInfo], Any] | None = None
    """Gives an OpenTelemetry context that the execution's trace belongs to."""
    instrument_name: str = INSTRUMENT_NAME
    enable_http_instrumentation: bool = True
    exporter_config: Any = None
    propagators: Sequence[Any] | None = None
    workflow_span_name: str = "Workflow"
    enrich_logger: bool = True
    """Put `trace_id` and `span_id` on log records written while a user function runs."""

    def __post_init__(self) -> None:
        if self.provider_source is ProviderSource.EXPLICIT and self.tracer_provider is None:
            raise ValidationError("provider_source EXPLICIT needs a tracer_provider")
        if self.provider_source is not ProviderSource.EXPLICIT and self.tracer_provider is not None:
            raise ValidationError("a tracer_provider is only used with provider_source EXPLICIT")


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode("utf-8"), digest_size=16).digest()


def trace_id_of(execution_arn: str) -> int:
    """The trace of an execution."""
    return int.from_bytes(_digest("trace", execution_arn), "big") or 1


def span_id_of(execution_arn: str, operation_id: str) -> int:
    """The span of an operation."""
    return int.from_bytes(_digest("span", execution_arn, operation_id)[:8], "big") or 1


def _nanoseconds(moment: dt.datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1e9)


class _Ids:
    """An id generator that gives chosen ids, one span at a time; otherwise it is the one it stands on."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self._chosen: tuple[int, int] | None = None

    def choose(self, trace_id: int, span_id: int) -> None:
        self._chosen = (trace_id, span_id)

    def generate_span_id(self) -> int:
        chosen, self._chosen = self._chosen, None
        return chosen[1] if chosen else int(self._below.generate_span_id())

    def generate_trace_id(self) -> int:
        return self._chosen[0] if self._chosen else int(self._below.generate_trace_id())

    def is_trace_id_random(self) -> bool:
        return False


class _OtelPlugin(DurableInstrumentationPlugin):
    def __init__(self, config: OtelPluginConfig | None = None) -> None:
        self.config = config or OtelPluginConfig()
        self._tracer: Tracer | None = None
        self._arn = ""
        self._parent: Any = None
        self._active: list[tuple[Any, Span]] = []

    # --- a factory too: one plugin object per invocation -----------------------------------------------------------

    def _open(self, info: InvocationStartInfo) -> None:
        try:
            from opentelemetry import trace
        except ImportError as exc:
            raise ImportError(_WHAT_FOR) from exc
        self._arn = info.execution_arn
        if self._tracer is None:
            provider = _provider(self.config)
            self._tracer = provider.get_tracer(self.config.instrument_name)
            ids = getattr(self._tracer, "id_generator", None)
            if ids is not None and not isinstance(ids, _Ids):
                self._tracer.id_generator = _Ids(ids)  # type: ignore[attr-defined]
        if self.config.context_extractor is not None:
            self._parent = self.config.context_extractor(info)
        else:
            self._parent = None
        self._trace = trace

    def _context(self, span_id: int) -> Any:
        """An OpenTelemetry context whose current span is the one with that id, whoever wrote it."""
        trace = self._trace
        inherited: SpanContext | None = None
        if self._parent is not None:
            inherited = trace.get_current_span(self._parent).get_span_context()
        trace_id = inherited.trace_id if inherited is not None and inherited.is_valid else trace_id_of(self._arn)
        sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        remote = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=sampled)
        return trace.set_span_in_context(trace.NonRecordingSpan(remote))

    def _span(self, name: str, span_id: int, parent: Any, start: int | None, attributes: dict[str, Any]) -> Span:
        assert self._tracer is not None
        ids = getattr(self._tracer, "id_generator", None)
        if isinstance(ids, _Ids):
            ids.choose(trace_id_of(self._arn), span_id)
        present = {key: value for key, value in attributes.items() if value is not None}
        return self._tracer.start_span(name, context=parent, start_time=start, attributes=present)

    def _root_id(self) -> int:
        raise NotImplementedError

    def _operation_span(self, info: OperationInfo) -> None:
        parent_id = span_id_of(self._arn, info.parent_id) if info.parent_id else self._root_id()
        attributes = {
            "durable.execution.arn": self._arn,
            "durable.operation.id": info.operation_id,
            "durable.operation.type": info.operation_type.value,
            "durable.operation.sub_type": None if info.sub_type is None else str(info.sub_type),
            "durable.operation.name": info.name,
            "durable.operation.status": info.status.value,
            "durable.operation.attempt": info.attempt,
        }
        name = info.name or str(info.sub_type or info.operation_type.value)
        span_id = span_id_of(self._arn, info.operation_id)
        span = self._span(name, span_id, self._context(parent_id), _nanoseconds(info.start_time), attributes)
        _finish(self._trace, span, info.status, info.error, _nanoseconds(info.end_time))

    def on_operation_end(self, info: OperationEndInfo) -> None:
        self._operation_span(info)

    def on_user_function_start(self, info: UserFunctionStartInfo) -> None:
        from opentelemetry import context

        span_context = self._context(span_id_of(self._arn, info.operation_id))
        token = context.attach(span_context)
        self._active.append((token, self._trace.get_current_span(span_context)))

    def on_user_function_end(self, info: UserFunctionEndInfo) -> None:  # noqa: ARG002
        from opentelemetry import context

        if self._active:
            context.detach(self._active.pop()[0])


def _finish(trace: Any, span: Span, status: Status, error: Any, end: int | None) -> None:
    if error is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
        span.set_attribute("error.type", error.type or "unknown")
    elif status is Status.SUCCEEDED:
        span.set_status(trace.Status(trace.StatusCode.OK))
    span.end(end_time=end)


def _provider(config: OtelPluginConfig) -> TracerProvider:
    from opentelemetry import trace

    if config.provider_source is ProviderSource.EXPLICIT:
        assert config.tracer_provider is not None
        return config.tracer_provider
    if config.provider_source is ProviderSource.GLOBAL:
        return trace.get_tracer_provider()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found, unused-ignore]
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise ImportError("AUTO_OTLP needs opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http") from exc
    provider = SdkTracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class ExecutionOtelPlugin(_OtelPlugin):
    """One span for the execution, from its start to its end, whatever invocations it took."""

    def _root_id(self) -> int:
        return span_id_of(self._arn, "execution")

    def create_plugin(self, info: InvocationStartInfo) -> ExecutionOtelPlugin:  # noqa: ARG002
        """A plugin for one invocation."""
        return ExecutionOtelPlugin(self.config)

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        self._open(info)

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        if not info.status.is_terminal:
            return
        attributes = {"durable.execution.arn": self._arn, "durable.execution.status": info.status.value}
        start = _nanoseconds(info.execution_start_time)
        span = self._span(self.config.workflow_span_name, self._root_id(), self._parent, start, attributes)
        _finish(self._trace, span, info.status, info.error, None)


class InvocationOtelPlugin(_OtelPlugin):
    """One span for each invocation."""

    def __init__(self, config: OtelPluginConfig | None = None) -> None:
        super().__init__(config)
        self._span_of_invocation: Span | None = None
        self._invocation_id = 0

    def _root_id(self) -> int:
        return self._invocation_id

    def create_plugin(self, info: InvocationStartInfo) -> InvocationOtelPlugin:  # noqa: ARG002
        """A plugin for one invocation."""
        return InvocationOtelPlugin(self.config)

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        self._open(info)
        self._invocation_id = span_id_of(self._arn, f"invocation {info.request_id}")
        attributes = {
            "durable.execution.arn": self._arn,
            "durable.invocation.id": info.request_id,
            "durable.invocation.first": info.is_first_invocation,
        }
        parent = self._parent or self._context(span_id_of(self._arn, "execution"))
        self._span_of_invocation = self._span("Invocation", self._invocation_id, parent, None, attributes)

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        if self._span_of_invocation is not None:
            self._span_of_invocation.set_attribute("durable.invocation.status", info.status.value)
            _finish(self._trace, self._span_of_invocation, info.status, info.error, None)
            self._span_of_invocation = None


__all__ = [
    "ExecutionOtelPlugin",
    "InvocationOtelPlugin",
    "OtelPluginConfig",
    "ProviderSource",
    "span_id_of",
    "trace_id_of",
]
