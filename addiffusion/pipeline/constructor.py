"""The constructor of a family's pipeline, with a policy as one more component."""

from __future__ import annotations

import inspect
from typing import Any

from addiffusion.pipeline.policy import Policy
from addiffusion.pipeline.run import Remembered


def with_policy(family: Any) -> Any:
    """A family's constructor that takes a policy too."""
    own = inspect.signature(family.__init__)

    def __init__(self: Any, *components: Any, policy: Policy | None = None, **named: Any) -> None:  # noqa: N807
        family.__init__(self, *components, **named)
        self.register_modules(policy=policy)
        self.remembered = Remembered()

    made: Any = __init__
    added = inspect.Parameter("policy", inspect.Parameter.KEYWORD_ONLY, default=None)
    made.__signature__ = own.replace(parameters=[*own.parameters.values(), added])
    made.__annotations__ = dict(family.__init__.__annotations__)
    return made
