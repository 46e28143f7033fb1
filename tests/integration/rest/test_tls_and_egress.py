"""TLS options and refused addresses of the REST transport."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.errors import (
    ConnectError,
    EgressRefusedError,
    NotSentError,
)
from hub.settings import Settings
from hub.transports.rest import RestTransport
from tests.integration.rest.calls import send
from tests.support.certificates import Authority
from tests.support.http_target import HttpTarget, Reply


class TestTls:
    def test_a_service_with_its_own_authority(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        with HttpTarget(Reply(200, "secure"), tls=authority.server()) as target:
            for _ in range(3):
                assert send(transport, target.url, options={"ca_file": authority.file}).body == "secure"
            assert target.connections == 1

    def test_one_that_nobody_vouches_for_is_refused(self, transport: RestTransport, tmp_path: Path) -> None:
        with HttpTarget(tls=Authority(tmp_path).server()) as target:
            with pytest.raises(ConnectError, match=r"certificate of .* is not accepted"):
                send(transport, target.url)
            assert not target.seen

    def test_one_for_another_name_is_refused(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        with HttpTarget(tls=authority.server("other.example")) as target, pytest.raises(ConnectError, match="certif"):
            send(transport, target.url, options={"ca_file": authority.file})

    def test_the_client_certificate_is_shown(self, transport: RestTransport, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        cert, key = authority.issue("client", client=True)
        with HttpTarget(Reply(200, "known"), tls=authority.server(client_ca=True)) as target:
            options = {"ca_file": authority.file, "client_cert": cert, "client_key": key}
            assert send(transport, target.url, options=options).body == "known"
            with pytest.raises(ConnectError):
                send(transport, target.url, options={"ca_file": authority.file})

    @pytest.mark.parametrize("option", ["ca_file", "client_cert"])
    def test_a_file_that_is_not_there_is_named(self, transport: RestTransport, tmp_path: Path, option: str) -> None:
        with pytest.raises(NotSentError, match=f"{option}: .*missing.pem: no such file"):
            send(transport, "https://127.0.0.1:1", options={option: str(tmp_path / "missing.pem")})

    def test_a_renewed_certificate_needs_no_restart(self, transport: RestTransport, tmp_path: Path) -> None:
        old_folder, new_folder = tmp_path / "old", tmp_path / "new"
        old_folder.mkdir()
        new_folder.mkdir()
        old, new = Authority(old_folder), Authority(new_folder)
        with HttpTarget(tls=new.server()) as target:
            with pytest.raises(ConnectError):
                send(transport, target.url, options={"ca_file": old.file})
            Path(old.file).write_bytes(Path(new.file).read_bytes())
            assert send(transport, target.url, options={"ca_file": old.file}).status == 204


class TestEgress:
    def test_metadata_is_refused_before_anything_is_sent(self, transport: RestTransport) -> None:
        with pytest.raises(EgressRefusedError, match="metadata") as caught:
            send(transport, "http://169.254.169.254/latest/meta-data/")
        assert not caught.value.retriable

    def test_private_addresses_by_setting(self, target: HttpTarget) -> None:
        closed = RestTransport(Settings(egress_private="deny"))
        with pytest.raises(EgressRefusedError, match="HUB_EGRESS_PRIVATE"):
            send(closed, target.url)
        with pytest.raises(EgressRefusedError):
            send(closed, target.url.replace("127.0.0.1", "localhost"))
        assert target.connections == 0
        opened = RestTransport(Settings(egress_private="deny", egress_allow="127.0.0.0/8"))
        assert send(opened, target.url).status == 204
        closed.close()
        opened.close()

    def test_the_token_endpoint_is_guarded_too(self, transport: RestTransport, target: HttpTarget) -> None:
        oauth2 = {"token_url": "http://169.254.169.254/token", "client_id": "x"}
        with pytest.raises(EgressRefusedError):
            send(transport, target.url, auth_type="oauth2", options={"oauth2": oauth2}, secrets={"client_secret": "s"})
        assert not target.seen
