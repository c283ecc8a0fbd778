"""Messages to notebook outputs, as a front end does it: merged streams, display updates, `clear_output`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def stream_text(outputs: Sequence[dict[str, Any]], name: str) -> str:
    """All text of one stream."""
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == name)


class OutputArea:
    """The outputs of one cell. `displays` is shared by all cells: an update may come from a later one."""

    def __init__(self, displays: dict[str, list[dict[str, Any]]]) -> None:
        self.outputs: list[dict[str, Any]] = []
        self._displays = displays
        self._clear_before_next = False

    def take(self, msg: dict[str, Any]) -> bool:
        """Apply a message; False when it is none of an output area's."""
        handler = getattr(self, f"_{msg['header']['msg_type']}", None)
        if handler is None:
            return False
        handler(msg["content"])
        return True

    def _add(self, output: dict[str, Any], content: dict[str, Any] | None = None) -> None:
        if self._clear_before_next:
            self.outputs.clear()
            self._clear_before_next = False
        self.outputs.append(output)
        display_id = ((content or {}).get("transient") or {}).get("display_id")
        if display_id is not None:
            self._displays.setdefault(display_id, []).append(output)

    def _stream(self, content: dict[str, Any]) -> None:
        last = self.outputs[-1] if self.outputs and not self._clear_before_next else None
        if last is not None and last["output_type"] == "stream" and last["name"] == content["name"]:
            last["text"] += content["text"]
        else:
            self._add({"output_type": "stream", "name": content["name"], "text": content["text"]})

    def _display_data(self, content: dict[str, Any]) -> None:
        output = {"output_type": "display_data", "data": content["data"], "metadata": content["metadata"]}
        self._add(output, content)

    def _execute_result(self, content: dict[str, Any]) -> None:
        self._add(
            {"output_type": "execute_result", **{k: content[k] for k in ("data", "metadata", "execution_count")}},
            content,
        )

    def _error(self, content: dict[str, Any]) -> None:
        self._add({"output_type": "error", **{k: content[k] for k in ("ename", "evalue", "traceback")}})

    def _clear_output(self, content: dict[str, Any]) -> None:
        if content.get("wait"):
            self._clear_before_next = True
        else:
            self.outputs.clear()

    def _update_display_data(self, content: dict[str, Any]) -> None:
        for output in self._displays.get(content["transient"]["display_id"], []):
            output["data"], output["metadata"] = content["data"], content["metadata"]
