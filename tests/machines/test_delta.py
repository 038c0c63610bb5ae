"""Transcripts of one delta-ADS stream: what is said, in which order, and what never is."""

import pytest
from delta_client import Client, resources

from gwanmun.xds_server.delta import Stream
from gwanmun.xds_server.messages import Request, Response
from gwanmun.xds_server.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    RUNTIME,
    SECRET,
    Need,
    Publication,
    Resource,
    ResourceSet,
    resource,
    stand_in,
)
from gwanmun.xds_server.subscription import Limits


def said(responses: list[Response]) -> list[str]:
    """`cds +a -b` for each response."""
    kind = {CLUSTER: "cds", ENDPOINTS: "eds", LISTENER: "lds", ROUTES: "rds", SECRET: "sds", RUNTIME: "rtds"}
    return [
        " ".join([kind.get(r.type_url, "other"), *(f"+{x.name}" for x in r.resources), *(f"-{name}" for name in r.removed)])
        for r in responses
    ]


DEFAULT = Limits()


class Conversation:
    """A stream, the set it serves, and the last response of each type, to write transcripts with."""

    def __init__(self, current: ResourceSet, limits: Limits = DEFAULT) -> None:
        self.current = current
        self.serial = 1
        self.stream = Stream(current, 1, limits)
        self.last: dict[str, Response] = {}
        self.nonces: dict[str, str] = {}

    def _heard(self, responses: list[Response]) -> list[str]:
        self.last |= {response.type_url: response for response in responses}
        self.nonces |= {response.type_url: response.nonce for response in responses if response.resources}
        return said(responses)

    def ask(self, url: str, *names: str, **more) -> list[str]:
        return self._heard(self.stream.receive(Request(url, subscribe=names, **more)))

    def drop(self, url: str, *names: str) -> list[str]:
        return self._heard(self.stream.receive(Request(url, unsubscribe=names)))

    def ack(self, url: str) -> list[str]:
        return self._heard(self.stream.receive(Request(url, nonce=self.last[url].nonce)))

    def nack(self, url: str, error: str = "no") -> list[str]:
        return self._heard(self.stream.receive(Request(url, nonce=self.last[url].nonce, error=error)))

    def wait(self) -> list[str]:
        return self._heard(self.stream.stop_waiting())

    def publish(self, new: ResourceSet) -> list[str]:
        self.serial += 1
        publication = Publication(self.serial, new, new.changes_since(self.current))
        self.current = new
        return self._heard(self.stream.publish(publication))

    def edit(self, url: str, **bodies: bytes | None) -> list[str]:
        edits = {name: None if body is None else resource(name, body) for name, body in bodies.items()}
        return self.publish(self.current.replace(url, edits))


def cluster(name: str, body: bytes = b"1") -> Resource:
    return resource(name, body, [Need(ENDPOINTS, name)])


# Subscribing


def test_everything_is_asked_for_with_a_star_or_with_nothing() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1", "b": b"1"}}))
    assert talk.ask(CLUSTER, "*") == ["cds +a +b"]
    assert Conversation(talk.current).ask(CLUSTER) == ["cds +a +b"]


def test_an_empty_first_request_for_endpoints_means_nothing() -> None:
    talk = Conversation(resources({ENDPOINTS: {"a": b"1"}}))
    assert talk.ask(ENDPOINTS) == []
    assert talk.ask(ENDPOINTS, "a") == ["eds +a"]


def test_everything_of_nothing_is_answered_so_that_the_client_goes_on() -> None:
    talk = Conversation(resources({}))
    assert talk.ask(CLUSTER, "*") == ["cds"]
    assert talk.ack(CLUSTER) == []
    assert talk.ask(LISTENER) == ["lds"]


def test_an_unknown_name_or_type_is_answered_as_absent() -> None:
    talk = Conversation(resources({ENDPOINTS: {"a": b"1"}}))
    assert talk.ask(ENDPOINTS, "a", "nope") == ["eds +a -nope"]
    assert talk.ask("type.googleapis.com/some.Other", "x") == ["other -x"]
    assert talk.ask("type.googleapis.com/another.Other", "*") == ["other"]


