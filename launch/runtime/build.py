"""Puts the components of a run together in one of two ways: in this process, or as Ray actors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from addiffusion.config import Config
from launch.runtime.components import Components


def build_components(config: Config) -> AbstractContextManager[Components]:
    """The roles as ``cluster.mode`` wants them; they end with the block.

    Raises:
        ClusterError: Ray can't be started or joined, or its actors can't.
        WeightsError: a model can't be loaded.
    """
    if config.cluster.mode == "serial":
        from launch.runtime.serial import serial_components  # noqa: PLC0415 - loads the models' libraries

        return serial_components(config)
    return _ray_components(config)


@contextmanager
def _ray_components(config: Config) -> Iterator[Components]:
    from launch.runtime.cluster import ray_running  # noqa: PLC0415 - a serial run never touches Ray's side

    with ray_running(config) as reports:
        from launch.runtime.distributed import distributed_components  # noqa: PLC0415 - imports Ray, whose environment is set now

        reports.take_over()
        with distributed_components(config) as components:
            yield replace(components, keep_reports=reports.keep_in)
