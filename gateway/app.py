"""The gateway as a whole: two doors, one pipeline, two tiers behind it."""

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from socket import socket
from typing import Any

from gateway.access.admission import Admission
from gateway.access.key_file import open_keys
from gateway.access.tenants import Tenants
from gateway.answer.detokenize import TokenBytes
from gateway.config import GatewayConfig
from gateway.derived import brought_rules, moving_of, patience_of, prompt_limits, served_model
from gateway.fleet.discovery import Discovery
from gateway.fleet.router import State
from gateway.http.admin.listener import admin_listener
from gateway.http.admin.routes import Admin
from gateway.http.apis import asking_routes
from gateway.http.cors import with_cors
from gateway.http.guard import Guard
from gateway.http.ollama.models import ModelFacts
from gateway.http.routes import http_app
from gateway.http.serving.listener import Listener
from gateway.media.fetch import Fetcher
from gateway.metrics import GatewayMetrics
from gateway.pipeline import Pipeline
from gateway.prompt.builder import PromptBuilder
from gateway.rpc.access import ReflectionKey
from gateway.rpc.parsing import Parsing
from gateway.rpc.servicer import ChatServicer
from gateway.service import ChatService
from gateway.threads import Threads
from gateway.tiers.decoder import DecoderClient
from gateway.tiers.embeddings import EmbeddingCache, features_bytes
from gateway.tiers.vision import VisionClient
from gateway.tiers.watch import Watching
from protos.bundle.manifest import Bundle
from protos.process.server import GrpcServer, bind
from protos.tandem.v1 import gateway_pb2, gateway_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES, MIB
from protos.wire.credentials import CredentialFiles

logger = logging.getLogger(__name__)


SERVICE = gateway_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name


