"""What a cell shows: recorded while it streams, and given back in its final state.

One tee on `kernel.session.send` sees every message: from the main thread, from user threads, from subprocesses. A
message belongs to the cell whose request is its parent. What is kept is the *final state*: `clear_output` and display
updates are applied when they arrive, neighbouring texts of one stream are one text, and a carriage return overwrites
its line. So a replay does not flicker, and the store does not grow with a progress bar.

Widgets are kept as they last looked: the state of every model travels over the same socket. On replay the models are
opened again with that state and nobody behind them: a picture that cannot act.
"""

from __future__ import annotations

import copy
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from durable_nb.notebook import _pipes

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_SHOWN = frozenset({"stream", "display_data", "update_display_data", "execute_result", "clear_output"})
_KEPT = _SHOWN | {"comm_open", "comm_msg"}
_SEEN = _KEPT | {"error"}
_DROPPED = "\n[durable_nb: output above the limit of {limit} bytes was not kept]\n"

Message = dict[str, Any]
Send = Callable[..., Any]


def overwrite_lines(text: str) -> str:
    """The text as a terminal shows it: what follows a carriage return overwrites the line from its start."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\0").split("\n")  # a line end of a subprocess is no overwriting
    for number, line in enumerate(lines):
        if "\r" in line:
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines[number] = shown
    return "\n".join(lines).replace("\0", "\r\n")


class Outputs:
    """The outputs of one cell, in order, in their final state.

    Not thread-safe: the tee holds a lock around it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._clear_next = False
        self.items: list[Message] = []
        self.truncated = False
        self.cleared = False
        """The cell itself took its outputs away, and whatever stood above them."""

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Apply one message."""
        if kind == "clear_output":
            self.cleared = True
            if content.get("wait"):
                self._clear_next = True
            else:
                self.clear()
            return
        if kind == "update_display_data":
            self._update(content)
            return
        if self._clear_next:
            self.clear()
        if kind == "stream":
            self._stream(content["name"], content["text"])
        elif self._fits(content):
            kept = {key: copy.deepcopy(content[key]) for key in ("data", "metadata", "transient") if key in content}
            self.items.append({"type": kind, **kept})

    def clear(self) -> None:
        """Forget what was shown; updates of other cells' displays stay."""
        self.items = [item for item in self.items if item["type"] == "update_display_data"]
        self._size, self._clear_next, self.truncated = 0, False, False

    def _stream(self, name: str, text: str) -> None:
        last = self.items[-1] if self.items else None
        if last is None or last["type"] != "stream" or last["name"] != name:
            last = {"type": "stream", "name": name, "text": ""}
            self.items.append(last)
        if self.truncated:
            return
        before = len(last["text"])
        joined = last["text"] + text
        if "\r" in joined and not joined.endswith("\r"):
            joined = overwrite_lines(joined)
        room = self._limit - self._size
        if len(joined) - before > room:
            joined = joined[: before + max(room, 0)] + _DROPPED.format(limit=self._limit)
            self.truncated = True
        last["text"] = joined
        self._size += len(joined) - before

    def _fits(self, content: Mapping[str, Any]) -> bool:
        size = sum(len(value) for value in content.get("data", {}).values() if isinstance(value, str))
        if self._size + size > self._limit:
            if not self.truncated:
                self._stream("stderr", _DROPPED.format(limit=self._limit))
            self.truncated = True
            return False
        self._size += size
        return True

    def _update(self, content: Mapping[str, Any]) -> None:
        display_id = content.get("transient", {}).get("display_id")
        found = False
        for item in self.items:
            if item.get("transient", {}).get("display_id") == display_id:
                item["data"] = copy.deepcopy(content["data"])
                item["metadata"] = copy.deepcopy(content.get("metadata", {}))
                found = True
        if not found:  # a display of an earlier cell
            self.items.append(
                {
                    "type": "update_display_data",
                    "data": copy.deepcopy(content["data"]),
                    "metadata": copy.deepcopy(content.get("metadata", {})),
                    "transient": {"display_id": display_id},
                }
            )

    def finished(self) -> list[Message]:
        """The items, with empty streams and a hanging carriage return resolved."""
        for item in self.items:
            if item["type"] == "stream":
                item["text"] = overwrite_lines(item["text"])
        return [item for item in self.items if item["type"] != "stream" or item["text"]]


