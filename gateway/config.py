"""Settings of one gateway process."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.fleet.sources import Source, source_of
from gateway.media.sources import FetchLimits, MediaHost, MediaPolicy, networks
from protos.media.limits import (
    MAX_ASPECT_RATIO,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGE_TOKENS,
    MAX_VIDEO_BYTES,
    MAX_VIDEO_FRAMES,
    MAX_VIDEO_SECONDS,
    MAX_VIDEO_TOKENS,
    PILLOW_PIXELS,
)
from protos.process.security import HopSettings, check_hops
from protos.process.settings import LOG_FORMATS, LOG_LEVELS, MAX_PORT, SettingError, check, setting
from protos.wire.addresses import LOOPBACK_NAMES, bare
from protos.wire.channels import (
    DECODER_PORT,
    GATEWAY_ADMIN_PORT,
    GATEWAY_GRPC_PORT,
    GATEWAY_HTTP_PORT,
    GATEWAY_METRICS_PORT,
    MIB,
    VISION_PORT,
)
from protos.wire.credentials import Credentials

MIN_DIGEST_KEY_CHARS = 16

# As browsers write an origin: lower case, and nothing behind the port.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(HopSettings):
    """What an operator may choose; environment names are GATEWAY_<FIELD>."""

    bundle: str = setting("folder of the exported bundle")
    vision: str = setting(
        "addresses of the vision tier, comma-separated: HOST:PORT, or looked up again and again"
        " dns:NAME:PORT (every A and AAAA record is an address), srv:NAME (SRV records) and"
        " file:PATH (a HOST:PORT a line)",
        default=f"127.0.0.1:{VISION_PORT}",
    )
    decoder: str = setting(
        "addresses of the decoder tier, in the same forms", default=f"127.0.0.1:{DECODER_PORT}"
    )
    host: str = setting("address both doors listen on", default="127.0.0.1")
    http_port: int = setting(
        "port of the HTTP door; 0 picks one", default=GATEWAY_HTTP_PORT, least=0, most=MAX_PORT
    )
    grpc_port: int = setting(
        "port of the gRPC door; 0 picks one", default=GATEWAY_GRPC_PORT, least=0, most=MAX_PORT
    )
    metrics_port: int | None = setting(
        f"port of Prometheus metrics that need no key, as {GATEWAY_METRICS_PORT}; 0 picks one;"
        " unset: only /metrics of the HTTP door",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    door_certificate: str | None = setting(
        "file (PEM) of the certificate that both doors show to clients, which then speak https and"
        " gRPC with TLS; read again when it changes; unset: no TLS",
        default=None,
    )
    door_key: str | None = setting(
        "file (PEM) of the private key of door_certificate", default=None
    )
    door_authority: str | None = setting(
        "file (PEM) of the authority that must have signed the certificate of every client; unset:"
        " clients need none",
        default=None,
    )
    tls_tier_name: str | None = setting(
        "name that the certificates of all tiers are for, where addresses are looked up and no"
        " certificate can name them; unset: each is for the host of its address",
        default=None,
    )
    admin_port: int | None = setting(
        f"port of admin operations, as {GATEWAY_ADMIN_PORT}; 0 picks one; unset: none",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    admin_host: str = setting("address of the admin port", default="127.0.0.1")
    admin_key: str | None = setting(
        "key that admin requests must carry; needed where admin_host is not loopback",
        default=None,
        secret=True,
    )
    model_name: str | None = setting("name clients use; unset: the bundle's", default=None)
    api_key: str | None = setting(
        "keys, comma-separated, one of which every request must carry; unset: none. Requests of"
        " different keys share no cached prefix",
        default=None,
        secret=True,
    )
    key_file: str | None = setting(
        "TOML file of further keys with a name, limits and a priority each, read again when it"
        " changes and on SIGHUP",
        default=None,
    )
    digest_key: str | None = setting(
        "secret of 16 characters or more that images and tenants are named with, so that"
        " gateways with the same one share their decoders' cached prefixes; better given by"
        " environment or digest_key_file than as a flag; unset: random",
        default=None,
        secret=True,
    )
    digest_key_file: str | None = setting(
        "file that holds digest_key, blanks around it ignored", default=None
    )
    allowed_hosts: str | None = setting(
        "Host names answered, comma-separated; unset: loopback names on a loopback host, else any",
        default=None,
    )
    cors_origins: str | None = setting(
        "origins, as in https://chat.example, whose web pages may ask this server, comma-separated;"
        " * for all; unset: none",
        default=None,
    )
    reflection: bool = setting("answer gRPC reflection", default=False)
    max_in_flight: int = setting("requests at work before 429", default=256, least=1)
    max_key_in_flight: int | None = setting(
        "requests of one key at work before 429, where key_file says nothing else of it; unset:"
        " three quarters of max_in_flight where there are several keys",
        default=None,
        least=1,
    )
    max_in_flight_bytes: int = setting(
        "bytes of their bodies before 429", default=512 * MIB, least=1
    )
    max_body_bytes: int = setting("largest request", default=32 * MIB, least=1)
    max_header_bytes: int = setting("largest set of HTTP headers", default=16 * 1024)
    max_image_mib: float = setting(
        "largest file of an image, MiB; the vision tier's limit applies where it is lower",
        default=MAX_IMAGE_BYTES / MIB,
        above=0,
    )
    max_image_pixels: int = setting(
        "most pixels of an image before resizing; the vision tier's limit applies where it is"
        " lower",
        default=MAX_IMAGE_PIXELS,
        least=1,
        most=PILLOW_PIXELS,
    )
    max_image_tokens: int = setting(
        "tokens that a larger image is resized to; the default is for CPUs, 4096 suits a GPU",
        default=MAX_IMAGE_TOKENS,
        least=MAX_ASPECT_RATIO,  # the thinnest image has a token for each of its squares
    )
    max_video_mib: float = setting(
        "largest file of a video, MiB; max_body_bytes and the vision tier's limit apply where they"
        " are lower",
        default=MAX_VIDEO_BYTES / MIB,
        above=0,
    )
    max_video_seconds: float = setting(
        "longest video, seconds; the vision tier's limit applies where it is lower",
        default=MAX_VIDEO_SECONDS,
        above=0,
    )
    max_video_frames: int = setting(
        "most frames of a video that are seen", default=MAX_VIDEO_FRAMES, least=2, most=2048
    )
    max_video_tokens: int = setting(
        "tokens that a larger video is resized to; the default is for CPUs, 12288 suits a GPU",
        default=MAX_VIDEO_TOKENS,
        least=2,
    )
    media_hosts: str | None = setting(
        "hosts that images are fetched from by http and https URLs, comma-separated, as in"
        " media.example, *.media.example or media.example:8443; unset: none",
        default=None,
    )
    public_media: bool = setting(
        "fetch images from every public host, on the ports of http and https", default=False
    )
    media_networks: str | None = setting(
        "networks, as in 10.1.0.0/16, comma-separated, that images are fetched from though they"
        " are not public; unset: none",
        default=None,
    )
    media_folder: str | None = setting(
        "folder below which images are read by file: URLs; unset: none are", default=None
    )
    media_connect_s: float = setting(
        "seconds to reach the server of an image or video", default=2.0, above=0
    )
    media_fetch_s: float = setting(
        "seconds to fetch an image or video in all", default=5.0, above=0
    )
    media_parallel: int = setting("images and videos fetched at the same time", default=16, least=1)
    max_stored_responses: int = setting(
        "answers of /v1/responses kept in memory for previous_response_id; 0 keeps none",
        default=1000,
        least=0,
    )
    max_stored_bytes: int = setting(
        "bytes of those answers with their conversations and images", default=256 * MIB, least=0
    )
    unknown_fields: str = setting(
        "refuse: a field that nobody here knows is an error; warn: it is left out, and the answer's"
        " header x-ignored-fields names it",
        default="refuse",
        choices=("refuse", "warn"),
    )
    embedding_cache_mib: int = setting(
        "memory of encoded images and pieces of videos that are kept for who asks again, MiB; 0"
        " keeps none",
        default=256,
        least=0,
    )
    prepare_threads: int = setting(
        "threads that prepare short requests; long texts take half as many", default=2, least=1
    )
    request_deadline_s: float = setting(
        "seconds until an answer is complete, or a stream's first token is there", default=300.0
    )
    stream_deadline_s: float = setting("seconds until a stream is complete", default=3600.0)
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
    slow_client_s: float = setting(
        "seconds a client may take for its headers, and between pieces of a body", default=20.0
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
    drain_notice_s: float = setting(
        "seconds on shutdown in which new requests are still taken, while /health/ready tells"
        " balancers to send them elsewhere and every answer closes its connection",
        default=0.0,
        least=0,
    )
    drain_timeout_s: float = setting(
        "seconds running requests get on shutdown, after drain_notice_s", default=30.0
    )
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="INFO", choices=LOG_LEVELS)
    log_format: str = setting(
        "text: plain lines; json: an object a line; auto: text on a terminal, else json",
        default="auto",
        choices=LOG_FORMATS,
    )

    def __post_init__(self) -> None:
        check(self)
        check_hops(self)
        self._check_doors()
        for name in ("vision", "decoder"):
            listed = entries(getattr(self, name))
            if not listed:
                raise SettingError(f"{name} names no address")
            try:
                self.sources_of(name)
            except ValueError as error:
                raise SettingError(f"{name}: {error}") from error
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingError(
                    f"cors_origins holds {origin!r}, expected SCHEME://HOST or SCHEME://HOST:PORT"
                )
        self._check_media()
        if self.api_key is not None and not self.api_keys:
            raise SettingError("api_key names no key")
        if self.admin_key == "":
            raise SettingError("admin_key is empty")
        if self.admin_key is None and self.admin_hosts is None:
            raise SettingError("admin_key is not set, and admin_host is beyond loopback")
        if self.digest_key is not None and self.digest_key_file is not None:
            raise SettingError("digest_key and digest_key_file are both set, expected one of them")
        if self.digest_key is not None and len(self.digest_key) < MIN_DIGEST_KEY_CHARS:
            raise SettingError(f"digest_key must have at least {MIN_DIGEST_KEY_CHARS} characters")

    def sources_of(self, tier: str) -> tuple[Source, ...]:
        """What a tier's setting names.

        Args:
            tier: "vision" or "decoder".

        Raises:
            ValueError: an entry of another form.
        """
        return tuple(source_of(entry) for entry in entries(getattr(self, tier)))

    def _check_doors(self) -> None:
        if (self.door_certificate is None) != (self.door_key is None):
            named, absent = "door_certificate", "door_key"
            if self.door_certificate is None:
                named, absent = absent, named
            raise SettingError(f"{absent} is not set, but {named} is: TLS needs both")
        if self.door_authority is not None and self.door_certificate is None:
            raise SettingError("door_authority needs door_certificate and door_key")

    @property
    def tier_credentials(self) -> Credentials:
        """What this gateway shows to tiers and asks of them."""
        return replace(self.credentials, server_name=self.tls_tier_name)

    @property
    def door_credentials(self) -> Credentials:
        """What both doors show to clients and ask of them."""
        return Credentials(
            tls=self.door_certificate is not None,
            certificate=self.door_certificate,
            key=self.door_key,
            authority=self.door_authority,
            prefix="door_",
        )

    def unprotected(self) -> tuple[str, ...]:
        """The settings without which strangers could use or overhear the doors."""
        tls = () if self.door_certificate else ("door_certificate",)
        known = self.api_keys or self.door_authority
        return tls if known else (*tls, "api_key")

    def _check_media(self) -> None:
        try:
            _ = self.media_policy
        except ValueError as error:
            raise SettingError(f"media_hosts or media_networks: {error}") from error
        if self.media_folder is not None and not Path(self.media_folder).is_dir():
            raise SettingError("media_folder is no folder")

    @property
    def media_policy(self) -> MediaPolicy:
        """Where images may be fetched from."""
        return MediaPolicy(
            hosts=tuple(MediaHost.parse(entry) for entry in entries(self.media_hosts or "")),
            any_public=self.public_media,
            networks=networks(entries(self.media_networks or "")),
            folder=self.media_folder,
        )

    @property
    def fetch_limits(self) -> FetchLimits:
        """What fetching one image may take."""
        return FetchLimits(
            connect_s=self.media_connect_s,
            total_s=self.media_fetch_s,
            parallel=self.media_parallel,
        )

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys; empty where none is needed."""
        return tuple(entries(self.api_key or ""))

    @property
    def most_of_key(self) -> int:
        """Requests of one key at work; with several, none of them can take every place."""
        if self.max_key_in_flight is not None:
            return self.max_key_in_flight
        several = len(self.api_keys) > 1 or self.key_file is not None
        return max(1, self.max_in_flight * 3 // 4) if several else self.max_in_flight

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Origins of web pages that may ask; empty for none."""
        return tuple(entries(self.cors_origins or ""))

    def secret(self) -> bytes:
        """What images and tenants are named with; reads `digest_key_file`.

        Raises:
            SettingError: the file cannot be read, or holds too little.
        """
        text = self.digest_key
        if self.digest_key_file is not None:
            try:
                text = Path(self.digest_key_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingError("digest_key_file cannot be read") from error
            if len(text) < MIN_DIGEST_KEY_CHARS:
                raise SettingError(
                    f"digest_key_file must hold at least {MIN_DIGEST_KEY_CHARS} characters"
                )
        return os.urandom(32) if text is None else text.encode()

    @property
    def served_hosts(self) -> tuple[str, ...] | None:
        """Host names requests may use; None answers any.

        A server on loopback answers loopback names only, so that a web page cannot reach it
        through a name of its own that it lets point to 127.0.0.1.
        """
        if self.allowed_hosts is not None:
            return tuple(bare(entry).lower() for entry in entries(self.allowed_hosts))
        return _loopback_names(self.host)

    @property
    def admin_hosts(self) -> tuple[str, ...] | None:
        """Host names admin requests may use, likewise."""
        return _loopback_names(self.admin_host)


def _loopback_names(host: str) -> tuple[str, ...] | None:
    return LOOPBACK_NAMES if bare(host) in LOOPBACK_NAMES else None


def entries(text: str) -> list[str]:
    """The entries of a comma-separated list, blanks dropped."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]
