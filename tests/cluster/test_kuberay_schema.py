"""The files for Kubernetes against KubeRay's own definitions, of whichever version `KUBERAY_CRDS` has.

KUBERAY_CRDS=kuberay/ray-operator/config/crd/bases uv run pytest tests/cluster/test_kuberay_schema.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cluster.head import ROOT

FOLDER = os.environ.get("KUBERAY_CRDS", "")
FILES = ["cluster/kuberay.yaml", "cluster/kuberay_job.yaml", "cluster/kuberay_serve.yaml"]


def schema_of(kind: str, version: str) -> dict[str, Any]:
    """As the API server applies it: with `kubectl apply`, a field that is not declared is an error."""
    definition = yaml.safe_load(Path(FOLDER, f"ray.io_{kind.lower()}s.yaml").read_text())
    (found,) = [one for one in definition["spec"]["versions"] if one["name"] == version]
    schema = found["schema"]["openAPIV3Schema"]
    close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def close(node: Any) -> None:
    """Forbid what is not declared, and say "a number or a text" as JSON Schema does."""
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        close(inner)
    if isinstance(node, dict) and isinstance(node.get("properties"), dict):
        node.setdefault("additionalProperties", bool(node.get("x-kubernetes-preserve-unknown-fields")))
    if isinstance(node, dict) and node.pop("x-kubernetes-int-or-string", False):
        node.pop("anyOf", None)
        node["type"] = ["integer", "string"]


@pytest.mark.skipif(not FOLDER, reason="KUBERAY_CRDS names no folder with KubeRay's definitions")
@pytest.mark.parametrize("file", FILES)
def test_it_is_what_kuberay_takes(file: str) -> None:
    documents = [
        one for one in yaml.safe_load_all((ROOT / file).read_text()) if one["apiVersion"].startswith("ray.io/")
    ]
    (document,) = documents
    schema = schema_of(document["kind"], document["apiVersion"].partition("/")[2])
    wrong = [
        f"{one.json_path}: {one.message[:200]}" for one in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]
    assert wrong == []
    document["spec"]["rayVersoin"] = "2.60.0"
    assert not jsonschema.Draft202012Validator(schema).is_valid(document), "the definition would let anything through"