def test_an_absent_name_arrives_once_it_exists() -> None:
    talk = Conversation(resources({}))
    talk.ask(ENDPOINTS, "a")
    talk.ack(ENDPOINTS)
    assert talk.edit(ENDPOINTS, a=b"1", other=b"1") == ["eds +a"]


def test_only_subscribed_names_are_sent() -> None:
    talk = Conversation(resources({SECRET: {"a": b"1", "b": b"1"}}))
    talk.ask(SECRET, "a")
    talk.ack(SECRET)
    assert talk.edit(SECRET, b=b"2") == []
    assert talk.ask(SECRET, "b") == ["sds +b"]
    talk.ack(SECRET)
    assert talk.drop(SECRET, "a") == []
    assert talk.edit(SECRET, a=b"2", b=b"3") == ["sds +b"]


def test_asking_again_is_answered_again() -> None:
    talk = Conversation(resources({ENDPOINTS: {"a": b"1"}}))
    talk.ask(ENDPOINTS, "a")
    talk.ack(ENDPOINTS)
    assert talk.ask(ENDPOINTS, "a") == ["eds +a"]
    talk.ack(ENDPOINTS)
    talk.drop(ENDPOINTS, "a")
    assert talk.ask(ENDPOINTS, "a") == ["eds +a"]


def test_leaving_a_name_inside_everything_says_whether_it_still_comes() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1"}}))
    talk.ask(CLUSTER, "*", "a", "absent")
    talk.ack(CLUSTER)
    assert talk.drop(CLUSTER, "a", "absent") == ["cds +a -absent"]


def test_leaving_everything_keeps_the_names() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1", "b": b"1"}}))
    talk.ask(CLUSTER, "*", "a")
    talk.ack(CLUSTER)
    talk.drop(CLUSTER, "*")
    assert talk.edit(CLUSTER, a=b"2", b=b"2") == ["cds +a"]


# Pace


def test_a_burst_waits_for_the_answer_and_costs_one_response() -> None:
    talk = Conversation(resources({ROUTES: {"r": b"0"}}))
    talk.ask(ROUTES, "r")
    for n in range(1, 30):
        assert talk.edit(ROUTES, r=b"%d" % n) == []
    assert talk.ack(ROUTES) == ["rds +r"]
    assert talk.last[ROUTES].resources[0].body == b"29"
    assert talk.ack(ROUTES) == []


def test_a_change_that_is_taken_back_is_never_sent() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1"}}))
    talk.ask(CLUSTER, "*")
    talk.edit(CLUSTER, a=b"2")
    talk.edit(CLUSTER, a=b"1")
    assert talk.ack(CLUSTER) == []


def test_a_late_or_wrong_nonce_is_no_answer() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1"}}))
    talk.ask(CLUSTER, "*")
    talk.edit(CLUSTER, a=b"2")
    assert talk.stream.receive(Request(CLUSTER, nonce="999")) == []
    assert talk.ack(CLUSTER) == ["cds +a"]


def test_large_sets_go_in_parts_each_after_the_last_is_accepted() -> None:
    talk = Conversation(resources({CLUSTER: dict.fromkeys("abcde", b"1")}), Limits(resources=2))
    assert talk.ask(CLUSTER, "*") == ["cds +a +b"]
    assert talk.ack(CLUSTER) == ["cds +c +d"]
    assert talk.ack(CLUSTER) == ["cds +e"]
    assert talk.ack(CLUSTER) == []


def test_large_bodies_go_alone() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"x" * 50, "b": b"y" * 500, "c": b"z"}}), Limits(bytes=100))
    assert talk.ask(CLUSTER, "*") == ["cds +a +c"]
    assert talk.ack(CLUSTER) == ["cds +b"]


# Reconnecting


