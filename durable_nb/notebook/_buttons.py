"""Presses of buttons, noticed while a cell runs.

A press is a comm message, and comm messages wait behind the running cell. ipykernel receives them in a thread of its
own, the shell channel thread, and hands them on from there: that is where they are looked at. Nothing slow happens in
it: a press sets an event, sends a signal, or is handed to another thread.

The message goes its ordinary way as well, and arrives after the cell at a widget that has no handler for it. So a press
acts once, here. Front ends need nothing for this; it works in kernels with and without subshells.

`Buttons` also knows which comms are ours: their messages are no code of the user's that ran beside a cell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

Press = Callable[[Mapping[str, Any]], None]

_CONTROL = "jupyter.widget.control"
"""The channel on which a front end asks for the state of all widgets; it runs none of the user's callbacks."""
TARGET = "durable_nb"
"""The name of the channel that a page's badges use."""

_PATIENCE = 2.0
"""Seconds. The thread only hands messages on; were it busy all the same, a press would come through a little later."""


class Buttons:
    """Who listens to which comm, for one kernel."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._listeners: dict[str, Press] = {}
        self._ours: set[str] = set()
        self._watching = False

    def listen(self, comm_id: str, press: Press) -> None:
        """Call `press` with the content of each custom message of this comm, in the channel thread."""
        self._listeners[comm_id] = press
        self._ours.add(comm_id)
        self._watch()

    def forget(self, comm_id: str) -> None:
        """Stop listening. The comm stays known as ours: a message may still be on its way."""
        self._listeners.pop(comm_id, None)

    def is_ours(self, message: Any) -> bool:
        """Whether a comm message concerns only what durable_nb shows."""
        content = message.get("content", {}) if isinstance(message, dict) else {}
        comm_id = str(content.get("comm_id"))
        if content.get("target_name") in (_CONTROL, TARGET):
            self._ours.add(comm_id)
        return comm_id in self._ours

    def _watch(self) -> None:
        thread = getattr(self._kernel, "shell_channel_thread", None)
        loop = getattr(thread, "io_loop", None)
        if self._watching or loop is None:
            return  # a kernel without that thread has no channels either
        self._watching = True
        ready = threading.Event()

        def take_over() -> None:
            self._kernel.shell_stream.on_recv(self._on_message, copy=False)
            ready.set()

        loop.add_callback(take_over)
        ready.wait(_PATIENCE)  # once per kernel, for the time of one turn of that thread's loop

    async def _on_message(self, frames: Any) -> None:
        kernel = self._kernel
        try:
            self._look(kernel.session, frames)
        except Exception:  # noqa: BLE001 - a malformed message is the kernel's to complain about, just below
            kernel.log.debug("durable_nb could not read a message", exc_info=True)
        await kernel.shell_channel_thread_main(frames)

    def _look(self, session: Any, frames: Any) -> None:
        _, rest = session.feed_identities(frames, copy=False)
        # Only the header: reading the content here would use the signature up, and the kernel would refuse the message.
        head = session.deserialize(rest, content=False, copy=False)
        if head["msg_type"] == "comm_msg":
            self.take(session.unpack(head["content"]))

    def take(self, content: Mapping[str, Any]) -> None:
        """Hand a comm message to whoever listens."""
        press = self._listeners.get(content.get("comm_id", ""))
        data = content.get("data", {})
        if press is None:
            return
        if data.get("method") == "custom":  # a widget's
            press(data.get("content") or {})
        elif "method" not in data:
            press(data)

    def remove(self) -> None:
        """Give the thread its own callback back."""
        self._listeners.clear()
        if self._watching:
            self._watching = False
            kernel = self._kernel
            kernel.shell_channel_thread.io_loop.add_callback(
                lambda: kernel.shell_stream.on_recv(kernel.shell_channel_thread_main, copy=False)
            )
