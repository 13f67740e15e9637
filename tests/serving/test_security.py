"""Who may ask, from where, and how much."""

from __future__ import annotations

import http.client
import json
import logging
from pathlib import Path

import pytest

from addiffusion.errors import ConfigError
from serving.limits import Limits
from serving.security import KEY_VARIABLE, access_for, is_loopback, read_key
from tests.serving.toy_server import Served, served, toy_model, written

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def keyed():
    with served(toy_model(), key=KEY, limits=Limits(body_bytes=5000)) as running:
        yield running


@pytest.fixture(scope="module")
def local():
    with served(toy_model()) as running:
        yield running


def status(server: Served, path: str, headers: dict[str, str] | None = None, body: str | None = None) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request("GET" if body is None else "POST", path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status < 400:
        assert (answer.headers["X-Frame-Options"], answer.headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
        assert "Access-Control-Allow-Origin" not in answer.headers
    if answer.status >= 400:
        assert set(json.loads(content)["error"]) == {"message", "type", "param", "code"}
        assert KEY.encode() not in content
    return answer.status


def test_beyond_loopback_there_has_to_be_a_key() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(ConfigError, match=f"--host {host} .*{KEY_VARIABLE}"):
            access_for(host, None)
        assert access_for(host, KEY).key == KEY
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"))
    assert access_for("127.0.0.1", None).key is None


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert read_key(None) == KEY
    assert read_key(written(tmp_path, f"{KEY}2\n")) == f"{KEY}2"
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(written(tmp_path, KEY, mode=0o644))
    for text in ("short", "with a space in the middle", ""):
        with pytest.raises(ConfigError) as refused:
            read_key(written(tmp_path, text))
        assert not text or text not in refused.value.message
    with pytest.raises(ConfigError, match="can't be read"):
        read_key(tmp_path / "nowhere")


def test_the_key_is_never_shown(caplog: pytest.LogCaptureFixture, keyed: Served) -> None:
    with caplog.at_level(logging.DEBUG):
        assert KEY not in repr(access_for("0.0.0.0", KEY))
        status(keyed, "/v1/models", {"Authorization": f"Bearer {KEY}"})
        status(keyed, "/v1/models", {"Authorization": f"Bearer {KEY}x"})
    assert KEY not in caplog.text


def test_the_key_opens_every_way_it_may_be_sent(keyed: Served) -> None:
    basic = "YWRtaW46Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}, {"Authorization": f"Basic {basic}"}):
        assert status(keyed, "/v1/models", headers) == 200
    for headers in ({}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"Authorization": "Basic !!"}, {"X-Api-Key": "\xe9"}):
        assert status(keyed, "/v1/models", headers) == 401
    assert status(keyed, "/health") == 200
    assert status(keyed, "/metrics") == 401
    assert status(keyed, "/sdapi/v1/options") == 401


def test_foreign_pages_and_bent_names_are_refused(local: Served, keyed: Served) -> None:
    port = local.url.rpartition(":")[2]
    assert status(local, "/v1/models", {"Host": f"localhost:{port}"}) == 200
    assert status(local, "/v1/models", {"Origin": local.url}) == 200
    assert status(local, "/v1/models", {"Origin": "https://evil.example"}) == 403
    assert status(local, "/v1/models", {"Origin": "null"}) == 403
    assert status(local, "/v1/models", {"Host": "evil.example"}) == 403
    assert status(keyed, "/v1/models", {"Host": "images.example", "X-Api-Key": KEY}) == 200


def test_endless_bodies_are_refused(keyed: Served) -> None:
    headers = {"X-Api-Key": KEY, "Content-Type": "application/json"}
    path = "/v1/images/generations"
    assert status(keyed, path, headers, json.dumps({"prompt": "a" * 6000})) == 413
    assert status(keyed, path, {**headers, "Transfer-Encoding": "chunked"}, _chunked(6000)) == 413
    assert status(keyed, path, headers, "{") == 400
    assert status(keyed, path, headers, "[" * 4000) == 400
    assert status(keyed, path, headers, '{"prompt": "\\ud800"}') == 400
    assert status(keyed, path, headers, '{"prompt": "x", "seed": NaN}') == 400
    assert status(keyed, "/v1/../etc/passwd", headers) == 404


def _chunked(size: int) -> str:
    return f"{size:x}\r\n{'a' * size}\r\n0\r\n\r\n"
