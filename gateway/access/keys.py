"""The keys that are accepted now, and whose each is."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.access.accounts import UNLIMITED, Account, KeyLimits
from gateway.access.auth import given_key, wrong_key


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key as it is configured; `digest` is its SHA-256, the key itself is not kept."""

    name: str
    digest: bytes
    limits: KeyLimits = UNLIMITED

    @classmethod
    def of(cls, name: str, key: str, limits: KeyLimits = UNLIMITED) -> "KeyEntry":
        """The entry of a key that is given in words."""
        return cls(name=name, digest=digest_of(key), limits=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose request it is; `key` is None where no key is needed."""

    key: str | None
    account: Account


class KeyRing:
    """Finds the account of a request's key. Without entries no key is needed."""

    def __init__(self, entries: Sequence[KeyEntry] = ()) -> None:
        self._anyone = Caller(key=None, account=Account(""))
        self._accounts: dict[str, Account] = {}
        self._by_digest: dict[bytes, Account] = {}
        self.replace(entries)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Those of the keys that are accepted now."""
        return tuple(self._accounts.values())

    def replace(self, entries: Sequence[KeyEntry]) -> None:
        """Accepts these keys from now on; names that stay keep their account.

        Requests of a key that is gone run on with the account they have.
        """
        before, self._accounts, self._by_digest = self._accounts, {}, {}
        for entry in entries:
            account = before.get(entry.name) or Account(entry.name)
            account.limit(entry.limits)
            self._accounts[entry.name] = self._by_digest[entry.digest] = account

    def caller(self, authorization: str | None) -> Caller:
        """Whose request it is, by its `Authorization: Bearer KEY`.

        Keys are found by their digests, about which the time of a search tells nothing that
        leads to a key.

        Raises:
            ServiceError: INVALID_API_KEY, the key is missing or wrong.
        """
        if not self._by_digest:
            return self._anyone
        key = given_key(authorization)
        account = self._by_digest.get(digest_of(key))
        if account is None:
            raise wrong_key()
        return Caller(key=key, account=account)


def digest_of(key: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
