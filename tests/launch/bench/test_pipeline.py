"""What `bench pipeline` compares: the same images, by as many passes, nothing decoded before the end."""

from __future__ import annotations

from launch.bench.orders import PipelineOrder
from launch.bench.pipeline import bench_pipeline, table_of


def test_both_draw_the_same_images() -> None:
    result = bench_pipeline(PipelineOrder(images=2, steps=4, rounds=1))
    assert result["largest_difference"] < 1e-3
    assert result["decoded_on_the_way_count"] == 0
    assert result["stock_s_per_image"] > 0
    assert abs(result["overhead_frac"]) < 2
    assert table_of(result).row_count == 3