class Gateway:
    """One gateway process. Use as an async context manager: serving inside, drained after.

    Raises:
        SettingError: the file of the digest key, or that of keys, cannot be used.
        CredentialError: a file of TLS or of the token cannot.
        BundleError: the bundle's processor folder is missing or damaged, or a tier is there and
            serves another bundle.
        BindError: a door cannot listen where it should.
    """

    def __init__(self, config: GatewayConfig, bundle: Bundle) -> None:
        self._config = config
        self._manifest = bundle.manifest
        self._admission = Admission(
            max_requests=config.max_in_flight,
            max_bytes=config.max_in_flight_bytes,
            max_of_tenant=config.most_of_key,
        )
        self._threads = Threads(config.prepare_threads)
        watching = Watching(
            interval_s=config.watch_interval_s,
            discover_interval_s=config.discover_interval_s,
            wait_s=config.tier_wait_s,
        )
        files = CredentialFiles(config.tier_credentials)
        self._vision = VisionClient(
            Discovery("vision", config.sources_of("vision")),
            bundle_digest=bundle.digest,
            level_count=1 + bundle.manifest.deepstack_level_count,
            watching=watching,
            files=files,
        )
        self._decoder = DecoderClient(
            Discovery("decoder", config.sources_of("decoder")),
            bundle_digest=bundle.digest,
            watching=watching,
            files=files,
        )
        self.keys, self._key_file = open_keys(config.api_keys, config.key_file)
        self._embeddings = EmbeddingCache(
            max_bytes=config.embedding_cache_mib * MIB,
            token_bytes=features_bytes(bundle.manifest),
        )
        self._files = Fetcher(config.media_policy, config.fetch_limits)
        tenants = Tenants(config.secret(), bundle_digest=bundle.digest)
        builder = PromptBuilder(bundle, limits=prompt_limits(config), digest_key=tenants.image_key)
        self._builder = builder
        self._token_bytes = TokenBytes(builder.tokenizer)
        self._metrics = GatewayMetrics(config.model_name or bundle.manifest.model_id)
        self._metrics.watch(self._admission, vision=self._vision, decoder=self._decoder)
        self._metrics.watch_keys(self.keys)
        self._metrics.watch_embeddings(self._embeddings)
        self._metrics.watch_certificates(config.shown)
        self._service = self._make_service(bundle, builder, tenants)
        # The admin's is closed first, which could undo the draining; then the others together,
        # then what they use.
        self._admin_door = AsyncExitStack()
        self._http_door = AsyncExitStack()
        self._grpc_door = AsyncExitStack()
        self._stack = AsyncExitStack()
        self._leaving = False
        self.http_port = 0
        self.metrics_port: int | None = None
        self.grpc_port = 0
        self.admin_port: int | None = None

    async def __aenter__(self) -> "Gateway":
        try:
            self._stack.enter_context(self._threads)
            serving = self._metrics.serving(self._config.metrics_host, self._config.metrics_port)
            self.metrics_port = self._stack.enter_context(serving)
            await self._stack.enter_async_context(self._files)
            await self._stack.enter_async_context(self._vision)
            logger.info("images: %s", self.card()["image_limits"])
            await self._stack.enter_async_context(self._decoder)
            self._watch_keys()
            # Both ports are taken before either door opens.
            listening = bind(self._config.host, self._config.http_port)
            self._stack.callback(listening.close)
            server = self._grpc_server()
            self.grpc_port = server.port
            await self._grpc_door.enter_async_context(server)
            reporting = asyncio.create_task(self._report_health(server))
            self._stack.push_async_callback(_cancel, reporting)
            listener = self._listener(listening)
            await self._http_door.enter_async_context(listener)
            self.http_port = listener.port
            self.admin_port = await self._open_admin()
        except BaseException:  # Cancelling included: a half-open gateway must not stay.
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leaving = True
        if kind is None:
            await asyncio.sleep(self._config.drain_notice_s)
        await self._admin_door.aclose()
        self._admission.draining = True
        await self._close()

    async def _close(self) -> None:
        await self._admin_door.aclose()
        await asyncio.gather(self._http_door.aclose(), self._grpc_door.aclose())
        await self._stack.aclose()

    async def _open_admin(self) -> int | None:
        config = self._config
        if config.admin_port is None:
            return None
        routers = (self._vision.router, self._decoder.router)
        admin = Admin(self._admission, self.keys, routers)
        listening = bind(config.admin_host, config.admin_port)
        self._stack.callback(listening.close)
        listener = admin_listener(admin, config, listening)
        await self._admin_door.enter_async_context(listener)
        return listener.port

    def _watch_keys(self) -> None:
        if self._key_file is not None:
            watching = asyncio.create_task(self._key_file.watch(self._config.watch_interval_s))
            self._stack.push_async_callback(_cancel, watching)

    def reload_keys(self) -> None:
        """Reads the file of keys again, where there is one."""
        if self._key_file is not None:
            self._key_file.reload()

    def health(self) -> dict[str, Any]:
        """The body of GET /health.

        `status` is "ok", "degraded" (text is answered, images are not), "unavailable" or
        "draining"; `tiers` tells each tier's state. `ready` is whether to send requests here:
        text alone is enough once the vision tier has been there, so that its loss leaves what
        works; before, the whole is still starting.
        """
        tiers = {
            client.router.tier: client.router.status() for client in (self._decoder, self._vision)
        }
        if self._leaving or self._admission.draining:
            status = "draining"
        elif tiers["decoder"] != State.SERVING:
            status = "unavailable"
        else:
            status = "ok" if tiers["vision"] == State.SERVING else "degraded"
        ready = status in ("ok", "degraded") and self._vision.router.has_served()
        return {
            "status": status,
            "ready": ready,
            "model": self._service.served.name,
            "tiers": tiers,
        }

    def context_length(self) -> int:
        """Most tokens of prompt and answer: the lower of the model's and its decoders'."""
        contexts = (endpoint.max_context for endpoint in self._decoder.router.endpoints)
        known = [context for context in contexts if context]
        return min([self._builder.max_context, *known])

    def card(self) -> dict[str, Any]:
        """What GET /v1/models says of the model: the lower of this gateway's and its tiers' limits.

        A tier that has not been there yet has no say.
        """
        return self._service.served.card(
            context_length=self.context_length(),
            limits=self._builder.media_limits(self._vision.image_limits),
            settings=self._builder.settings,
            videos=self._builder.videos.limits(self._vision.image_limits),
            pdfs=self._builder.limits.pdfs.under(self._vision.image_limits),
            video_settings=self._builder.videos.settings,
        )

    def _make_service(
        self, bundle: Bundle, builder: PromptBuilder, tenants: Tenants
    ) -> ChatService:
        config = self._config
        patience = patience_of(config)
        pipeline = Pipeline(
            vocab_size=bundle.manifest.text.vocab_size,
            builder=builder,
            token_bytes=self._token_bytes,
            vision=self._vision,
            decoder=self._decoder,
            threads=self._threads,
            patience=patience,
            moving=moving_of(config, lambda: self._leaving),
            embeddings=self._embeddings,
            brought=brought_rules(bundle.manifest, tenants),
            metrics=self._metrics,
        )
        return ChatService(
            pipeline=pipeline,
            served=served_model(config, bundle),
            admission=self._admission,
            patience=patience,
            tenants=tenants,
            keys=self.keys,
            files=self._files,
            metrics=self._metrics,
        )

    def _grpc_server(self) -> GrpcServer:
        config = self._config
        parsing = Parsing()
        server = GrpcServer(
            host=config.host,
            port=config.grpc_port,
            services=(SERVICE,),
            reflection=config.reflection,
            interceptors=(ReflectionKey(self._service.authorize), parsing),
            max_receive_bytes=LARGE_MESSAGE_BYTES,
            drain_timeout_s=config.drain_timeout_s,
            credentials=config.door_credentials,
        )
        servicer = ChatServicer(self._service, parsing, idle_s=config.slow_client_s)
        gateway_pb2_grpc.add_ChatServiceServicer_to_server(servicer, server.server)
        return server

    async def _report_health(self, server: GrpcServer) -> None:
        """Makes grpc.health.v1 say what GET /health/ready says."""
        while True:
            await server.set_serving(self.health()["ready"])
            await asyncio.sleep(self._config.watch_interval_s)

    def _listener(self, listening: socket) -> Listener:
        config = self._config
        asking = asking_routes(
            config,
            self._service,
            threads=self._threads,
            token_bytes=self._token_bytes,
            vocab_size=self._builder.vocab_size,
            context_length=self.context_length,
            facts=self._model_facts(),
        )
        app = http_app(
            asking=asking,
            served=self._service.served,
            card=self.card,
            health=self.health,
            metrics=self._metrics.exposition,
            needs_key=lambda: bool(self._service.keys.accounts),
        )
        # Around everything, so that even the response to a bug carries the request's id.
        guarded = Guard(
            app,
            authorize=self._service.authorize,
            hosts=config.served_hosts,
            origins=config.allowed_origins,
            max_header_bytes=config.max_header_bytes,
        )
        return Listener(
            with_cors(guarded, config.allowed_origins),
            listening,
            max_header_bytes=config.max_header_bytes,
            slow_client_s=config.slow_client_s,
            drain_timeout_s=config.drain_timeout_s,
            tls=CredentialFiles(config.door_credentials) if config.door_certificate else None,
            is_leaving=lambda: self._leaving,
        )

    def _model_facts(self) -> ModelFacts:
        return ModelFacts(
            self._service.served,
            self._manifest,
            card=self.card,
            thinks=self._builder.thought_tokens is not None,
            calls=self._builder.calls is not None,
        )


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
