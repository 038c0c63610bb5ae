"""Where the ports of Gateways go, and that a place in use stays."""

import os
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gwanmun.infra.ports import LocalBinding, Place, PortKey, PortOptions, PortPlan, Unusable, plan_ports
from gwanmun.infra.probe import first_unprivileged_port, unusable
from gwanmun.ir.gateway import Gateway, Port
from gwanmun.names import NamespacedName


def gateway(name: str, *ports: int | str, addresses: tuple[str, ...] = ()) -> Gateway:
    def port(number: int | str) -> Port:
        return Port(int(number[3:]), "udp", ()) if isinstance(number, str) else Port(number, "tcp", ())

    return Gateway(NamespacedName("ns", name), tuple(port(number) for number in ports), addresses)


def plan(
    *gateways: Gateway, previous: PortPlan | None = None, used: dict[tuple[str, int], str] | None = None, **options: object
) -> PortPlan:
    def in_use(place: Place) -> Unusable | None:
        message = (used or {}).get((place.address, place.port))
        return None if message is None else Unusable("PortUnavailable", message)

    return plan_ports(
        gateways,
        options=PortOptions(**options),  # type: ignore[arg-type]  # options by name
        previous=previous.bindings if previous else {},
        unusable=in_use,
    )


def shown(planned: PortPlan) -> dict[str, str]:
    """As a person would write it: "a:80" -> "127.0.0.1:8080"."""
    bindings = {
        f"{key.gateway.name}:{key.port}": " ".join(f"{one.address}:{one.port}" for one in bound)
        for key, bound in planned.bindings.items()
    }
    return bindings | {f"{problem.key.gateway.name}:{problem.key.port}": problem.message for problem in planned.problems}


def test_privileged_ports_keep_clear_of_the_ports_that_the_gateway_names() -> None:
    planned = plan(gateway("a", 443, 80, 8443))
    assert shown(planned) == {"a:80": "127.0.0.1:8080", "a:443": "127.0.0.1:10443", "a:8443": "127.0.0.1:8443"}
    key = PortKey(NamespacedName("ns", "a"), 443, "tcp")
    assert planned.bindings[key] == (LocalBinding("127.0.0.1", 10443, 10443, "port 443 needs privileges: bound to 10443"),)
    assert planned.bindings[key._replace(port=8443)][0].note == ""


def test_with_privileges_nothing_is_mapped() -> None:
    assert shown(plan(gateway("a", 443, 80), first_unprivileged=0)) == {"a:80": "127.0.0.1:80", "a:443": "127.0.0.1:443"}


def test_udp_and_tcp_ports_are_apart() -> None:
    planned = plan(gateway("a", "udp5353", 5353), gateway("b", "udp5353"))
    assert [(*key[1:], value[0].address) for key, value in planned.bindings.items()] == [
        (5353, "tcp", "127.0.0.1"),
        (5353, "udp", "127.0.0.1"),
        (5353, "udp", "127.0.0.2"),
    ]


def test_the_next_gateway_on_a_port_gets_the_next_address_for_all_its_ports() -> None:
    planned = plan(gateway("b", 80, 9000), gateway("a", 80), gateway("c", 9000))
    assert shown(planned) == {
        "a:80": "127.0.0.1:8080",
        "b:80": "127.0.0.2:8080",
        "b:9000": "127.0.0.2:9000",
        "c:9000": "127.0.0.1:9000",
    }
    note = planned.bindings[PortKey(NamespacedName("ns", "b"), 80, "tcp")][0].note
    assert note == "port 80 needs privileges: bound to 8080; bound to 127.0.0.2, since Gateway ns/a is on 127.0.0.1"


def test_a_mapped_port_and_a_named_one_of_different_gateways_do_not_meet() -> None:
    assert shown(plan(gateway("a", 80), gateway("b", 8080))) == {"a:80": "127.0.0.1:8080", "b:8080": "127.0.0.2:8080"}


