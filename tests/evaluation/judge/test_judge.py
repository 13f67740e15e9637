"""The judge against a server on loopback: both orders, busy and broken servers, resuming, and the key."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from addiffusion.errors import JudgeError
from evaluation.judge.contest import Choice, Contest, Outcome, read_choice, settle
from evaluation.judge.endpoint import KEY_VARIABLE, ChatClient, Endpoint
from evaluation.judge.judging import Judgement, judge
from evaluation.judge.verdicts import VerdictFile
from tests.evaluation.judge.judge_server import Answer, JudgeServer, Seen, judge_server, reply

KEY = "sk-very-secret"


def image(level: int) -> np.ndarray:
    return np.full((8, 8, 3), level, np.uint8)


def contest(left: int, right: int, prompt: str = "a red circle") -> Contest:
    return Contest(prompt=prompt, left="policy", right="full", left_image=image(left), right_image=image(right))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with judge_server() as running:
        yield running


class Bench:
    """A client and a file of verdicts."""

    def __init__(self, server: JudgeServer, folder: Path, *, attempts: int = 4, timeout_s: float = 20) -> None:
        endpoint = Endpoint(base_url=server.base_url, model="toy", attempts=attempts, timeout_s=timeout_s)
        self.client = ChatClient(endpoint=endpoint)
        self.path = folder / "verdicts.jsonl"

    def judge(self, *contests: Contest) -> Judgement:
        return judge(contests, client=self.client, verdicts=VerdictFile(self.path), advance=lambda count: None)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("A is sharp.\nWINNER: A", Choice.FIRST),
        ("**Winner:** B.", Choice.SECOND),
        ("winner - tie", Choice.TIE),
        ("b", Choice.SECOND),
        (" *TIE* ", Choice.TIE),
        ("WINNER: A\nWINNER: A", Choice.FIRST),
        ("WINNER: A, or WINNER: B?", None),
        ("The winner, a blue circle, is sharp.\nWINNER: Image B", Choice.SECOND),
        ("Is the winner A? No.\nSo, winner: B", Choice.SECOND),
        ("WINNER: A\nWINNER: B", None),
        ("The winner, a blue circle", None),
        ("A wins", None),
        ("WINNER: Apple", None),
        ("", None),
    ],
)
def test_what_a_reply_says(text: str, choice: Choice | None) -> None:
    assert read_choice(text) is choice


@pytest.mark.parametrize(
    ("straight", "swapped", "outcome"),
    [
        (Choice.FIRST, Choice.SECOND, Outcome.LEFT),
        (Choice.SECOND, Choice.FIRST, Outcome.RIGHT),
        (Choice.FIRST, Choice.FIRST, Outcome.TIE),
        (Choice.FIRST, Choice.TIE, Outcome.TIE),
        (Choice.TIE, Choice.TIE, Outcome.TIE),
        (None, Choice.FIRST, Outcome.INVALID),
        (Choice.FIRST, None, Outcome.INVALID),
    ],
)
def test_a_win_needs_both_orders(straight: Choice | None, swapped: Choice | None, outcome: Outcome) -> None:
    assert settle(straight, swapped) is outcome


def test_the_better_image_wins_from_either_side(server: JudgeServer, tmp_path: Path) -> None:
    found = Bench(server, tmp_path).judge(contest(200, 50), contest(50, 200), contest(9, 9))
    assert [ballot.outcome for ballot in found.ballots] == [Outcome.LEFT, Outcome.RIGHT, Outcome.TIE]
    assert (found.asked_count, found.garbage_count, found.position_count) == (2 * 1, 0, 0)  # the second is the first
    assert found.count(Outcome.LEFT) == 1


def test_what_is_sent_is_the_protocol(server: JudgeServer, tmp_path: Path) -> None:
    Bench(server, tmp_path).judge(contest(200, 50))
    seen = server.seen[0]
    assert seen.path == "/v1/chat/completions"
    assert seen.authorization is None
    assert (seen.body["model"], seen.body["temperature"], seen.body["max_tokens"]) == ("toy", 0, 512)
    assert "Prompt: a red circle" in seen.body["messages"][0]["content"][0]["text"]
    assert [int(picture[0, 0, 0]) for picture in seen.images] == [200, 50]
    assert [int(picture[0, 0, 0]) for picture in server.seen[1].images] == [50, 200]


def test_a_judge_that_always_takes_the_first_decides_nothing(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = lambda seen: reply("WINNER: A")
    found = Bench(server, tmp_path).judge(contest(200, 50))
    assert found.ballots[0].outcome is Outcome.TIE
    assert found.position_count == 1


def test_a_second_run_asks_nothing_again(server: JudgeServer, tmp_path: Path) -> None:
    first = Bench(server, tmp_path).judge(contest(200, 50), contest(1, 2, "two stars"))
    second = Bench(server, tmp_path).judge(contest(200, 50), contest(1, 2, "two stars"))
    assert (first.asked_count, second.asked_count, len(server.seen)) == (4, 0, 4)
    assert second.ballots == first.ballots


def test_a_run_that_was_killed_goes_on(server: JudgeServer, tmp_path: Path) -> None:
    bench = Bench(server, tmp_path)
    bench.judge(contest(200, 50))
    torn = bench.path.read_text()[:-9]
    bench.path.write_text(torn)
    assert bench.judge(contest(200, 50)).asked_count == 1
    assert Bench(server, tmp_path).judge(contest(200, 50)).asked_count == 0


def test_a_refusal_in_the_middle_keeps_what_was_judged(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = lambda seen: Answer(status=404, body="no such model") if len(server.seen) > 2 else reply("WINNER: A")
    with pytest.raises(JudgeError, match="refuses: HTTP 404 'no such model'; check base_url, model"):
        Bench(server, tmp_path).judge(contest(200, 50), contest(1, 2))
    assert len(server.seen) == 3
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 2


def test_it_waits_as_long_as_a_busy_server_asks(server: JudgeServer, tmp_path: Path) -> None:
    server.script = [Answer(status=429, headers={"Retry-After": "1.5"})]
    began = time.monotonic()
    assert Bench(server, tmp_path).judge(contest(200, 50)).ballots[0].outcome is Outcome.LEFT
    assert 1.5 <= time.monotonic() - began < 15
    assert len(server.seen) == 3


def test_a_server_that_hangs_up_or_fails_is_asked_again(server: JudgeServer, tmp_path: Path) -> None:
    server.script = [Answer(status=0), Answer(status=500)]
    assert Bench(server, tmp_path).judge(contest(200, 50)).ballots[0].outcome is Outcome.LEFT
    assert len(server.seen) == 4


def test_patience_ends(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = lambda seen: Answer(status=503, body="overloaded")
    with pytest.raises(JudgeError, match=r"is busy: HTTP 503 'overloaded'\. Verdicts so far are kept; run again later"):
        Bench(server, tmp_path, attempts=2).judge(contest(200, 50))
    assert len(server.seen) == 2


def test_a_silent_server_does_not_hold_the_run(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = lambda seen: Answer(status=-1)
    with pytest.raises(JudgeError, match="no reply in 2 attempts: ReadTimeout"):
        Bench(server, tmp_path, attempts=2, timeout_s=0.2).judge(contest(200, 50))
    assert len(server.seen) == 2


def test_a_wait_of_an_hour_ends_the_run_instead(server: JudgeServer, tmp_path: Path) -> None:
    server.script = [Answer(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(JudgeError, match="is busy: HTTP 429 '', and asks to wait: Retry-After '3600'"):
        Bench(server, tmp_path).judge(contest(200, 50))
    assert len(server.seen) == 1


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with judge_server() as gone:
        pass
    with pytest.raises(JudgeError, match="no reply in 2 attempts: ConnectError"):
        Bench(gone, tmp_path, attempts=2).judge(contest(200, 50))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "http://", "ftp://a/v1", "http://a:99999", "http://a..b", "http://\u2603"]
)
def test_what_is_no_address_is_refused_before_anything_is_asked(tmp_path: Path, address: str) -> None:
    with pytest.raises(JudgeError, match=r"base_url is .*no address of a server: write it like http://127"):
        Bench(JudgeServer(base_url=address), tmp_path)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("address", ["foo://me:secret@proxy:1", "http://me:secret@proxy:port", "http://[::1", "://"])
def test_a_proxy_that_is_none_is_one_sentence(name: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, address)
    with pytest.raises(JudgeError, match=f"^{name.upper()} in the environment is no address of a proxy") as refused:
        ChatClient(endpoint=Endpoint(base_url="http://127.0.0.1:1/v1", model="toy"))
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(("name", "value"), [("SSL_CERT_FILE", "/none"), ("ALL_PROXY", "socks5://127.0.0.1:1")])
def test_what_else_the_environment_asks_for_in_vain_is_one_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(JudgeError, match=r"^The judge can't be reached as the environment asks: "):
        ChatClient(endpoint=Endpoint(base_url="http://127.0.0.1:1/v1", model="toy"))


def test_a_server_that_sends_elsewhere_gets_no_images_there(server: JudgeServer, tmp_path: Path) -> None:
    server.script = [Answer(status=307, headers={"Location": server.base_url + "/elsewhere"})]
    with pytest.raises(JudgeError, match="refuses: HTTP 307"):
        Bench(server, tmp_path).judge(contest(200, 50))
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        reply("I like both very much."),
        reply(""),
        Answer(body="<html>hello</html>"),
        Answer(body="<html>hello</html>", headers={"Content-Type": "application/json"}),
        Answer(body='{"choices": []}'),
        Answer(body='{"choices": null}', headers={"Content-Type": "application/json"}),
        Answer(body="[1]"),
    ],
)
def test_garbage_is_counted_and_asked_again(server: JudgeServer, tmp_path: Path, garbage: Answer) -> None:
    server.script = [garbage]
    found = Bench(server, tmp_path).judge(contest(200, 50))
    assert found.ballots[0].outcome is Outcome.LEFT
    assert (found.asked_count, found.garbage_count) == (3, 1)


def test_garbage_for_ever_is_an_invalid_contest_and_is_not_kept(server: JudgeServer, tmp_path: Path) -> None:
    server.rule = lambda seen: reply("As a language model, I can't see images.")
    found = Bench(server, tmp_path).judge(contest(200, 50))
    assert found.ballots[0].outcome is Outcome.INVALID
    assert (found.asked_count, found.garbage_count) == (4, 4)
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(seen: Seen) -> Answer:
        return Answer(status=401, body=f"bad key {KEY}") if len(server.seen) > 2 else reply("WINNER: A")

    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server.rule = refuse
    bench = Bench(server, tmp_path)
    with caplog.at_level(logging.DEBUG), pytest.raises(JudgeError, match=f"set {KEY_VARIABLE}") as refused:
        bench.judge(contest(200, 50), contest(1, 2))
    assert server.seen[0].authorization == f"Bearer {KEY}"
    told = [str(refused.value), repr(refused.value.facts), repr(bench.client), caplog.text, bench.path.read_text()]
    assert not any(KEY in text for text in told)


@pytest.mark.parametrize("key", [None, KEY])
def test_what_is_meant_for_another_service_stays_at_home(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password another-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    others = ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID")
    for name in others:
        monkeypatch.setenv(f"OPENAI_{name}", "another-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Tenant: another-secret")
    if key is not None:
        monkeypatch.setenv(KEY_VARIABLE, key)
    Bench(server, tmp_path).judge(contest(200, 50))
    assert server.seen[0].authorization == (None if key is None else f"Bearer {key}")
    assert "another-secret" not in server.seen[0].headers.values()
    assert all(os.environ[f"OPENAI_{name}"] == "another-secret" for name in others)


def test_a_key_that_cannot_be_sent_is_refused_unseen(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{KEY}\nX: y")
    with pytest.raises(JudgeError, match="HTTP header") as refused:
        ChatClient(endpoint=Endpoint(base_url=server.base_url, model="toy"))
    assert KEY not in str(refused.value)
