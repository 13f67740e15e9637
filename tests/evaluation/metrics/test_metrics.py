"""Metrics against closed forms and reference formulas; and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from addiffusion.errors import EvaluationError
from evaluation.metrics.cmmd import cmmd
from evaluation.metrics.frechet import frechet_distance, gaussian_distance
from evaluation.metrics.registry import METRICS, MetricInputs, measure
from evaluation.metrics.similarity import cosine_similarity, ssim

RANDOM = np.random.default_rng(0)


def unit_rows(count: int, width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def image_batch(count: int = 3, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_cmmd_of_one_orthogonal_unit_pair() -> None:
    assert cmmd(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == pytest.approx(19.9003325, abs=1e-7)


def test_cmmd_is_the_reference_formula_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = unit_rows(7, 5, 1), unit_rows(9, 5, 2)

    def kernel(left: np.ndarray, right: np.ndarray) -> float:
        return float(np.mean([[np.exp(-np.sum((x - y) ** 2) / 200) for y in right] for x in left]))

    expected = 1000 * (kernel(ours, ours) + kernel(theirs, theirs) - 2 * kernel(ours, theirs))
    assert cmmd(ours, theirs) == pytest.approx(expected, abs=1e-9)
    monkeypatch.setattr("evaluation.metrics.cmmd._BLOCK_ROWS", 2)
    assert cmmd(ours, theirs) == pytest.approx(expected, abs=1e-9)
    assert cmmd(ours, ours) == pytest.approx(0, abs=1e-9)


def test_cmmd_computes_in_double_precision() -> None:
    ours, theirs = (unit_rows(50, 64, seed).astype(np.float32) for seed in (3, 4))
    assert cmmd(ours, theirs) == cmmd(ours.astype(np.float64), theirs.astype(np.float64))


def test_cmmd_refuses_embeddings_that_are_not_normalised() -> None:
    with pytest.raises(EvaluationError, match="lengths from 2 to 2"):
        cmmd(2 * unit_rows(3, 4, 0), unit_rows(3, 4, 1))


def test_fid_of_gaussians_whose_distance_is_known() -> None:
    mean, other_mean = np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0])
    covariance, other = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 4.0, 1.0])
    distance = gaussian_distance(mean, covariance, other_mean=other_mean, other_covariance=other)
    assert distance == pytest.approx(14 + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 1) ** 2)  # sum of (sigma - sigma')^2


def test_fid_is_the_reference_formula() -> None:
    mixing = RANDOM.normal(size=(6, 6))
    ours, theirs = RANDOM.normal(size=(40, 6)) @ mixing + 0.3, RANDOM.normal(size=(50, 6))
    a, b = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    offset = ours.mean(axis=0) - theirs.mean(axis=0)
    expected = offset @ offset + np.trace(a + b - 2 * np.real(linalg.sqrtm(a @ b)))
    assert frechet_distance("fid", ours, theirs) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance("fid", ours, ours) == pytest.approx(0, abs=1e-9)
    assert frechet_distance("fid", ours, theirs) == pytest.approx(frechet_distance("fid", theirs, ours), rel=1e-8)


def test_fid_of_one_feature() -> None:
    ours, theirs = np.array([[0.0], [2.0]]), np.array([[5.0], [7.0]])
    assert frechet_distance("fid", ours, theirs) == pytest.approx(25)


def test_fid_says_how_many_images_it_needs() -> None:
    few, many = RANDOM.normal(size=(100, 128)), RANDOM.normal(size=(200, 128))
    with pytest.raises(EvaluationError, match="at least 129 images for features of width 128, got 100: give 29 more"):
        frechet_distance("fid", few, many)
    with pytest.raises(EvaluationError, match="at least 129 reference images"):
        frechet_distance("fid", many, few)


def test_ssim_of_flat_images_is_its_luminance_term() -> None:
    dark, light = np.full((1, 16, 16, 3), 51, np.uint8), np.full((1, 16, 16, 3), 204, np.uint8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert ssim(dark, light) == pytest.approx([expected])


def test_ssim_is_the_windowed_formula() -> None:
    image, other = image_batch(1, 12, 1), image_batch(1, 12, 2)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    values = []
    for row in range(2):
        for column in range(2):
            x, y = (batch[0, row : row + 11, column : column + 11] / 255 for batch in (image, other))
            mx, my = (window * x).sum((0, 1)), (window * y).sum((0, 1))
            vx, vy = (window * (x - mx) ** 2).sum((0, 1)), (window * (y - my) ** 2).sum((0, 1))
            cov = (window * (x - mx) * (y - my)).sum((0, 1))
            values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert ssim(image, other) == pytest.approx([np.mean(values)])


def test_an_image_is_like_itself() -> None:
    assert ssim(image_batch(), image_batch()) == pytest.approx([1, 1, 1])
    features = unit_rows(4, 6, 1)
    assert cosine_similarity(features, 3 * features) == pytest.approx([1, 1, 1, 1])
    assert cosine_similarity(features, -features) == pytest.approx([-1, -1, -1, -1])


def test_ssim_names_what_does_not_fit() -> None:
    with pytest.raises(EvaluationError, match="got 3 images and 2 to compare them with"):
        ssim(image_batch(3), image_batch(2))
    with pytest.raises(EvaluationError, match=r"\(16, 16\) pixels .* \(12, 12\)"):
        ssim(image_batch(), image_batch(side=12))
    with pytest.raises(EvaluationError, match="float64"):
        ssim(image_batch() / 255, image_batch())
    with pytest.raises(EvaluationError, match="at least 11 x 11 pixels, got 8 x 8"):
        ssim(image_batch(side=8), image_batch(side=8))


def test_features_that_do_not_fit_are_refused() -> None:
    rows = unit_rows(4, 6, 1)
    with pytest.raises(EvaluationError, match="got 4 images and 3 to compare them with"):
        cosine_similarity(rows, rows[:3])
    with pytest.raises(EvaluationError, match="6 wide and reference features 5"):
        cosine_similarity(rows, rows[:, :5])
    with pytest.raises(EvaluationError, match="1 of 4 pairs have features that are all zeros"):
        cosine_similarity(rows * [[0], [1], [1], [1]], rows)
    with pytest.raises(EvaluationError, match="1 of 4 rows of features are not finite"):
        cosine_similarity(rows * [[np.nan], [1], [1], [1]], rows)
    with pytest.raises(EvaluationError, match=r"got \(0, 6\)"):
        cmmd(rows[:0], rows)


def test_metrics_by_name() -> None:
    inputs = MetricInputs(
        images=image_batch(),
        full_images=image_batch(seed=1),
        dino=unit_rows(3, 2, 1),
        full_dino=unit_rows(3, 2, 2),
        clip=unit_rows(3, 8, 1),
        reference_clip=unit_rows(5, 8, 2),
    )
    found = measure(tuple(METRICS), inputs)
    assert list(found) == list(METRICS)
    per_image = found["ssim"].per_image
    assert per_image is not None
    assert found["ssim"].value == pytest.approx(per_image.mean())
    assert {name for name, metric in METRICS.items() if not metric.higher_is_better} == {"cmmd", "fd_dino"}


def test_an_unknown_metric_lists_the_known_ones_before_anything_is_computed() -> None:
    with pytest.raises(EvaluationError, match="'psnr': choose from cmmd, dino_similarity, fd_dino, ssim"):
        measure(["ssim", "psnr"], MetricInputs(images=image_batch(), full_images=image_batch()))


def test_missing_material_is_named() -> None:
    with pytest.raises(EvaluationError, match="ssim can't be computed without images and full_images"):
        measure(["ssim"], MetricInputs())


def test_frechet_distance_equals_the_reference_libraries() -> None:
    """Golden number of clean-fid 0.1.35 and torch-fidelity 0.3.0 on these very arrays.

    cleanfid.fid.frechet_distance(mean, cov, mean, cov); torch_fidelity.metric_fid.fid_statistics_to_metric of
    fid_features_to_statistics.
    """
    draws = np.random.default_rng(0)
    ours, theirs = draws.normal(0, 1, (60, 6)), draws.normal(0.3, 1.2, (50, 6))
    assert frechet_distance("fid", ours, theirs) == pytest.approx(1.5096206551289661, rel=1e-9)