class WidgetStates:
    """The last known state of every widget model of this kernel, from the messages that front ends get."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, Any]] = {}

    def opened(self, content: Mapping[str, Any], metadata: Mapping[str, Any], buffers: list[Any]) -> None:
        if content.get("target_name") != "jupyter.widget":
            return
        data = content.get("data", {})
        self._models[content["comm_id"]] = {
            "state": copy.deepcopy(data.get("state", {})),
            "version": (metadata or {}).get("version", "2.1.0"),
            "opaque": bool(buffers),
        }

    def changed(self, content: Mapping[str, Any], buffers: list[Any]) -> None:
        model = self._models.get(content.get("comm_id", ""))
        data = content.get("data", {})
        if model is not None and data.get("method") in ("update", "echo_update"):
            model["state"].update(copy.deepcopy(data.get("state", {})))
            model["opaque"] = model["opaque"] or bool(buffers)

    def forget(self, *keys: str) -> None:
        """These models are closed, and in no output that is kept."""
        for key in keys:
            self._models.pop(key, None)

    def reachable(self, items: list[Message]) -> dict[str, dict[str, Any]]:
        """The models that the outputs show, and the models these refer to."""
        found: dict[str, dict[str, Any]] = {}
        todo = [item["data"][WIDGET_VIEW].get("model_id") for item in items if WIDGET_VIEW in item.get("data", {})]
        while todo:
            key = todo.pop()
            if key in self._models and key not in found:
                found[key] = copy.deepcopy(self._models[key])
                todo.extend(_references(found[key]["state"]))
        return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.startswith("IPY_MODEL_"):
            yield value[len("IPY_MODEL_") :]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


class Tee:
    """Sees every message the kernel sends, and keeps those of the cell that is being recorded."""

    def __init__(self, kernel: Any, limit: int) -> None:
        self._kernel, self._limit = kernel, limit
        self._lock = threading.RLock()
        self._original: Send = kernel.session.send
        self._outputs: Outputs | None = None
        self._parent: str | None = None
        self._muted = False
        self.cleared = False
        """Whether the cell that was recorded last took its outputs away itself."""
        self.last_sent = 0.0
        """When the last output was handed to the socket (of `time.perf_counter`)."""
        self._held: list[tuple[Any, Message, tuple[Any, ...], dict[str, Any]]] | None = None
        self.widgets = WidgetStates()
        _pipes.watch(sys.stdout, sys.stderr)
        kernel.session.send = self._send

    def remove(self) -> None:
        """Put the kernel's own `send` back."""
        self._kernel.session.send = self._original

    def _send(self, stream: Any, msg_or_type: Any, *args: Any, **keywords: Any) -> Any:
        held = self._held_back(stream, msg_or_type, args, keywords)
        message = self._original(stream, msg_or_type, *args, **keywords) if held is None else held
        if isinstance(message, dict):
            kind = message.get("msg_type") or message.get("header", {}).get("msg_type")
            if kind in _SEEN:
                self.last_sent = time.perf_counter()
                if kind in _KEPT and not self._muted:
                    with self._lock:
                        self._keep(kind, message, keywords.get("buffers") or [])
        return message

    def _held_back(self, stream: Any, msg_or_type: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The message, when it is held back; None when it is to be sent."""
        if self._held is None or self._muted or not isinstance(msg_or_type, dict):
            return None  # the messages of streams and displays come ready made
        if msg_or_type.get("msg_type") not in _SHOWN:
            return None
        with self._lock:
            if msg_or_type.get("parent_header", {}).get("msg_id") != self._parent:
                return None
            self._held.append((stream, msg_or_type, args, keywords))
        return msg_or_type

    def hold(self) -> None:
        """Hold the cell's outputs back until it is known whether they stay."""
        self._held = []

    def release(self) -> None:
        """Send what was held back, in order; nothing is held any more."""
        if self._held is None:
            return
        flush()
        with self._lock:
            held, self._held = self._held, None
        for stream, message, args, keywords in held:
            self._original(stream, message, *args, **keywords)
        self.last_sent = time.perf_counter()

    def drop(self) -> None:
        """Forget what was held back, and what was recorded of it: the attempt is made again."""
        flush()
        with self._lock:
            self._held = []
            if self._outputs is not None:
                self._outputs.clear()
                self._outputs.cleared = False

    @property
    def is_holding(self) -> bool:
        """Whether outputs are held back."""
        return self._held is not None

    def _keep(self, kind: str, message: Mapping[str, Any], buffers: list[Any]) -> None:
        content = message["content"]
        if kind == "comm_open":
            self.widgets.opened(content, message.get("metadata", {}), buffers)
        elif kind == "comm_msg":
            self.widgets.changed(content, buffers)
        elif self._outputs is not None and message.get("parent_header", {}).get("msg_id") == self._parent:
            self._outputs.add(kind, content)

    def begin(self, parent: str | None) -> None:
        """Record the messages whose parent is this request."""
        with self._lock:
            self._outputs, self._parent = Outputs(self._limit), parent

    def end(self) -> tuple[list[Message], dict[str, dict[str, Any]]]:
        """Stop recording: the outputs, and the widget models they show."""
        self.release()
        flush()
        with self._lock:
            outputs, self._outputs = self._outputs, None
            if outputs is None:
                return [], {}
            items = outputs.finished()
            self.cleared = outputs.cleared
            return items, self.widgets.reachable(items)

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Messages of this thread's replay are not recorded."""
        self._muted = True
        try:
            yield
        finally:
            self._muted = False

    # --- giving back -------------------------------------------------------------------------------------------------

    def replay(self, items: list[Message], models: Mapping[str, Mapping[str, Any]], parent: Any, count: int) -> None:
        """Send the recorded outputs as if the cell had shown them; `count` is the prompt number of its result."""
        with self.muted():
            for key, model in _in_opening_order(models):
                self._open_model(key, model, parent)
            for item in items:
                self._publish(dict(item), parent, count)

    def _open_model(self, key: str, model: Mapping[str, Any], parent: Any) -> None:
        content = {
            "comm_id": key,
            "target_name": "jupyter.widget",
            "target_module": None,
            "data": {"state": model["state"], "buffer_paths": []},
        }
        self._emit("comm_open", content, parent, metadata={"version": model["version"]}, topic=f"comm-{key}")

    def _publish(self, item: Message, parent: Any, count: int) -> None:
        kind = item.pop("type")
        if kind == "execute_result":
            item["execution_count"] = count
        self._emit(kind, item, parent, topic="stream." + item["name"] if kind == "stream" else kind)

    def _emit(
        self,
        kind: str,
        content: Mapping[str, Any],
        parent: Any,
        *,
        topic: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        kernel = self._kernel
        kernel.session.send(
            kernel.iopub_socket,
            kind,
            dict(content),
            parent=parent,
            ident=kernel.topic(topic) if hasattr(kernel, "topic") else topic.encode(),
            metadata=dict(metadata) if metadata else None,
        )

    def publish(self, kind: str, content: Mapping[str, Any], parent: Any) -> None:
        """Send an output of the cell's own that was made elsewhere: recorded, or held back, like any other."""
        flush()
        kernel = self._kernel
        message = kernel.session.msg(kind, dict(content), parent=parent)
        ident = kernel.topic(kind) if hasattr(kernel, "topic") else kind.encode()
        kernel.session.send(kernel.iopub_socket, message, ident=ident)

    def show(self, kind: str, content: Mapping[str, Any], parent: Any, *, recorded: bool = False) -> None:
        """Send an output of our own, from any thread: shown in the cell, and no part of what is recorded unless asked.

        What is recorded has no display id: nothing that is given back is updated.
        """
        kernel = self._kernel
        if kind == "display_data":
            flush()  # what was printed before stands above
        if recorded:
            with self._lock:
                if self._outputs is not None and parent.get("header", {}).get("msg_id") == self._parent:
                    self._outputs.add(kind, {"data": content["data"], "metadata": content["metadata"]})
        ident = kernel.topic(kind) if hasattr(kernel, "topic") else kind.encode()
        self._original(kernel.iopub_socket, kind, dict(content), parent=parent, ident=ident)
        self.last_sent = time.perf_counter()

    def clear(self, parent: Any) -> None:
        """Take the shown outputs away, here and in the front end (a failed attempt's, before the next one)."""
        flush()
        with self._lock:
            if self._outputs is not None:
                self._outputs.clear()
                self._outputs.cleared = False
        with self.muted():
            self._emit("clear_output", {"wait": True}, parent, topic="clear_output")


def flush() -> None:
    """Wait until the thread that sends streams has sent what was printed, by children and C code too."""
    _pipes.drain()
    out: Any = sys.stdout
    err: Any = sys.stderr
    sender: Any = getattr(out, "pub_thread", None)
    both = sender is not None and sender is getattr(err, "pub_thread", None)
    if both and sender.thread is not threading.current_thread():
        sender.schedule(out._flush)  # one wait for both streams
    else:
        out.flush()
    err.flush()


def _in_opening_order(models: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Models after the models they refer to: a front end resolves references when a model opens."""
    done: set[str] = set()

    def visit(key: str, above: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if key in done or key in above or key not in models:
            return
        for reference in _references(models[key]["state"]):
            yield from visit(reference, (*above, key))
        done.add(key)
        yield key, models[key]

    for key in models:
        yield from visit(key, ())