def test_a_client_that_comes_back_gets_only_what_changed() -> None:
    before = resources({CLUSTER: {"a": b"1", "b": b"1", "c": b"1"}})
    held = {name: found.version for name, found in before.of(CLUSTER).items()}
    talk = Conversation(resources({CLUSTER: {"a": b"1", "b": b"2"}}))
    assert talk.ask(CLUSTER, "*", initial_versions=held) == ["cds +b"]
    assert talk.ack(CLUSTER) == []
    assert talk.ask(LISTENER, "*", initial_versions={"l": "1"}) == ["lds -l"]
    assert talk.ack(LISTENER) == ["cds -c"]


def test_a_client_that_comes_back_keeps_old_clusters_until_its_routes_are_known_and_new() -> None:
    held = {name: found.version for name, found in resources({CLUSTER: {"a": b"1", "b": b"1"}}).of(CLUSTER).items()}
    talk = Conversation(full("b", b"->b"))
    listener = {"l": talk.current.of(LISTENER)["l"].version}
    assert talk.ask(CLUSTER, "*", initial_versions=held) == []
    assert talk.ask(LISTENER, "*", initial_versions=listener) == []
    assert talk.stream.awaited == (Need(ENDPOINTS, "b"), Need(ROUTES, "r"))
    assert talk.ask(ENDPOINTS, "b", initial_versions={"b": talk.current.of(ENDPOINTS)["b"].version}) == []
    assert talk.stream.awaited == (Need(ROUTES, "r"),)
    assert talk.ask(ROUTES, "r", initial_versions={"r": "old"}) == ["rds +r"]
    assert talk.ack(ROUTES) == ["cds -a"]


def test_a_client_that_comes_back_up_to_date_hears_nothing() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1"}, ENDPOINTS: {"a": b"1"}, LISTENER: {"l": b"1"}}))
    for url in (CLUSTER, ENDPOINTS, LISTENER):
        held = {name: found.version for name, found in talk.current.of(url).items()}
        assert talk.ask(url, *(held if url == ENDPOINTS else ["*"]), initial_versions=held) == []
    assert talk.stream.applied == 1


def test_versions_outside_the_subscription_are_ignored() -> None:
    talk = Conversation(resources({ENDPOINTS: {"a": b"1"}}))
    assert talk.ask(ENDPOINTS, "a", initial_versions={"a": "old", "gone": "1"}) == ["eds +a"]
    assert talk.ack(ENDPOINTS) == []


def test_endpoints_lost_with_the_last_stream_come_before_routes() -> None:
    current = full("a", b"->a")
    talk = Conversation(current)
    assert talk.ask(CLUSTER, "*", initial_versions={"a": current.of(CLUSTER)["a"].version}) == []
    assert talk.ask(LISTENER, "*") == []
    assert talk.ask(ENDPOINTS, "a") == ["eds +a"]
    assert talk.ack(ENDPOINTS) == ["lds +l"]


def test_a_cluster_changed_while_the_client_was_away_gets_its_endpoints_again() -> None:
    current = full("a", b"->a")
    talk = Conversation(current)
    assert talk.ask(CLUSTER, "*", initial_versions={"a": "old"}) == ["cds +a"]
    assert talk.ask(ENDPOINTS, "a", initial_versions={"a": current.of(ENDPOINTS)["a"].version}) == ["eds +a"]


# Refusals


def one_bad_of_a_hundred(**client_options) -> Client:
    names = [f"c{n}" for n in range(100)]
    bodies = {name: b"bad" if name == "c37" else b"good" for name in names}
    return Client(Stream(resources({client_options.pop("url"): bodies}), 1), **client_options)


@pytest.mark.parametrize("url", [CLUSTER, LISTENER])
@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize(("names_culprits", "rounds"), [(True, 6), (False, 30)])
def test_one_bad_resource_is_found_and_the_good_ones_get_in(url, partial, names_culprits, rounds) -> None:
    client = one_bad_of_a_hundred(url=url, partial=partial, names_culprits=names_culprits)
    client.subscribe(url, "*")
    client.drain()
    assert set(client.types[url].bodies) == {f"c{n}" for n in range(100)} - {"c37"}
    (rejection,) = client.stream.rejections
    assert rejection.name == "c37"
    assert "too bad" in rejection.error
    assert len(client.seen) <= rounds


