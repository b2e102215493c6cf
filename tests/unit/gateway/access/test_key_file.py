"""Keys from a file."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.access.accounts import KeyLimits, Rated
from gateway.access.key_file import KeyFile, parsed
from gateway.access.keys import KeyEntry, KeyRing
from protos.process.settings import SettingError
from protos.wire.errors import Reason, ServiceError
from tests.support.readme import blocks

HASH = hashlib.sha256(b"open sesame").hexdigest()
WEB = '[[keys]]\nname = "web"\nkey = "s3cret-web"\n'


def test_every_field_is_read() -> None:
    web, batch = parsed(
        f"""
        {WEB}
        [[keys]]
        name = "batch"
        key_sha256 = "{HASH}"
        max_in_flight = 4
        requests_per_minute = 5
        prompt_tokens_per_minute = 6
        image_tokens_per_minute = 7
        priority = -8
        """
    )
    assert web == KeyEntry.of("web", "s3cret-web")
    rates = {Rated.REQUESTS: 5, Rated.PROMPT_TOKENS: 6, Rated.IMAGE_TOKENS: 7}
    limits = KeyLimits(max_in_flight=4, per_minute=rates, priority=-8)
    assert batch == KeyEntry.of("batch", "open sesame", limits)


def test_the_example_of_the_readme_is_read() -> None:
    tomls = (block.text for block in blocks() if block.language == "toml")
    (example,) = (text for text in tomls if "[[keys]]" in text)
    (web,) = parsed(example)
    assert web.digest == KeyEntry.of("web", "abc123").digest
    assert web.limits.per_minute[Rated.IMAGE_TOKENS] == 50_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1 to 1000 tables"),
        ("keys = 3", "1 to 1000 tables"),
        ('keys = ["s3cret-web"]', "must be a table"),
        ('"s3cret-web" = 1\n' + WEB, "alone"),
        ('[[keys]]\nname = "web"\nkey = s3cret-web\n', "line 3"),
        ('[[keys]]\nkey = "s3cret-web"\n', "name must be"),
        ('[[keys]]\nname = "a b"\nkey = "s3cret-web"\n', "name must be"),
        ('[[keys]]\nname = "web"\n', "either key or key_sha256"),
        (WEB + f'key_sha256 = "{HASH}"', "either key or key_sha256"),
        ('[[keys]]\nname = "web"\nkey = "s3cret web"\n', "key must be"),
        ('[[keys]]\nname = "web"\nkey = ""\n', "key must be"),
        ('[[keys]]\nname = "web"\nkey_sha256 = "s3cret-web"\n', "64 hexadecimal"),
        (WEB + "max_in_fligth = 1", "like max_in_flight;"),
        (WEB + '"s3cret-web" = 1', "unknown field; expected name"),
        (WEB + "max_in_flight = 0", r"keys\[0\].max_in_flight must be"),
        (WEB + "requests_per_minute = true", "requests_per_minute must be"),
        (WEB + "image_tokens_per_minute = 1.5", "image_tokens_per_minute must be"),
        (WEB + "priority = 101", "priority must be"),
    ],
)
def test_a_file_that_is_wrong_is_told_without_its_keys(text: str, told: str) -> None:
    with pytest.raises(SettingError, match=told) as caught:
        parsed(text)
    assert "s3cret" not in str(caught.value)


def opened(path: Path, text: str, others: tuple[KeyEntry, ...] = ()) -> tuple[KeyRing, KeyFile]:
    path.write_text(text)
    ring = KeyRing(others)
    file = KeyFile(path, ring, others=others)
    file.load()
    return ring, file


def names(ring: KeyRing) -> list[str]:
    return [account.name for account in ring.accounts]


def test_names_and_keys_are_distinct(tmp_path: Path) -> None:
    twice = WEB + '[[keys]]\nname = "web"\nkey = "other"\n'
    with pytest.raises(SettingError, match="web is the name of two"):
        opened(tmp_path / "keys", twice)
    with pytest.raises(SettingError, match="web has the key of key-1"):
        opened(tmp_path / "keys", WEB, (KeyEntry.of("key-1", "s3cret-web"),))
    with pytest.raises(SettingError, match="cannot be read"):
        KeyFile(tmp_path / "none", KeyRing(), others=()).load()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway.access.key_file")
    ring, file = opened(tmp_path / "keys", WEB, (KeyEntry.of("key-1", "one"),))
    web = ring.caller("Bearer s3cret-web").account
    web.usage.requests = 3
    watching = asyncio.create_task(file.watch(0.01))
    try:
        (tmp_path / "keys").write_text(WEB + "no TOML")
        await until(lambda: "stay" in caplog.text)
        await asyncio.sleep(0.05)
        assert caplog.text.count("stay as they were") == 1
        assert names(ring) == ["key-1", "web"]
        other = WEB.replace("s3cret-web", "s3cret-new") + '[[keys]]\nname = "b"\nkey = "bb"\n'
        (tmp_path / "keys").write_text(other)
        await until(lambda: names(ring) == ["key-1", "web", "b"])
    finally:
        watching.cancel()
    assert ring.caller("Bearer s3cret-new").account is web
    assert ring.caller("Bearer one").account.name == "key-1"
    with pytest.raises(ServiceError) as caught:
        ring.caller("Bearer s3cret-web")
    assert caught.value.reason is Reason.INVALID_API_KEY
    (tmp_path / "keys").unlink()
    file.reload()
    assert names(ring) == ["key-1", "web", "b"]
    assert "new: b; gone: none" in caplog.text
    assert "s3cret" not in caplog.text


def test_without_keys_none_is_needed() -> None:
    ring = KeyRing()
    assert ring.caller(None).key is None
    assert ring.caller("Bearer anything").key is None
    assert ring.accounts == ()
