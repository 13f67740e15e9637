"""Things as they lie on people's disks: generators of good, odd and damaged values, texts and files."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.numpy import load, save

from addiffusion.config import Config

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_LAYER = "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_q"
LORA = save(
    {f"{_LAYER}.lora_A.weight": np.ones((2, 8), np.float32), f"{_LAYER}.lora_B.weight": np.ones((8, 2), np.float32)}
)
"""Of the tiny model."""
LINES = st.text(st.characters(codec="utf-8"), max_size=40) | st.just("a red circle")


def keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the configuration, sections included."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")


KEYS = st.sampled_from(sorted(keys())) | st.text(max_size=12)
VALUES = (
    st.sampled_from(
        ["", "null", "true", "off", "-1", "0", "1e400", "nan", "~", "~nosuchuser/x", "9" * 5000, "[" * 3000]
    )
    | st.text(max_size=30)
    | JSON.map(json.dumps)
)


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """Words of a command line."""
    count = draw(st.integers(1, 3))
    return [draw(st.one_of(st.builds("{}={}".format, KEYS, VALUES), st.text(max_size=9))) for _ in range(count)]


@st.composite
def yaml_files(draw: st.DrawFn) -> bytes:
    """A configuration file: keys with values, the same key again, YAML's own odd corners, any bytes."""
    section = draw(st.sampled_from(sorted(Config.model_fields)))
    lines = [f"  {draw(KEYS).rpartition('.')[2]}: {draw(VALUES)}" for _ in range(draw(st.integers(0, 3)))]
    odd = st.sampled_from(
        ["", f"{section}: 3", "a: &a [*a]", "!!python/object:os.system {}", "---\n---", "\tx: 1", "? [a]"]
    )
    text = "\n".join([f"{section}:", *lines, draw(odd)])
    return (
        text.encode("utf-8", "surrogatepass") if draw(st.booleans()) else draw(damaged(text.encode("utf-8", "replace")))
    )


@st.composite
def prompt_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A suffix and a content that belongs to some format, this one or another, whole or damaged."""
    texts = draw(st.lists(LINES, max_size=12))
    rows: list[Any] = [draw(st.sampled_from([{"prompt": text}, {"caption": text}, [text], text])) for text in texts]
    quote = draw(st.sampled_from(['"', "", "'"]))
    separator = draw(st.sampled_from(["\t", ",", ";"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    forms = [
        end.join(texts),
        end.join(json.dumps(row) for row in rows),
        json.dumps({"annotations": rows, "images": []}),
        json.dumps(rows),
        end.join([separator.join(["Prompt", "Category"]), *(f"{quote}{text}{quote}{separator}x" for text in texts)]),
        json.dumps(draw(JSON)),
    ]
    data = draw(st.sampled_from(forms)).encode("utf-8", "surrogatepass")
    suffix = draw(st.sampled_from([".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ""]))
    return suffix, draw(st.just(data) | damaged(data))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """A file after something has happened to it."""
    ways = [
        st.integers(0, len(data)).map(lambda end: data[:end]),
        st.lists(st.integers(0, max(0, 8 * len(data) - 1)), min_size=1, max_size=4).map(lambda at: _flipped(data, at)),
        st.binary(max_size=64),
        st.just(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        st.just(pickle.dumps({"weight": [1.0]})),
        JSON.map(lambda value: json.dumps(value).encode()),
    ]
    if (tensors := _tensors(data)) is not None:
        ways += [st.just(changed) for changed in _changed_tensors(tensors)]
    if isinstance(tree := _tree(data), dict) and tree:
        ways.append(st.tuples(st.sampled_from(sorted(tree)), JSON).map(lambda pair: _with(tree, *pair)))
        ways.append(st.sampled_from(sorted(tree)).map(lambda key: _without(tree, key)))
    return draw(st.one_of(ways))


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """An image of some mode, size and format, whole or damaged."""
    mode = draw(st.sampled_from(["RGB", "RGBA", "L", "P", "1", "I", "F", "I;16", "CMYK", "LA"]))
    kind = draw(st.sampled_from(["PNG", "TIFF", "GIF", "WEBP", "JPEG", "BMP"]))
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    buffer = io.BytesIO()
    try:
        Image.new(mode, size).save(buffer, format=kind)
    except (OSError, ValueError):  # the format has no such mode
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, format="PNG")
    data = buffer.getvalue()
    return draw(st.just(data) | damaged(data))


def _flipped(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        if changed:
            changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _tensors(data: bytes) -> dict[str, np.ndarray] | None:
    try:
        return load(data)
    except (SafetensorError, ValueError):
        return None


def _changed_tensors(tensors: dict[str, np.ndarray]) -> Iterator[bytes]:
    for name, value in list(tensors.items())[:3]:
        rest = {key: one for key, one in tensors.items() if key != name}
        yield save(rest or {"nothing": np.zeros(1)})
        yield save({**rest, f"{name}_renamed": value})
        yield save({**rest, name: np.zeros((3, *value.shape), value.dtype)})
        yield save({**rest, name: value.astype(np.int32)})
        yield save({**rest, name: np.full_like(value, np.nan) if value.dtype.kind == "f" else value})


def _tree(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _with(tree: dict[str, Any], key: str, value: Any) -> bytes:
    return json.dumps({**tree, key: value}).encode()


def _without(tree: dict[str, Any], key: str) -> bytes:
    return json.dumps({name: value for name, value in tree.items() if name != key}).encode()
