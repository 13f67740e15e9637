"""FID, KID and inception score from images against torch-fidelity's own command, with random weights of its format."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from torch_fidelity import FeatureExtractorInceptionV3, calculate_metrics

from addiffusion.errors import EvaluationError, WeightsError
from evaluation.comparison.folders import load_folder
from evaluation.inception import INCEPTION_METRICS, inception_metrics, load_inception
from tests.evaluation.comparison.test_folders import fill
from tests.evaluation.inception_weights import write_inception

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """2049 images at 299 pixels would take the network minutes."""
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    monkeypatch.setattr("evaluation.inception._FEWEST", dict.fromkeys(INCEPTION_METRICS, 2))
    monkeypatch.setattr("evaluation.metrics.frechet.check_count", lambda *facts: None)


@pytest.mark.usefixtures("few_are_enough")
def test_the_figures_are_those_of_torch_fidelity(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = fill(tmp_path / "a", 20, size=48), fill(tmp_path / "b", 9, size=32, seed=1)
    expected = calculate_metrics(
        input1=str(ours), input2=str(theirs), fid=True, kid=True, isc=True, kid_subset_size=9, cuda=False, cache=False,
        save_cpu_ram=True, verbose=False, feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    monkeypatch.setattr("evaluation.inception._AT_ONCE", 8)
    done: list[int] = []
    found = inception_metrics(
        ("kid", "fid", "inception_score"), load_folder(ours).images, load_folder(theirs).images,
        network=load_inception(weights, CPU), advance=done.append,
    )  # fmt: skip
    assert list(found) == ["kid", "fid", "inception_score"]
    assert found["fid"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert found["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert found["inception_score"] == pytest.approx(expected["inception_score_mean"], rel=1e-5)
    assert found["fid"] > 1e-3
    assert done == [8, 8, 4, 8, 1]


def test_sets_that_are_too_small_say_how_many_images_they_lack(weights: Path) -> None:
    few = np.zeros((3, 16, 16, 3), np.uint8)
    measure = partial(inception_metrics, network=load_inception(weights, CPU), advance=lambda count: None)
    with pytest.raises(EvaluationError, match="fid needs at least 2049 images, got 3: give 2046 more"):
        measure(("fid",), few, few)
    with pytest.raises(EvaluationError, match="inception_score needs at least 20 images, got 3"):
        measure(("inception_score",), few, None)
    with pytest.raises(EvaluationError, match="kid needs at least 2 reference images, got 1"):
        measure(("kid",), few, few[:1])


def test_a_file_of_other_weights_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(
        WeightsError, match=r"other\.pth holds no InceptionV3 weights in torch-fidelity's format .*get h"
    ):
        load_inception(other, CPU)
    with pytest.raises(WeightsError, match=r"nowhere\.pth can't be read as a file of tensors"):
        load_inception(tmp_path / "nowhere.pth", CPU)


def test_a_file_of_weights_executes_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="can't be read as a file of tensors"):
        load_inception(tmp_path / "trap.pth", CPU)
    assert not (tmp_path / "executed").exists()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that a server on loopback publishes, and its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_weights_are_fetched_once_and_checked(
    weights: Path,
    published: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, address = published
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr("evaluation.inception.URL_INCEPTION_V3", f"{address}/weights-{digest}.pth")
    file = folder / f"weights-{digest}.pth"
    shutil.copy(weights, file)
    load_inception(None, CPU)
    file.rename(folder / "weights-00000000.pth")
    load_inception(None, CPU)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("evaluation.inception.URL_INCEPTION_V3", f"{address}/weights-00000000.pth")
    with pytest.raises(WeightsError, match=r"can't be fetched \(invalid hash value"):
        load_inception(None, CPU)


def test_without_a_connection_the_option_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("evaluation.inception.URL_INCEPTION_V3", "http://127.0.0.1:9/weights-00000000.pth")
    with pytest.raises(WeightsError, match=r"can't be fetched \(.*refused.*give them with --inception FILE, from http"):
        load_inception(None, CPU)