def test_what_is_in_use_stays_when_others_come_and_go() -> None:
    first = plan(gateway("b", 80), gateway("c", 80))
    assert shown(first) == {"b:80": "127.0.0.1:8080", "c:80": "127.0.0.2:8080"}
    second = plan(gateway("a", 80), gateway("b", 80), gateway("c", 80), previous=first)
    assert shown(second) == shown(first) | {"a:80": "127.0.0.3:8080"}
    third = plan(gateway("a", 80), gateway("c", 80), previous=second)
    assert shown(third) == {"a:80": "127.0.0.3:8080", "c:80": "127.0.0.2:8080"}


def test_a_port_added_to_a_gateway_goes_to_its_address() -> None:
    first = plan(gateway("a", 80), gateway("b", 80))
    second = plan(gateway("a", 80), gateway("b", 80, 9000), previous=first)
    assert shown(second)["b:9000"] == "127.0.0.2:9000"


def test_a_mapping_stays_when_its_port_is_named_later() -> None:
    first = plan(gateway("a", 443))
    assert shown(first) == {"a:443": "127.0.0.1:8443"}
    second = plan(gateway("a", 443, 8443), previous=first)
    assert shown(second) == {"a:443": "127.0.0.1:8443", "a:8443": "127.0.0.2:8443"}


def test_another_address_option_moves_everything() -> None:
    first = plan(gateway("a", 9000))
    assert shown(plan(gateway("a", 9000), previous=first, address="0.0.0.0")) == {"a:9000": "0.0.0.0:9000"}
    assert shown(plan(gateway("a", 9000, addresses=("::1",)), previous=first)) == {"a:9000": "::1:9000"}


def test_gained_privileges_move_what_was_mapped() -> None:
    first = plan(gateway("a", 80))
    assert shown(plan(gateway("a", 80), previous=first, first_unprivileged=0)) == {"a:80": "127.0.0.1:80"}


def test_an_address_without_siblings_has_conflicts() -> None:
    planned = plan(gateway("a", 9000, 80), gateway("b", 9000, 80), address="0.0.0.0")
    assert shown(planned) == {
        "a:80": "0.0.0.0:8080",
        "a:9000": "0.0.0.0:9000",
        "b:80": "0.0.0.0:10080",
        "b:9000": "tcp port 9000 of 0.0.0.0 is already bound for Gateway ns/a",
    }


def test_all_addresses_include_each_one() -> None:
    planned = plan(gateway("a", 9000, addresses=("0.0.0.0",)), gateway("b", 9000, addresses=("192.0.2.1",)), gateway("c", 9000))
    assert shown(planned)["a:9000"] == "0.0.0.0:9000"
    assert shown(planned)["b:9000"] == "tcp port 9000 of 192.0.2.1 is already bound for Gateway ns/a"
    assert shown(planned)["c:9000"] == "tcp port 9000 of 127.0.0.1 is already bound for Gateway ns/a"


def test_every_address_that_is_asked_for_is_bound() -> None:
    first = plan(gateway("a", 80, addresses=("127.0.0.8", "127.0.0.9")))
    assert shown(first) == {"a:80": "127.0.0.8:8080 127.0.0.9:8080"}
    second = plan(gateway("a", 80, addresses=("127.0.0.7", "127.0.0.9")), previous=first)
    assert shown(second) == {"a:80": "127.0.0.7:8080 127.0.0.9:8080"}


def test_who_asks_for_an_address_goes_before_who_takes_any() -> None:
    planned = plan(gateway("a", 9000), gateway("b", 9000, addresses=("127.0.0.1",)))
    assert shown(planned) == {"a:9000": "127.0.0.2:9000", "b:9000": "127.0.0.1:9000"}


def test_a_hostname_is_no_address() -> None:
    (problem,) = plan(gateway("a", 9000, addresses=("gw.example.com",))).problems
    assert problem.reason == "AddressNotUsable"
    assert problem.message.startswith("gw.example.com is not an IP address")


def test_a_port_of_another_process_is_a_problem_unless_we_chose_it() -> None:
    used = {("127.0.0.1", 8080): "in use by nginx", ("127.0.0.1", 9000): "in use by nginx"}
    planned = plan(gateway("a", 80, 9000), used=used)
    assert shown(planned) == {"a:80": "127.0.0.1:10080", "a:9000": "in use by nginx"}
    assert [problem.reason for problem in planned.problems] == ["PortUnavailable"]


