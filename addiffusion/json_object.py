"""What ``json.loads`` gives, told apart."""

from __future__ import annotations

from typing import Any, TypeGuard


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a parsed value is a JSON object; its keys are strings then."""
    return isinstance(value, dict)
