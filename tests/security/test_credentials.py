"""Files of certificates and secrets: what is accepted, what is followed, what is said of one that cannot be used."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from simulator.errors import SettingError
from simulator.security import credentials as watching
from simulator.security.credentials import PLAIN, VARIABLES, Credentials, Watched, is_loopback, read_secrets
from tests.security.made import OTHER_TOKEN, TOKEN, Authority, secret


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def test_without_files_nothing_is_asked_or_shown() -> None:
    assert PLAIN.tokens is None and not PLAIN.wants_certificates
    assert PLAIN.server_context is None and PLAIN.client_context() is None
    assert PLAIN.call_metadata("anywhere:1") == ()
    PLAIN.require_safe("0.0.0.0")


def test_all_tokens_of_the_file_let_in_and_the_first_is_shown(tmp_path: Path) -> None:
    found = Credentials(token_file=secret(tmp_path / "tokens", OTHER_TOKEN, TOKEN))
    for right in (f"Bearer {TOKEN}", f"bearer {OTHER_TOKEN}", f"BEARER  {TOKEN} ", f"Bearer {TOKEN}".encode()):
        assert found.admits(right), right
    wrong = [None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
    wrong += [f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN},{OTHER_TOKEN}", "Bearer # one a line", "Bearer \udcff"[:-1]]
    assert not any(map(found.admits, wrong))
    assert found.call_metadata("127.0.0.1:1") == (("authorization", f"Bearer {OTHER_TOKEN}"),)


@pytest.mark.parametrize("text", ["", "# a comment\n\n", "short", "a space in it, and long", "ünïcödé-is-not-ascii"])
def test_a_file_without_a_usable_secret_is_named_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(SettingError, match=rf"^token_file = {path}: .*openssl rand -hex 32") as caught:
        Credentials(token_file=path)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    own, other = authority.issue("own"), authority.issue("other")
    nothing, rubbish = tmp_path / "nothing", secret(tmp_path / "rubbish", "no certificate")
    mixed = {"tls_cert": own["tls_cert"], "tls_key": other["tls_key"], "tls_ca": authority.ca}
    for given, named in (
        ({"token_file": nothing}, "token_file = .*No such file.*: name a file that this process may read"),
        ({"tls_ca": nothing}, "tls_ca = .*No such file"),
        ({"tls_ca": rubbish}, "tls_ca = .*no certificates in PEM"),
        (own | {"tls_ca": authority.ca, "tls_cert": rubbish}, "tls_cert = .*no certificate in PEM with the key of"),
        (mixed, "tls_cert = .*no certificate in PEM with the key of .*MISMATCH"),
        ({"tls_cert": own["tls_cert"]}, "tls_cert = .*name tls_key too"),
        ({"tls_key": own["tls_key"]}, "tls_key = .*name tls_cert too"),
        (own, "tls_cert = .*anybody could call: name tls_ca.* or token_file"),
    ):
        with pytest.raises(SettingError, match=named) as caught:
            Credentials(**given)
        assert "\n" not in str(caught.value)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(authority: Authority) -> None:
    own = authority.issue("own")
    key = serialization.load_pem_private_key(own["tls_key"].read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"s3cret")
    form = serialization.PrivateFormat.PKCS8
    own["tls_key"].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    with pytest.raises(SettingError, match=r"tls_cert = .*without a password \(it has a password\)"):
        Credentials(**own, tls_ca=authority.ca)


def test_a_token_goes_nowhere_unencrypted(tmp_path: Path, authority: Authority) -> None:
    token = secret(tmp_path / "token", TOKEN)
    clear = Credentials(token_file=token)
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/x", "ipv4:127.0.0.1:1,127.0.0.2:1"):
        assert clear.call_metadata(address), address
    for address in ("router:1", "dns:///router:1", "10.0.0.1:1", "127.0.0.1:1,10.0.0.1:1"):
        with pytest.raises(SettingError, match="token_file = .*must not travel unencrypted.* name tls_ca") as caught:
            clear.call_metadata(address)
        assert TOKEN not in str(caught.value)
        assert authority.client(token).call_metadata(address), "by TLS it may"
    with pytest.raises(
        SettingError, match=r"host = 0\.0\.0\.0: .*name tls_cert and tls_key, or listen at 127\.0\.0\.1"
    ):
        clear.require_safe("0.0.0.0")
    clear.require_safe("127.0.0.1")
    assert not is_loopback("12.7.0.0:1")


def test_the_environment_names_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    assert Credentials.from_environment() == PLAIN
    monkeypatch.setenv("FLICKER_TOKEN_FILE", str(secret(tmp_path / "token", TOKEN)))
    assert Credentials.from_environment().admits(f"Bearer {TOKEN}")


def test_a_file_is_read_again_when_it_has_changed_and_kept_while_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = secret(tmp_path / "token", TOKEN)
    found = Watched([path], lambda: read_secrets("token_file", path))
    renamed = secret(tmp_path / "new", OTHER_TOKEN)
    os.replace(renamed, path)
    assert found() == (TOKEN.encode(),), "not looked at so soon"
    now[0] += watching.CHECK_INTERVAL
    assert found() == (OTHER_TOKEN.encode(),) and found.version == 1
    path.write_text("half")
    now[0] += watching.CHECK_INTERVAL
    assert found() == (OTHER_TOKEN.encode(),) and found.version == 1
    assert "not taken over" in caplog.text and "half" not in caplog.text
    path.unlink()
    now[0] += watching.CHECK_INTERVAL
    assert found() == (OTHER_TOKEN.encode(),)
    secret(path, TOKEN)
    now[0] += watching.CHECK_INTERVAL
    assert found() == (TOKEN.encode(),)