def test_places_of_our_own_envoy_are_free_for_us() -> None:
    first = plan(gateway("a", 9000))
    used = {("127.0.0.1", 9000): "in use by envoy"}
    assert shown(plan(gateway("a", 9000), previous=first, used=used)) == {"a:9000": "127.0.0.1:9000"}
    assert shown(plan(gateway("b", 9000), previous=first, used=used)) == {"b:9000": "127.0.0.1:9000"}


GATEWAYS = st.lists(
    st.builds(
        lambda name, ports, addresses: gateway(name, *ports, addresses=addresses),
        st.sampled_from("abcdef"),
        st.sets(st.sampled_from([22, 80, 443, 8080, 8443, 9000, 10443]), min_size=1),
        st.sampled_from([(), (), (), ("127.0.0.1",), ("127.0.0.2", "127.0.0.3")]),
    ),
    unique_by=lambda made: made.key,
)


@given(st.lists(GATEWAYS, min_size=1, max_size=4), st.integers(), st.sampled_from(["127.0.0.1", "0.0.0.0", "127.0.0.250"]))
def test_every_port_is_bound_once_or_a_problem(steps: list[list[Gateway]], seed: int, address: str) -> None:
    previous = PortPlan()
    for gateways in steps:
        planned = plan(*gateways, previous=previous, address=address)
        shuffled = random.Random(seed).sample(gateways, len(gateways))
        assert plan(*shuffled, previous=previous, address=address) == planned, "order of arrival must not matter"
        wanted = {PortKey(made.key, port.number, port.transport) for made in gateways for port in made.ports}
        assert planned.bindings.keys() | {problem.key for problem in planned.problems} == wanted
        asked = {made.key: max(1, len(made.addresses)) for made in gateways}
        assert sum(map(len, planned.bindings.values())) + len(planned.problems) == sum(asked[key.gateway] for key in wanted)
        places = [(one.address, one.port) for bound in planned.bindings.values() for one in bound]
        assert len(set(places)) == len(places)
        assert all(port >= 1024 for _, port in places)
        for key in wanted & previous.bindings.keys():
            fitting = [one for one in previous.bindings[key] if fits(key, gateways, one, address)]
            chosen_by_us = not next(made.addresses for made in gateways if made.key == key.gateway)
            assert set(fitting[:1] if chosen_by_us else fitting) <= set(planned.bindings.get(key, ()))
        previous = planned


def fits(key: PortKey, gateways: list[Gateway], binding: LocalBinding, address: str) -> bool:
    asked = next(made.addresses for made in gateways if made.key == key.gateway)
    if asked:
        return binding.address in asked
    if not address.startswith("127."):
        return binding.address == address
    return binding.address.startswith("127.") and int(binding.address[8:]) >= int(address[8:])


@pytest.mark.parametrize(("transport", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_the_machine_is_asked(transport, kind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        # As another gateway's Envoy would hold it: to bind with SO_REUSEPORT as well would succeed, and take its traffic.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        if transport == "tcp":
            holder.listen()
        port = holder.getsockname()[1]
        found = unusable(Place("127.0.0.1", port, transport))
        assert found is not None
        assert found.reason == "PortUnavailable"
        assert found.message.startswith(f"{transport} port {port} of 127.0.0.1 is in use by process {os.getpid()} (")
        assert unusable(Place("127.0.0.2", port, transport)) is None
    assert unusable(Place("127.0.0.1", port, transport)) is None
    away = unusable(Place("192.0.2.1", port, transport))
    assert away == Unusable("AddressNotUsable", "192.0.2.1 is not an address of this machine")


def test_the_machine_says_from_where_ports_are_free() -> None:
    first = first_unprivileged_port()
    if first == 0:
        assert unusable(Place("127.0.0.7", 1, "tcp")) is None
    else:
        assert unusable(Place("127.0.0.7", first - 1, "tcp")) is not None
