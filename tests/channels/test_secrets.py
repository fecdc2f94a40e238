import hashlib
import hmac
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.channels.rules import SecretUnreadable
from lifesign.channels.secrets import SecretBox, derived_key, load_or_make_secret_key
from lifesign.secretfile import SecretKeyUnusable
from lifesign.settings import Settings

MASTER = "correct horse battery staple 0001"
OTHER = "correct horse battery staple 0002"
TEXT = "https://hooks.example.com/services/T0/B0/secret"


@given(st.text(), st.text(), st.text())
def test_what_is_sealed_can_be_opened_in_its_place(text: str, channel_id: str, path: str) -> None:
    box = SecretBox(MASTER)

    try:
        token = box.seal(text, channel_id, path)
    except UnicodeEncodeError:
        return  # lone surrogates: refused before they come here

    assert box.open(token, channel_id, path) == text


def test_the_key_is_the_one_that_rfc_5869_gives() -> None:
    # RFC 5869 by hand: PRK = HMAC(zeros, master), OKM = HMAC(PRK, info + 0x01).
    prk = hmac.digest(b"\0" * 32, MASTER.encode(), hashlib.sha256)
    expected = hmac.digest(prk, b"lifesign/channel-secrets/v1\x01", hashlib.sha256)

    assert derived_key(MASTER, "lifesign/channel-secrets/v1") == expected
    assert SecretBox(MASTER).key_id == hashlib.sha256(expected).hexdigest()[:8]


def test_a_sealed_value_has_its_four_parts_and_not_the_text() -> None:
    box = SecretBox(MASTER)

    version, key_id, nonce, sealed = box.seal(TEXT, "ch_1", "webhookUrl").split(".")

    assert version == "v1"
    assert key_id == box.key_id
    assert len(nonce) == 16
    assert len(sealed) == 84  # 47 characters and a tag of 16 bytes, in base64 without padding
    assert "secret" not in sealed


def test_the_same_text_is_sealed_differently_every_time() -> None:
    box = SecretBox(MASTER)

    assert box.seal(TEXT, "ch_1", "webhookUrl") != box.seal(TEXT, "ch_1", "webhookUrl")


@pytest.mark.parametrize(
    ("channel_id", "path"), [("ch_2", "webhookUrl"), ("ch_1", "secret"), ("ch_1", "headers.webhookUrl")]
)
def test_a_value_copied_to_another_row_or_field_does_not_open(channel_id: str, path: str) -> None:
    box = SecretBox(MASTER)
    token = box.seal(TEXT, "ch_1", "webhookUrl")

    with pytest.raises(SecretUnreadable) as raised:
        box.open(token, channel_id, path)

    assert (raised.value.channel_id, raised.value.path) == (channel_id, path)
    assert TEXT not in str(raised.value)


def test_a_damaged_value_does_not_open() -> None:
    box = SecretBox(MASTER)
    token = box.seal(TEXT, "ch_1", "secret")
    middle = len(token) - 20
    flipped = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]

    for damaged in (flipped, token[:-4], token + "AAAA", token.replace("v1.", "v2."), "", "plain", "v1.0.é.é", "..."):
        with pytest.raises(SecretUnreadable):
            box.open(damaged, "ch_1", "secret")


def test_a_value_sealed_under_a_previous_secret_opens_only_with_it() -> None:
    token = SecretBox(OTHER).seal(TEXT, "ch_1", "secret")

    assert SecretBox(MASTER, [OTHER]).open(token, "ch_1", "secret") == TEXT
    with pytest.raises(SecretUnreadable):
        SecretBox(MASTER).open(token, "ch_1", "secret")


def test_new_values_are_sealed_under_the_present_secret() -> None:
    token = SecretBox(MASTER, [OTHER, MASTER]).seal(TEXT, "ch_1", "secret")

    assert SecretBox(MASTER).open(token, "ch_1", "secret") == TEXT


def test_the_box_of_an_installation_knows_its_previous_secrets(tmp_path: Path) -> None:
    token = SecretBox(OTHER).seal(TEXT, "ch_1", "secret")
    settings = Settings.model_validate({"secret_key": MASTER, "secret_key_previous": f"unused, {OTHER} ,"})

    box = SecretBox.from_settings(tmp_path, settings)

    assert box.key_id == SecretBox(MASTER).key_id
    assert box.open(token, "ch_1", "secret") == TEXT
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    first = load_or_make_secret_key(directory, Settings())
    second = load_or_make_secret_key(directory, Settings())

    assert first == second
    assert len(first) == 64
    assert [entry.name for entry in directory.iterdir()] == ["secret.key"]
    assert stat.S_IMODE((directory / "secret.key").stat().st_mode) == 0o600


def test_a_wide_open_umask_does_not_open_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make_secret_key(tmp_path, Settings())
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_a_secret_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text(f"  {MASTER}\n")

    assert load_or_make_secret_key(tmp_path, Settings()) == MASTER


@pytest.mark.parametrize("content", [b"", b"short\n", b"x" * 31, b"\xff" * 40])
def test_a_file_that_cannot_serve_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)

    with pytest.raises(SecretKeyUnusable, match=r"secret\.key"):
        load_or_make_secret_key(tmp_path, Settings())

    assert path.read_bytes() == content