@pytest.mark.parametrize("url", [ENDPOINTS, LISTENER, ROUTES])
def test_a_refused_resource_is_sent_again_only_when_it_changes(url) -> None:
    talk = Conversation(resources({url: {"a": b"1", "b": b"1"}}))
    talk.ask(url, "*")
    talk.ack(url)
    assert len(talk.edit(url, a=b"bad")) == 1
    assert talk.nack(url, "field x") == []
    assert len(talk.edit(url, b=b"2")) == 1
    talk.ack(url)
    (rejection,) = talk.stream.rejections
    assert (rejection.name, rejection.error) == ("a", "field x")
    assert len(talk.edit(url, a=b"fixed")) == 1
    talk.ack(url)
    assert talk.stream.rejections == ()


@pytest.mark.parametrize("body", [b"1", None])
def test_a_refusal_is_forgotten_when_the_change_is_taken_back(body: bytes | None) -> None:
    talk = Conversation(resources({ROUTES: {"a": b"1"} if body else {}}))
    talk.ask(ROUTES, "a")
    talk.ack(ROUTES)
    talk.edit(ROUTES, a=b"bad")
    talk.nack(ROUTES)
    assert talk.edit(ROUTES, a=body) == []
    assert talk.stream.rejections == ()


def test_a_refused_cluster_is_put_back_as_it_was() -> None:
    # Envoy may have begun to warm what it refuses; there it would be in the way of everything that follows.
    talk = Conversation(resources({CLUSTER: {"old": b"1"}}))
    talk.ask(CLUSTER, "*")
    talk.ack(CLUSTER)
    assert talk.edit(CLUSTER, old=b"bad", new=b"bad", good=b"1") == ["cds +old +new +good"]
    assert talk.nack(CLUSTER, "Error adding/updating cluster(s) old: odd, new: odd") == ["cds +old -new"]
    assert talk.last[CLUSTER].resources[0].body == b"1"
    assert talk.ack(CLUSTER) == ["cds +good"]
    assert talk.ack(CLUSTER) == ["cds +old"]
    assert talk.nack(CLUSTER, "Error adding/updating cluster(s) old: odd") == ["cds +old"]
    assert talk.ack(CLUSTER) == ["cds +new"]
    assert talk.nack(CLUSTER, "Error adding/updating cluster(s) new: odd") == ["cds -new"]
    assert talk.ack(CLUSTER) == []
    assert {r.name for r in talk.stream.rejections} == {"old", "new"}
    assert talk.edit(CLUSTER, old=b"1", new=None) == []
    assert talk.stream.rejections == ()


def test_a_refused_cluster_that_was_there_before_the_stream_is_not_taken_away() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"bad"}}))
    assert talk.ask(CLUSTER, "*", initial_versions={"a": "before"}) == ["cds +a"]
    assert talk.nack(CLUSTER) == []


def test_secrets_go_one_by_one_as_envoy_refuses_none_twice() -> None:
    talk = Conversation(resources({SECRET: {"a": b"1", "b": b"bad", "c": b"1"}}))
    assert talk.ask(SECRET, "a", "b", "c") == ["sds +a"]
    assert talk.ack(SECRET) == ["sds +b"]
    assert talk.nack(SECRET, "odd") == ["sds +b"]
    assert talk.last[SECRET].resources == (stand_in("b"),)
    assert talk.nack(SECRET, "incomplete") == ["sds +c"]
    assert talk.ack(SECRET) == []
    assert [(r.name, r.error) for r in talk.stream.rejections] == [("b", "odd")]
    assert talk.edit(SECRET, b=b"2") == ["sds +b"]
    assert talk.ack(SECRET) == []
    assert talk.stream.rejections == ()


