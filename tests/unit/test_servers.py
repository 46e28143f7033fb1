"""Which of several PostgreSQL servers is the primary, by what each says about itself."""

from __future__ import annotations

import socket

from hub.store.servers import Servers, State

ONE, TWO = ("a", "5432"), ("b", "5433")


def servers() -> Servers:
    return Servers("postgresql://hub@a:5432,b:5433/hub", {})


def test_a_url_with_one_host_has_no_preference() -> None:
    one = Servers("postgresql://hub@a/hub", {})
    assert not one.several and one.preference() == {}


def test_a_primary_with_a_lower_timeline_is_stale() -> None:
    both = servers()
    assert both.judge({ONE: State(1, 1), TWO: State(1, 2)})
    assert both.stale == {ONE} and both.preference() == {"host": "b", "port": "5433"}


def test_an_old_primary_is_recognised_while_the_new_one_is_out_of_reach() -> None:
    both = servers()
    assert not both.judge({ONE: State(1, 0), TWO: State(1, 2)})
    assert both.judge({ONE: State(1, 1), TWO: None}) and both.stale == {ONE}


def test_a_stale_server_stays_so_while_it_is_silent_and_returns_as_a_standby() -> None:
    both = servers()
    both.judge({ONE: State(1, 1), TWO: State(1, 2)})
    assert not both.judge({ONE: None, TWO: State(1, 2)}) and both.stale == {ONE}
    assert both.judge({ONE: State(1, 0), TWO: State(1, 2)}) and not both.stale


def test_a_primary_of_another_cluster_is_stale() -> None:
    both = servers()
    both.judge({ONE: State(1, 3), TWO: State(1, 0)})
    assert both.judge({ONE: State(1, 3), TWO: State(2, 9)}) and both.stale == {TWO}


def test_a_server_that_does_not_respond_is_tried_last() -> None:
    both = servers()
    both.try_last(ONE)
    assert both.preference() == {"host": "b,a", "port": "5433,5432"}


def test_a_server_that_refuses_responds_and_a_silent_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and sends nothing
        server = ("127.0.0.1", str(silent.getsockname()[1]))
        assert not Servers("postgresql://hub@127.0.0.1/hub", {}).responds(server)
    assert Servers("postgresql://hub@127.0.0.1/hub", {}).responds(server)
