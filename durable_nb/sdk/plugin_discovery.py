"""Plugins that are configured from outside: entry points, chosen by name in the environment.

A distribution offers a plugin factory as an entry point of the group `durable_nb.plugins`; `DURABLE_EXECUTION_PLUGINS`
names, separated by commas, those that every handler of the process uses. A name that is not there is an error: whoever
asked for instrumentation must not run without it in silence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from durable_nb.exceptions import PluginLoadError
from durable_nb.sdk.plugin import DurableInstrumentationPlugin, Plugin

PLUGIN_ENTRY_POINT_GROUP = "durable_nb.plugins"
PLUGIN_ENVIRONMENT_VARIABLE = "DURABLE_EXECUTION_PLUGINS"


def load_configured_plugins(
    explicit_plugins: Sequence[Plugin] | None, *, environment: Mapping[str, str] | None = None
) -> list[Plugin]:
    """The plugins given in code, then those named in the environment.

    Raises:
        PluginLoadError: a name is unknown, ambiguous, or what it names is no plugin.
    """
    plugins = list(explicit_plugins or ())
    for plugin in plugins:
        _check(plugin, "a plugin given in code")
    text = (os.environ if environment is None else environment).get(PLUGIN_ENVIRONMENT_VARIABLE, "")
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(set(names)) != len(names):
        raise PluginLoadError(f"{PLUGIN_ENVIRONMENT_VARIABLE} names a plugin twice: {text}")
    offered = metadata.entry_points(group=PLUGIN_ENTRY_POINT_GROUP) if names else ()
    return [*plugins, *(_load(name, [one for one in offered if one.name == name]) for name in names)]


def _load(name: str, found: Sequence[metadata.EntryPoint]) -> Plugin:
    if not found:
        raise PluginLoadError(f"there is no plugin {name!r} among the entry points of {PLUGIN_ENTRY_POINT_GROUP}")
    if len(found) > 1:
        raise PluginLoadError(f"several distributions offer a plugin {name!r}")
    try:
        loaded: Any = found[0].load()
        plugin = loaded() if isinstance(loaded, type) else loaded
    except Exception as exc:
        raise PluginLoadError(f"the plugin {name!r} cannot be loaded: {exc}") from exc
    return _check(plugin, f"the plugin {name!r}")


def _check(plugin: Any, what: str) -> Plugin:
    if isinstance(plugin, DurableInstrumentationPlugin) or callable(getattr(plugin, "create_plugin", None)):
        checked: Plugin = plugin
        return checked
    raise PluginLoadError(f"{what} is neither a plugin nor a factory: it is a {type(plugin).__name__}")


__all__ = ["PLUGIN_ENTRY_POINT_GROUP", "PLUGIN_ENVIRONMENT_VARIABLE", "load_configured_plugins"]