@pytest.mark.parametrize("sent", [True, False])
def test_a_refused_secret_is_put_back_as_it_was(sent: bool) -> None:
    talk = Conversation(resources({SECRET: {"a": b"1"}}))
    if sent:
        talk.ask(SECRET, "a")
        talk.ack(SECRET)
    else:
        talk.ask(SECRET, "a", initial_versions={"a": resource("a", b"1").version})
    assert talk.edit(SECRET, a=b"bad") == ["sds +a"]
    assert talk.nack(SECRET) == ["sds +a"]
    assert talk.last[SECRET].resources == (resource("a", b"1"),)
    assert talk.ack(SECRET) == []
    assert [r.name for r in talk.stream.rejections] == ["a"]
    assert talk.edit(SECRET, a=b"1") == []
    assert talk.stream.rejections == ()


def test_a_secret_of_before_the_stream_comes_again_after_one_that_was_refused() -> None:
    before = resource("a", b"1")
    talk = Conversation(resources({SECRET: {"a": b"bad"}}))
    assert talk.ask(SECRET, "a", initial_versions={"a": before.version}) == ["sds +a"]
    talk.nack(SECRET)
    talk.nack(SECRET)
    assert talk.edit(SECRET, a=b"1") == ["sds +a"]


def test_what_a_refused_response_may_have_left_behind_is_removed() -> None:
    talk = Conversation(resources({LISTENER: {"a": b"bad", "b": b"1"}}))
    talk.ask(LISTENER, "*")
    assert talk.nack(LISTENER) == ["lds +a"]
    talk.edit(LISTENER, b=None)
    assert talk.nack(LISTENER) == ["lds +b"]
    assert talk.nack(LISTENER) == ["lds -b"]


def test_a_cluster_that_envoy_cannot_refuse_aloud_is_found_and_taken_away() -> None:
    talk = envoy_like(full("a", b"->a"))
    assert talk.publish(full("abc", b"->b")) == ["cds +b +c"]
    assert talk.ask(ENDPOINTS, "b") == ["eds +b"]  # never c, and never an answer about clusters
    assert talk.wait() == []
    talk.ack(ENDPOINTS)
    assert talk.wait() == ["cds -c"]
    assert talk.stream.receive(Request(CLUSTER, nonce=talk.nonces[CLUSTER], error="cluster(s) c: not prime")) == []
    assert [(r.name, r.error) for r in talk.stream.rejections] == [("c", "cluster(s) c: not prime")]
    assert talk.ack(CLUSTER) == ["cds +b", "eds +b"]
    talk.ack(ENDPOINTS)
    assert talk.ack(CLUSTER) == ["rds +r"]


def test_a_client_that_is_only_slow_is_asked_for_a_sign_of_life_first() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("ab", b"->b"))
    assert talk.wait() == ["eds +a"]
    assert talk.wait() == []
    assert talk.stream.rejections == ()
    talk.ack(ENDPOINTS)
    assert talk.wait() == ["cds -b"]


# Order


def envoy_like(current: ResourceSet) -> Conversation:
    """A conversation past its first sync."""
    talk = Conversation(current)
    for url in (CLUSTER, ENDPOINTS, LISTENER, ROUTES):
        names = ["*"] if url in (CLUSTER, LISTENER) else list(current.of(url))
        if names and talk.ask(url, *names):
            talk.ack(url)
    assert talk.stream.applied == 1
    return talk


def full(clusters: str, routes: bytes, listener: bytes = b"1") -> ResourceSet:
    return ResourceSet(
        {
            CLUSTER: {name: cluster(name) for name in clusters},
            ENDPOINTS: {name: resource(name, b"1") for name in clusters},
            LISTENER: {"l": resource("l", listener, [Need(ROUTES, "r")])},
            ROUTES: {"r": resource("r", routes)},
        }
    )


def test_routes_move_after_the_new_cluster_has_endpoints_and_the_old_one_goes_last() -> None:
    talk = envoy_like(full("a", b"->a"))
    assert talk.publish(full("b", b"->b", b"2")) == ["cds +b"]
    assert talk.ack(CLUSTER) == []
    assert talk.ask(ENDPOINTS, "b") == ["eds +b"]
    assert talk.ack(ENDPOINTS) == ["lds +l"]
    assert talk.ack(LISTENER) == ["rds +r"]
    assert talk.stream.applied == 1
    assert talk.ack(ROUTES) == ["cds -a", "eds -a"]
    talk.drop(ENDPOINTS, "a")
    talk.ack(ENDPOINTS)
    talk.ack(CLUSTER)
    assert talk.stream.applied == 2


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    # Envoy warms a replacement, and is subscribed to the endpoints already.
    talk = envoy_like(full("a", b"->a"))
    assert talk.publish(talk.current.replace(CLUSTER, {"a": cluster("a", b"2")})) == ["cds +a", "eds +a"]


