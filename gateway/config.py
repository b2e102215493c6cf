"""Settings of one gateway process."""

from dataclasses import dataclass, replace

from gateway.settings.doors import DoorSettings
from gateway.settings.keys import KeySettings
from gateway.settings.media import MediaSettings
from gateway.settings.tiers import TierSettings
from protos.process.security import HopSettings, check_hops
from protos.process.settings import check, setting
from protos.wire.channels import MIB
from protos.wire.credentials import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(HopSettings, MediaSettings, KeySettings, DoorSettings, TierSettings):
    """What an operator may choose; environment names are GATEWAY_<FIELD>."""

    bundle: str = setting("folder of the exported bundle")
    model_name: str | None = setting("name clients use; unset: the bundle's", default=None)
    max_stored_responses: int = setting(
        "answers of /v1/responses kept in memory for previous_response_id; 0 keeps none",
        default=1000,
        least=0,
    )
    max_stored_bytes: int = setting(
        "bytes of those answers with their conversations and images", default=256 * MIB, least=0
    )
    prepare_threads: int = setting(
        "threads that prepare short requests; long texts take half as many", default=2, least=1
    )
    request_deadline_s: float = setting(
        "seconds until an answer is complete, or a stream's first token is there", default=300.0
    )
    stream_deadline_s: float = setting("seconds until a stream is complete", default=3600.0)

    def __post_init__(self) -> None:
        check(self)
        check_hops(self)
        self.check_doors()
        self.check_tiers()
        self.check_media()
        self.check_keys()

    @property
    def tier_credentials(self) -> Credentials:
        """What this gateway shows to tiers and asks of them."""
        return replace(self.credentials, server_name=self.tls_tier_name)

    @property
    def shown(self) -> tuple[Credentials, ...]:
        """All credentials of which this gateway shows a certificate: to tiers and to clients."""
        return self.credentials, self.door_credentials

    def unprotected(self) -> tuple[str, ...]:
        """The settings without which strangers could use or overhear the doors."""
        tls = () if self.door_certificate else ("door_certificate",)
        known = self.api_keys or self.door_authority
        return tls if known else (*tls, "api_key")
