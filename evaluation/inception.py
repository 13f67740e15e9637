"""FID, KID and inception score of images, by torch-fidelity's InceptionV3: the network and resizing of the papers.

Sources: Heusel et al., arXiv:1706.08500 (FID); Bińkowski et al., arXiv:1801.01401 (KID); Salimans et al.,
arXiv:1606.03498 (inception score).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase as InceptionNetwork
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.utils import create_feature_extractor

from addiffusion.errors import EvaluationError, WeightsError
from addiffusion.weights import LOAD_FAILURES, gist, read_tensors
from evaluation.metrics.frechet import frechet_distance
from evaluation.metrics.samples import check_count

INCEPTION_METRICS: Final = ("fid", "inception_score", "kid")
NEED_REFERENCE: Final = frozenset({"fid", "kid"})
POOL_WIDTH: Final = 2048
_LAYERS: Final = ("2048", "logits_unbiased")
_FEWEST: Final[Mapping[str, int]] = MappingProxyType({"fid": POOL_WIDTH + 1, "inception_score": 20, "kid": 2})
"""Images per set: more than features are wide, two per split, and enough for an unbiased estimate."""
_KID_SUBSET: Final = 1000
_AT_ONCE: Final = 32
_SILENCE_S: Final = 60.0
"""Longest silence of the server that has the weights."""
_ADVICE: Final = f"get {URL_INCEPTION_V3}"

Images = NDArray[np.uint8]


def check_inception_counts(names: Sequence[str], count: int, reference_count: int | None) -> None:
    """Refuse sets that are too small for one of the metrics, before anything is computed.

    Raises:
        EvaluationError: naming the metric and how many images it needs.
    """
    for name in names:
        check_count(name, "images", count, _FEWEST[name])
        if name in NEED_REFERENCE:
            check_count(name, "reference images", reference_count or 0, _FEWEST[name])


def inception_metrics(
    names: Sequence[str],
    images: Images,
    reference: Images | None,
    *,
    network: InceptionNetwork,
    advance: Callable[[int], None],
) -> dict[str, float]:
    """The metrics called ``names``.

    Args:
        names: of INCEPTION_METRICS.
        images: (n, H, W, 3), any size.
        reference: (m, H', W', 3), a set to compare with; None where no metric needs one.
        network: of ``load_inception``.
        advance: told how many images more are done.

    Raises:
        EvaluationError: sets that are too small.
    """
    check_inception_counts(names, len(images), None if reference is None else len(reference))
    pool, logits = _features(network, images, advance)
    found: dict[str, float] = {}
    if "inception_score" in names:
        found["inception_score"] = isc_features_to_metric(logits)[KEY_METRIC_ISC_MEAN]
    if reference is not None and NEED_REFERENCE & set(names):
        other, _ = _features(network, reference, advance)
        if "fid" in names:
            found["fid"] = frechet_distance("fid", pool.numpy(), other.numpy())
        if "kid" in names:
            found["kid"] = _kid(pool, other)
    return {name: found[name] for name in names}


def _kid(pool: Tensor, other: Tensor) -> float:
    size = min(_KID_SUBSET, len(pool), len(other))
    return kid_features_to_metric(pool, other, kid_subset_size=size, verbose=False)[KEY_METRIC_KID_MEAN]


def load_inception(path: Path | None, device: torch.device) -> InceptionNetwork:
    """torch-fidelity's InceptionV3 with the weights in ``path``; None: with those it publishes, fetched once.

    Raises:
        WeightsError: weights that can't be fetched, a file that can't be read, or one of another network.
    """
    path = _fetched_weights() if path is None else path
    read_tensors(path, advice=_ADVICE)  # the library itself would execute what a file says
    try:
        network = create_feature_extractor(
            "inception-v3-compat", list(_LAYERS), cuda=False, feature_extractor_weights_path=str(path), verbose=False
        )
    except LOAD_FAILURES as error:
        raise WeightsError(
            f"{path} holds no InceptionV3 weights in torch-fidelity's format ({gist(error)}): {_ADVICE}.",
            path=str(path),
        ) from error
    return network.to(device)


def _fetched_weights() -> Path:
    """torch-fidelity's weights (95 MB) in torch's folder of downloads."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / URL_INCEPTION_V3.rpartition("/")[2]
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _longest_silence(_SILENCE_S):
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=sys.stderr.isatty()
            )
    except (OSError, RuntimeError, HTTPException) as error:
        raise WeightsError(
            f"The weights of InceptionV3 can't be fetched ({gist(error)}): give them with --inception FILE, from "
            f"{URL_INCEPTION_V3}.",
            url=URL_INCEPTION_V3,
        ) from error
    return path


@contextmanager
def _longest_silence(seconds: float) -> Generator[None]:
    """A timeout for connections that are given none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@torch.no_grad()
def _features(network: InceptionNetwork, images: Images, advance: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """Pool features (n, 2048) and logits (n, 1008) without bias, in float32 on the CPU."""
    device = next(network.buffers()).device
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(images), _AT_ONCE):
        some = torch.from_numpy(images[start : start + _AT_ONCE]).permute(0, 3, 1, 2)
        parts.append(tuple(layer.cpu() for layer in network(some.to(device))))
        advance(len(some))
    pool, logits = (torch.cat(layers) for layers in zip(*parts, strict=True))
    if not torch.isfinite(pool).all():
        raise EvaluationError("InceptionV3 gives features that are not finite: check the file of its weights.")
    return pool, logits
