"""Who is turned away is counted, and told about now and then; what the controller may not ask is told once."""

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gwanmun.app.refused import Refused
from gwanmun.app.reviews import token_review
from gwanmun.kube import ApiError, KubeClient
from gwanmun.xds_server import Cause, Peer

FORBIDDEN = ApiError(403, "Forbidden", 'User "x" cannot create resource "tokenreviews" in API group "authentication.k8s.io"')
PEER = Peer("ipv4:10.0.0.9:1234")


def test_of_each_cause_there_is_a_line_a_minute_and_all_are_counted() -> None:
    now = 100.0
    refused = Refused(clock=lambda: now)
    with capture_logs() as logs:
        for _ in range(50):
            refused(PEER, Cause.BAD_TOKEN, "the token is not valid")
        refused(PEER, Cause.NO_TOKEN, "no token")
        now += 61
        refused(PEER, Cause.BAD_TOKEN, "the token is not valid")
    assert [(line["cause"], line["times"]) for line in logs] == [("bad_token", 1), ("no_token", 1), ("bad_token", 50)]
    assert logs[0]["address"] == "ipv4:10.0.0.9:1234"
    assert refused.counts[Cause.BAD_TOKEN] == 51
    assert refused.counts[Cause.UNCHECKED] == 0


class Answers:
    """An API server that gives these answers to TokenReviews, one after the other."""

    def __init__(self, *answers: ApiError | bytes) -> None:
        self.answers = list(answers)

    async def call(self, *_: Any, **__: Any) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return answer


async def test_the_right_to_review_tokens_is_asked_for_once_and_again_after_it_was_there() -> None:
    server = Answers(FORBIDDEN, FORBIDDEN, b'{"status": {}}', FORBIDDEN)
    review = token_review(cast(KubeClient, server), "gwanmun-xds")
    with capture_logs() as logs:
        for answer in list(server.answers):
            if isinstance(answer, ApiError):
                with pytest.raises(TimeoutError):
                    await review("secret")
            else:
                await review("secret")
    assert [line["event"] for line in logs] == ["token_reviews_refused", "token_reviews_restored", "token_reviews_refused"]
    assert logs[0]["grant"].startswith('apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"]')
    assert "secret" not in str(logs)
