"""The list/watch machine of one kind: transcripts of what an API server sends, and what becomes of it."""

import json
from typing import Any

import pytest

from gwanmun.api import HTTPRoute
from gwanmun.api.kinds import KINDS
from gwanmun.kube import UnreachableError
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes.replica import MAX_LINE_BYTES, Changes, ExpiredError, Lines, Replica, WatchError

GROUP = "gateway.networking.k8s.io"


def route(name: str, version: int, *, weight: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "ai", "resourceVersion": str(version), "uid": f"u-{name}"},
        "spec": {"rules": [{"backendRefs": [{"name": "vllm", "port": 8000, "weight": weight}]}]},
        **({"status": status} if status else {}),
    }


def page(*items: Any, version: str = "100", more: str = "") -> bytes:
    return json.dumps({"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}).encode()


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


def key(name: str) -> ObjectKey:
    return ObjectKey(GROUP, "HTTPRoute", "ai", name)


def replica() -> Replica:
    return Replica(KINDS[GROUP, "HTTPRoute"])


def names(changes: Changes) -> dict[str, bool]:
    """Which objects changed, and whether they are there."""
    return {key.name: obj is not None for key, obj in changes.objects.items()}


def test_pages_of_a_list_are_put_together() -> None:
    machine = replica()
    assert names(machine.page(page(route("a", 1), more="next"))) == {"a": True}
    assert (machine.version, machine.next_page) == ("", "next")
    assert names(machine.page(page(route("b", 2), version="7"))) == {"b": True}
    assert (machine.version, machine.next_page) == ("7", "")


def test_events_move_the_version_on() -> None:
    machine = replica()
    machine.page(page(route("a", 1)))
    assert names(machine.line(event("MODIFIED", route("a", 101, weight=2)))) == {"a": True}
    assert machine.version == "101"
    assert names(machine.line(event("DELETED", route("a", 102)))) == {"a": False}
    assert machine.version == "102"
    assert len(machine) == 0


def test_a_bookmark_changes_nothing_but_the_version() -> None:
    machine = replica()
    machine.page(page(route("a", 1)))
    bookmark = {"kind": "HTTPRoute", "apiVersion": f"{GROUP}/v1", "metadata": {"resourceVersion": "900"}}
    assert machine.line(event("BOOKMARK", bookmark)) == Changes()
    assert machine.version == "900"


def test_after_410_a_new_list_tells_only_what_is_different() -> None:
    machine = replica()
    machine.page(page(route("stays", 1), route("changes", 2), route("goes", 3)))
    with pytest.raises(ExpiredError):
        machine.line(event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"}))
    machine.expire()
    assert machine.version == ""
    first = machine.page(page(route("stays", 1), route("changes", 20, weight=3), more="next"))
    assert names(first) == {"changes": True}, "what the list has not come to yet stays in force"
    assert names(machine.page(page(route("new", 30), version="50"))) == {"new": True, "goes": False}


def test_other_errors_end_the_watch_and_not_the_state() -> None:
    machine = replica()
    machine.page(page(route("a", 1)))
    with pytest.raises(WatchError, match="etcd is away"):
        machine.line(event("ERROR", {"kind": "Status", "code": 500, "message": "etcd is away"}))
    with pytest.raises(WatchError):
        machine.line(b'{"type": "MODI')
    assert len(machine) == 1
    assert machine.version == "100"


def test_a_status_that_comes_back_is_no_change_of_the_object() -> None:
    machine = replica()
    before = machine.page(page(route("a", 1))).objects[key("a")]
    parent = {"parentRef": {"name": "gw"}, "controllerName": "someone.else/x", "conditions": []}
    changes = machine.line(event("MODIFIED", route("a", 2, parents=[parent])))
    assert changes.objects[key("a")] == before
    present = changes.present[key("a")]
    assert present is not None
    assert present.resource_version == "2"
    assert present.status.parents[0].controller_name == "someone.else/x"


def test_one_object_that_does_not_fit_harms_no_other() -> None:
    machine = replica()
    broken = route("broken", 2)
    broken["spec"]["rules"] = "many"
    changes = machine.page(page(route("a", 1), broken))
    assert names(changes) == {"a": True}
    assert list(changes.unreadable) == [str(key("broken"))]
    machine.line(event("MODIFIED", route("a", 3)))
    spoiled = route("a", 4)
    spoiled["spec"]["rules"] = 7
    changes = machine.line(event("MODIFIED", spoiled))
    assert changes.objects == {}
    assert list(changes.unreadable) == [str(key("a"))], "what it said before stays in force"


def test_a_list_of_nothing_may_be_null() -> None:
    machine = replica()
    assert machine.page(b'{"metadata": {"resourceVersion": "5"}, "items": null}') == Changes()
    assert machine.version == "5"


def test_a_kind_that_goes_takes_its_objects_with_it() -> None:
    machine = replica()
    machine.page(page(route("a", 1), route("b", 2)))
    assert names(machine.empty()) == {"a": False, "b": False}
    assert machine.version == ""


def test_what_only_costs_memory_is_left_out() -> None:
    machine = replica()
    listed = route("a", 1)
    listed["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{...}", "mine": "1"}
    found = machine.page(page(listed)).objects[key("a")]
    assert isinstance(found, HTTPRoute)
    assert found.metadata.annotations == {"mine": "1"}
    assert found.metadata.resource_version == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_lines_are_whole_however_they_are_cut(size: int) -> None:
    lines = [event("ADDED", route(f"관문-{i}", i)) for i in range(5)]
    stream = b"\n".join(lines) + b"\n"
    machine, found = Lines(), []
    for start in range(0, len(stream), size):
        found += machine.feed(stream[start : start + size])
    assert found == lines


def test_a_line_without_an_end_is_given_up() -> None:
    machine = Lines()
    for _ in range(MAX_LINE_BYTES // (1 << 20)):
        assert list(machine.feed(b"x" * (1 << 20))) == []
    with pytest.raises(WatchError):
        list(machine.feed(b"x"))


@pytest.mark.parametrize(
    "content",
    [
        page(route("b", 2))[:-5],
        b"{}",
        b'{"metadata": 5}',
        b'{"metadata": {}, "items": [5]}',
        b'{"metadata": {"resourceVersion": "\xff"}}',
    ],
    ids=["cut", "empty", "metadata", "items", "no-text"],
)
def test_what_is_no_list_changes_nothing_and_is_asked_for_again(content: bytes) -> None:
    machine = replica()
    machine.page(page(route("a", 1)))
    machine.expire()
    with pytest.raises(UnreachableError, match="the list of httproutes cannot be read"):
        machine.page(content)
    machine.expire()
    assert names(machine.page(page(route("a", 1), route("b", 2)))) == {"b": True}


def test_an_object_with_a_text_that_is_none_spoils_no_other() -> None:
    machine = replica()
    changes = machine.page(page(route("a", 1), route("b", 2)).replace(b'"u-a"', b'"\xff"'))
    assert names(changes) == {"b": True}
    assert list(changes.unreadable) == [str(key("a"))]