def test_a_newer_set_waits_for_the_step_but_endpoints_do_not() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("ab", b"->b"))
    assert talk.publish(full("abc", b"->c")) == []
    assert talk.edit(ENDPOINTS, a=b"2") == ["eds +a"]
    talk.ack(ENDPOINTS)
    assert talk.ack(CLUSTER) == []
    assert talk.ask(ENDPOINTS, "b") == ["eds +b"]
    assert talk.ack(ENDPOINTS) == ["rds +r"]
    assert talk.last[ROUTES].resources[0].body == b"->b"
    assert talk.ack(ROUTES) == ["cds +c"]


def test_a_client_that_never_asks_for_endpoints_is_not_waited_for_for_ever() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("ab", b"->b"))
    talk.ack(CLUSTER)
    assert talk.stream.awaited == (Need(ENDPOINTS, "b"),)
    assert said(talk.stream.stop_waiting()) == ["rds +r"]


def test_endpoints_that_were_asked_for_are_waited_for_however_long_they_take() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("abc", b"->bc"))
    assert talk.ask(ENDPOINTS, "b") == ["eds +b"]
    assert talk.ask(ENDPOINTS, "c") == []  # after those under way
    talk.ack(CLUSTER)
    assert talk.wait() == []
    assert talk.ack(ENDPOINTS) == ["eds +c"]
    assert talk.wait() == []
    assert talk.ack(ENDPOINTS) == ["rds +r"]


def test_a_backend_that_went_and_came_back_is_routed_to_when_its_endpoints_are_there_again() -> None:
    talk = envoy_like(full("ab", b"->a"))
    assert talk.publish(full("a", b"->a")) == ["cds -b", "eds -b"]
    talk.publish(full("ab", b"->b"))
    assert talk.ack(CLUSTER) == ["cds +b"]
    talk.drop(ENDPOINTS, "b")
    assert talk.ack(CLUSTER) == []
    assert talk.ask(ENDPOINTS, "b") == []  # after the removal under way
    assert talk.ack(ENDPOINTS) == ["eds +b"], "and no route yet"
    assert talk.ack(ENDPOINTS) == ["rds +r"]


def test_endpoints_sent_to_a_backend_that_was_about_to_go_do_not_count_for_its_successor() -> None:
    talk = envoy_like(full("ab", b"->ab"))
    assert talk.publish(full("a", b"->a")) == ["rds +r"]
    talk.publish(full("a", b"->a again"))
    assert talk.ack(ROUTES) == ["cds -b"], "and soon the next step"
    again = full("ab", b"->b").replace(ENDPOINTS, {"b": resource("b", b"2")})
    assert talk.publish(again) == ["eds +b"]
    assert talk.ack(CLUSTER) == ["cds +b"]
    talk.drop(ENDPOINTS, "b")  # with the cluster that is gone
    talk.ack(CLUSTER)
    assert talk.ack(ENDPOINTS) == [], "nobody has taken them"
    assert talk.ask(ENDPOINTS, "b") == ["eds +b"]
    assert talk.ack(ENDPOINTS) == ["rds +r"]


def test_routes_wait_for_the_endpoints_of_a_cluster_that_was_kept_while_there_were_none() -> None:
    # Its endpoints had not come when the control plane went, and the next one's first routes, without it, are refused.
    talk = Conversation(full("", b"->nothing"), Limits(resources=1))
    talk.ask(CLUSTER, "*", initial_versions={name: cluster(name).version for name in "ab"})
    assert talk.ask(ENDPOINTS, "a", "b") == ["eds -a -b"]
    talk.ack(ENDPOINTS)
    talk.ask(LISTENER, "*")
    talk.ask(ROUTES, "r")
    talk.ack(LISTENER)
    talk.nack(ROUTES)
    assert talk.publish(full("ab", b"->ab")) == ["eds +a"]
    assert talk.ack(ENDPOINTS) == ["eds +b"]
    assert talk.ack(ENDPOINTS) == ["rds +r"]


