"""Who may share cached prefixes, and the secret names of images.

A decoder finds cached prefixes by token ids, span digests and a salt. All three are names only:
nobody who sees them can tell a key or an image, or make a name that hits what is another's.
"""

from blake3 import blake3

from gateway.request.job import MAX_CACHE_SALT_CHARS
from protos.wire.errors import InvalidRequest


class Tenants:
    """Makes the names.

    An image's digest depends on its encoded bytes, this secret and the bundle. Bytes and bundle
    decide its features: the bundle holds the image settings and the tower's weights, and the
    decoding of a file is the same everywhere.

    Args:
        secret: Gateways with the same one share cached prefixes.
        bundle_digest: Hex digest of the bundle.
    """

    def __init__(self, secret: bytes, *, bundle_digest: str) -> None:
        key = blake3(secret, derive_key_context="tandem 2026-11-21 names of tenants").digest()
        self._names = blake3(b"names", key=key).digest()
        self._salts = blake3(b"salts:" + bundle_digest.encode(), key=key).digest()
        self.image_key = blake3(b"images:" + bundle_digest.encode(), key=key).digest()
        # Features that callers bring have names apart from all images'.
        self.brought_key = blake3(b"brought:" + bundle_digest.encode(), key=key).digest()

    def name(self, api_key: str | None) -> bytes:
        """What the decoders know a key's sequences by: 16 bytes, or none where no key is needed."""
        if api_key is None:
            return b""
        return blake3(api_key.encode(), key=self._names).digest(16)

    def salt(self, api_key: str | None, cache_salt: str | None) -> bytes:
        """The salt of a request: empty, or 32 bytes that differ by key and by the client's salt.

        Args:
            api_key: The key the request carried; None where none is needed.
            cache_salt: What the client adds; None or empty adds nothing.

        Raises:
            InvalidRequest: the client's salt is too long.
        """
        added = cache_salt or ""
        if len(added) > MAX_CACHE_SALT_CHARS:
            raise InvalidRequest(
                f"cache_salt has {len(added)} characters, expected at most {MAX_CACHE_SALT_CHARS}",
                param="cache_salt",
            )
        if api_key is None and not added:
            return b""
        # The first part's length keeps two parts from passing for two others.
        first = (api_key or "").encode()
        named = len(first).to_bytes(8, "little") + first + added.encode(errors="surrogatepass")
        return blake3(named, key=self._salts).digest()
