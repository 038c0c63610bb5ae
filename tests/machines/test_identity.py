"""Who a proxy is: the token of its stream, and what becomes of an answer about it."""

import asyncio

import pytest

from gwanmun.app.reviews import account_of, node_of, reviewed
from gwanmun.names import NamespacedName
from gwanmun.xds_server import identity as identity_module
from gwanmun.xds_server.identity import Holder, TokenIdentity
from gwanmun.xds_server.publisher import Peer
from gwanmun.xds_server.server import Cause, Refusal

PEER = Peer("10.0.0.9:1234")


class Reviewer:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now = 0.0

    async def __call__(self, token: str) -> Holder | Refusal:
        self.asked.append(token)
        if token == "away":
            raise TimeoutError("nobody answers")
        return Holder((f"name of {token}",)) if token.startswith("good") else Refusal("no", Cause.BAD_TOKEN)

    def identity(self) -> TokenIdentity:
        return TokenIdentity(self, clock=lambda: self.now, lifetime=10.0)


@pytest.mark.parametrize("header", [{}, {"authorization": ""}, {"authorization": "Basic x"}, {"authorization": "Bearer "}])
async def test_without_a_token_nobody_is_asked(header: dict[str, str]) -> None:
    reviewer = Reviewer()
    found = await reviewer.identity()(header, PEER)
    assert isinstance(found, Refusal)
    assert not found.known
    assert reviewer.asked == []


async def test_a_proven_name_replaces_whatever_was_claimed() -> None:
    found = await Reviewer().identity()({"authorization": "Bearer good"}, Peer("a", ("claimed",)))
    assert found == Peer("a", ("name of good",))


@pytest.mark.parametrize("token", ["good", "bad"])
async def test_an_answer_counts_for_a_while(token: str) -> None:
    reviewer = Reviewer()
    identity = reviewer.identity()
    first = await identity({"authorization": f"bearer {token}"}, PEER)
    for reviewer.now in (0.0, 9.9):
        assert await identity({"authorization": f"Bearer {token}"}, PEER) == first
    assert reviewer.asked == [token]
    reviewer.now = 10.0
    assert await identity({"authorization": f"Bearer {token}"}, PEER) == first
    assert reviewer.asked == [token] * 2


async def test_who_was_refused_is_let_in_when_that_has_changed() -> None:
    answers: list[Holder | Refusal] = [Refusal("no", Cause.BAD_TOKEN), Holder(("name",))]
    now = 0.0

    async def review(_: str) -> Holder | Refusal:
        return answers.pop(0)

    identity = TokenIdentity(review, clock=lambda: now, lifetime=10.0)
    assert isinstance(await identity({"authorization": "Bearer x"}, PEER), Refusal)
    now = 10.0
    for _ in range(2):
        assert await identity({"authorization": "Bearer x"}, PEER) == Peer(PEER.address, ("name",))


async def test_ever_new_tokens_take_no_more_room_and_push_out_no_one_who_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "_MOST_KEPT", 3)
    reviewer = Reviewer()
    identity = reviewer.identity()
    await identity({"authorization": "Bearer good"}, PEER)
    for i in range(10):
        await identity({"authorization": f"Bearer bad{i}"}, PEER)
    await identity({"authorization": "Bearer good"}, PEER)
    assert reviewer.asked.count("good") == 1
    await identity({"authorization": "Bearer bad9"}, PEER)
    await identity({"authorization": "Bearer bad0"}, PEER)
    assert reviewer.asked.count("bad9") == 1
    assert reviewer.asked.count("bad0") == 2
    assert len(identity._refusals) == 3


async def test_made_up_tokens_of_one_host_are_not_all_asked_about() -> None:
    reviewer = Reviewer()
    identity = reviewer.identity()
    await identity({"authorization": "Bearer good"}, PEER)
    tries = [identity({"authorization": f"Bearer bad{i}"}, Peer(f"ipv4:10.0.0.9:{i}")) for i in range(5000)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert len(reviewer.asked) <= 1 + 20 + 16
    assert sum(isinstance(one, TimeoutError) for one in found) >= 4960
    assert isinstance(await identity({"authorization": "Bearer good"}, PEER), Peer)
    assert isinstance(await identity({"authorization": "Bearer good2"}, Peer("ipv4:10.0.0.10:1")), Peer)
    reviewer.now = 10.0
    assert isinstance(await identity({"authorization": "Bearer good3"}, PEER), Peer)


async def test_only_so_many_are_asked_about_at_once() -> None:
    asking = most = 0

    async def review(token: str) -> Holder:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0.01)
        asking -= 1
        return Holder((token,))

    identity = TokenIdentity(review, clock=lambda: 0.0)
    await asyncio.gather(*(identity({"authorization": f"Bearer t{i}"}, PEER) for i in range(100)))
    assert most == 16


async def test_that_nobody_answers_is_no_answer() -> None:
    reviewer = Reviewer()
    identity = reviewer.identity()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await identity({"authorization": "Bearer away"}, PEER)
    assert reviewer.asked == ["away"] * 2


async def test_when_nobody_can_be_asked_the_proxy_is_to_come_again() -> None:
    with pytest.raises(TimeoutError):
        await Reviewer().identity()({"authorization": "Bearer away"}, PEER)


def test_a_review_counts_only_for_our_audience() -> None:
    user = b'"user": {"username": "system:serviceaccount:ai:gw-x", "extra": {"authentication.kubernetes.io/node-name": ["n1"]}}'
    good = reviewed(b'{"status": {"authenticated": true, "audiences": ["gwanmun-xds"], ' + user + b"}}", "gwanmun-xds")
    assert isinstance(good, Holder)
    assert account_of(good.names) == NamespacedName("ai", "gw-x")
    assert node_of(good.names) == "n1"
    for wrong in (
        b'{"status": {"authenticated": true, "audiences": ["other"], ' + user + b"}}",
        b'{"status": {"authenticated": true, ' + user + b"}}",
        b'{"status": {"error": "expired"}}',
        b"{}",
    ):
        assert isinstance(reviewed(wrong, "gwanmun-xds"), Refusal)


def test_a_person_is_no_proxy() -> None:
    answer = b'{"status": {"authenticated": true, "audiences": ["gwanmun-xds"], "user": {"username": "jane"}}}'
    found = reviewed(answer, "gwanmun-xds")
    assert isinstance(found, Refusal)
    assert found.known
