"""One head for all tests of this package that submit jobs: it takes many seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.head import Head, running_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with running_head(num_cpus=8, resources='{"rollout": 2, "reward": 1}') as head:
        yield head
