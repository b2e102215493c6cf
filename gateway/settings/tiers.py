"""Settings of the tiers behind the gateway, and of how long each is waited for."""

from dataclasses import dataclass

from gateway.fleet.sources import Source, source_of
from gateway.settings.entries import entries
from protos.process.settings import SettingError, setting
from protos.wire.channels import DECODER_PORT, VISION_PORT


@dataclass(frozen=True, kw_only=True)
class TierSettings:
    """Addresses of the tiers, and patience with them."""

    vision: str = setting(
        "addresses of the vision tier, comma-separated: HOST:PORT, or looked up again and again"
        " dns:NAME:PORT (every A and AAAA record is an address), srv:NAME (SRV records) and"
        " file:PATH (a HOST:PORT a line)",
        default=f"127.0.0.1:{VISION_PORT}",
    )
    decoder: str = setting(
        "addresses of the decoder tier, in the same forms", default=f"127.0.0.1:{DECODER_PORT}"
    )
    tls_tier_name: str | None = setting(
        "name that the certificates of all tiers are for, where addresses are looked up and no"
        " certificate can name them; unset: each is for the host of its address",
        default=None,
    )
    embedding_cache_mib: int = setting(
        "memory of encoded images and pieces of videos that are kept for who asks again, MiB; 0"
        " keeps none",
        default=256,
        least=0,
    )
    stream_idle_s: float = setting("longest silence within a stream, seconds", default=60.0)
    max_moves: int = setting(
        "times that an answer goes on at another decoder when its own is lost", default=3, least=0
    )
    move_wait_s: float = setting(
        "seconds that such an answer waits for a decoder to be ready", default=5.0, least=0
    )
    encode_deadline_s: float = setting(
        "seconds to encode a request's images, beside those for their patches", default=60.0
    )
    encode_patches_per_s: float = setting(
        "slowest pace of encoding that is waited for: a request's images get a second more for"
        " every so many patches",
        default=25.0,
        above=0,
    )
    watch_interval_s: float = setting(
        "seconds between looks at an address of a tier", default=1.0, above=0
    )
    discover_interval_s: float = setting(
        "seconds between look-ups of dns: and srv: names, and readings of files",
        default=5.0,
        above=0,
    )
    tier_wait_s: float = setting(
        "seconds a request waits for a tier of which nothing is there, before 503",
        default=0.0,
        least=0,
    )

    def check_tiers(self) -> None:
        """Checks the addresses.

        Raises:
            SettingError: a tier has none, or one of another form.
        """
        for name in ("vision", "decoder"):
            if not entries(getattr(self, name)):
                raise SettingError(f"{name} names no address")
            try:
                self.sources_of(name)
            except ValueError as error:
                raise SettingError(f"{name}: {error}") from error

    def sources_of(self, tier: str) -> tuple[Source, ...]:
        """What a tier's setting names.

        Args:
            tier: "vision" or "decoder".

        Raises:
            ValueError: an entry of another form.
        """
        return tuple(source_of(entry) for entry in entries(getattr(self, tier)))