def test_a_refused_cluster_does_not_hold_up_routes() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("ab", b"->b"))
    assert talk.nack(CLUSTER) == ["cds -b"]
    assert talk.ack(CLUSTER) == ["rds +r"]


def test_while_new_routes_are_refused_no_cluster_is_taken_away() -> None:
    talk = envoy_like(full("a", b"->a"))
    talk.publish(full("b", b"bad"))
    talk.ack(CLUSTER)
    talk.ask(ENDPOINTS, "b")
    talk.ack(ENDPOINTS)
    assert talk.nack(ROUTES) == []
    assert talk.edit(ROUTES, r=b"->b") == ["rds +r"]
    assert talk.ack(ROUTES) == ["cds -a", "eds -a"]


@pytest.mark.parametrize("wanted", [b"bad", b"->a"], ids=["what was refused", "what it has"])
def test_routes_that_changed_and_changed_back_hold_up_nothing(wanted: bytes) -> None:
    talk = envoy_like(full("a", b"->a"))
    assert talk.publish(full("a", b"bad")) == ["rds +r"]
    talk.publish(full("a", b"->other"))
    after = full("a", wanted).replace(LISTENER, {"l": resource("l", b"2", [Need(ROUTES, "r")])})
    talk.publish(after)
    assert talk.nack(ROUTES) == ["lds +l"]
    assert talk.stream.awaited == ()
    talk.ack(LISTENER)
    assert talk.stream.applied == talk.serial


def test_a_cluster_stays_until_the_listener_that_replaces_its_routes_has_its_own() -> None:
    talk = envoy_like(full("a", b"->a"))
    after = ResourceSet(
        {
            LISTENER: {"l": resource("l", b"2", [Need(ROUTES, "new")])},
            ROUTES: {"new": resource("new", b"direct")},
        }
    )
    assert talk.publish(after) == ["lds +l"]
    assert talk.ack(LISTENER) == ["rds -r"]
    assert talk.ack(ROUTES) == []
    assert talk.ask(ROUTES, "new") == ["rds +new"]
    assert talk.ack(ROUTES) == ["cds -a", "eds -a"]


def test_one_port_passes_from_listener_to_listener_in_one_response() -> None:
    talk = envoy_like(resources({LISTENER: {"old": b"port 80"}}))
    assert talk.publish(resources({LISTENER: {"new": b"port 80"}})) == ["lds +new -old"]


def test_runtime_values_never_wait() -> None:
    talk = Conversation(resources({CLUSTER: {"a": b"1"}, RUNTIME: {"weights": b"1"}}))
    talk.ask(CLUSTER, "*")
    assert talk.ask(RUNTIME, "weights") == ["rtds +weights"]
    talk.ack(RUNTIME)
    assert talk.edit(RUNTIME, weights=b"2") == ["rtds +weights"]


# Sets


def test_changes_between_sets() -> None:
    old = resources({CLUSTER: {"a": b"1", "b": b"1", "c": b"1"}, ROUTES: {"r": b"1"}})
    new = old.replace(CLUSTER, {"a": resource("a", b"2"), "b": None, "d": resource("d", b"1")})
    assert new.changes_since(old) == {CLUSTER: ("a", "d", "b")}
    assert new.changes_since(new) == {}
    assert old.changes_since(resources({})) == {CLUSTER: ("a", "b", "c"), ROUTES: ("r",)}
    assert resources({CLUSTER: {"a": b"1"}}).changes_since(resources({CLUSTER: {"a": b"1"}})) == {}
    assert resources({}).changes_since(resources({CLUSTER: {"a": b"1"}})) == {CLUSTER: ("a",)}
