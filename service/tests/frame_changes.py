"""Reads the stream of the dashboard, as its page does."""

from typing import Any


def applied(old: Any, change: Any) -> Any:
    """As the page does it, in changes.js."""
    if isinstance(old, list) and isinstance(change, dict):
        if "drop" in change:
            return old[change["drop"] :] + change["add"]
        return [
            applied(item, change["at"][str(n)]) if str(n) in change["at"] else item
            for n, item in enumerate(old)
        ]
    if isinstance(old, dict) and isinstance(change, dict):
        changed = {
            name: applied(old[name], value) if name in old else value
            for name, value in change.items()
        }
        return {**old, **changed}
    return change
