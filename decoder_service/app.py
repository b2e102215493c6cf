"""One decoder process: what is loaded, and what is wired to what."""

import asyncio
import logging
from dataclasses import dataclass

from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.memory import (
    MemoryPlan,
    kv_budget_bytes,
    kv_token_bytes,
    plan_memory,
)
from decoder_service.cache.slots import Slots
from decoder_service.config import DecoderConfig
from decoder_service.engine.engine import Engine
from decoder_service.engine.step import StepExecutor
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.vocabulary import GrammarVocabulary
from decoder_service.model.batch import Runner
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.model.runner import make_runner
from decoder_service.model.sessions import GraphSession, open_graph
from decoder_service.rpc.request import RequestLimits
from decoder_service.rpc.servicer import DecoderServicer
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import Scheduler
from decoder_service.schedule.speculation import Speculation
from protos.bundle.manifest import Bundle
from protos.machine.limits import limits
from protos.machine.threads import apart
from protos.process.main import ServiceProcess
from protos.process.malformed import Malformed
from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = decoder_pb2.DESCRIPTOR.services_by_name["DecoderService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A bundle's model over an empty KV cache."""

    bundle: Bundle
    table: EmbeddingTable
    plan: MemoryPlan
    cache: KvCache
    runner: Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A bundle ready to run."""

    bundle: Bundle
    plan: MemoryPlan
    executor: StepExecutor


def load(config: DecoderConfig) -> Loaded:
    """Loads a bundle; see `load_model` for what it raises."""
    model = load_model(config)
    residency = Residency(
        Slots(model.cache, token_budget=model.plan.kv_tokens),
        Scheduler(prefill_chunk_tokens=config.prefill_chunk_tokens),
        max_sequences=model.plan.max_sequences,
    )
    executor = make_executor(
        model,
        residency,
        pacer=ChunkPacer(config.mixed_chunk_tokens),
        speculation=Speculation(config.draft_tokens if config.speculation == "auto" else 0),
    )
    return Loaded(bundle=model.bundle, plan=model.plan, executor=executor)


def make_executor(
    model: Model, residency: Residency, *, pacer: ChunkPacer, speculation: Speculation
) -> StepExecutor:
    """Joins a model with what decides about its steps; `residency` is over the model's cache."""
    return StepExecutor(
        runner=model.runner,
        table=model.table,
        residency=residency,
        level_count=model.bundle.manifest.deepstack_level_count,
        pacer=pacer,
        speculation=speculation,
    )


def load_model(config: DecoderConfig) -> Model:
    """Loads the decoder's part of the bundle and lays out the KV cache.

    Raises:
        BundleError: the bundle is missing or damaged.
        SettingError: the KV cache does not fit.
    """
    bundle = Bundle.open(config.bundle)
    bundle.verify_files(("decoder",))
    table = EmbeddingTable.open(bundle)
    # Taken before loading, less the files' sizes: afterwards it depends on what is mapped.
    free_bytes = limits().free_bytes
    session = open_graph(
        bundle,
        threads=config.thread_count,
        kernels=config.kernels,
        kv_dtype=config.kv_dtype,
    )
    plan = _memory_plan(config, bundle, session, free_bytes)
    logger.info("%s; weights: %s", plan.describe(), session.describe())
    text = bundle.manifest.text
    cache = KvCache(
        layer_count=text.num_hidden_layers,
        slot_count=plan.slot_count,
        head_count=text.num_key_value_heads,
        max_length=plan.max_context,
        head_dim=text.head_dim,
        dtype=session.kv_dtype,
    )
    return Model(
        bundle=bundle,
        table=table,
        plan=plan,
        cache=cache,
        runner=make_runner(session, bundle, cache),
    )


def _memory_plan(
    config: DecoderConfig, bundle: Bundle, session: GraphSession, free_bytes: int
) -> MemoryPlan:
    text = bundle.manifest.text
    return plan_memory(
        model_context=text.max_position_embeddings,
        token_bytes=kv_token_bytes(text, session.kv_dtype.itemsize),
        budget_bytes=kv_budget_bytes(
            available_bytes=free_bytes,
            weight_bytes=session.graph.weight_bytes + _table_bytes(bundle),
            kv_memory_mib=config.kv_memory_mib,
        ),
        max_sequences=config.max_sequences,
        max_context=config.max_context,
    )


def _table_bytes(bundle: Bundle) -> int:
    manifest = bundle.manifest
    return manifest.files[manifest.embedding_table.file].size


async def serve(config: DecoderConfig, process: ServiceProcess) -> int:
    """Serves until the process is to stop, then drains.

    Raises:
        BundleError, SettingError, BindError: the process cannot start.
    """
    server = GrpcServer(  # before loading: a taken port is reported at once
        host=config.host,
        port=config.port,
        services=(SERVICE,),
        drain_timeout_s=config.drain_timeout_s,
        reflection=config.reflection,
        interceptors=(Malformed(),),
        credentials=config.credentials,
    )
    loading = asyncio.create_task(apart(lambda: load(config)))
    stopping = asyncio.create_task(process.stop.wait())
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if loading.done():
        await serve_loaded(config, server, loading.result(), process)
    return 0


async def serve_loaded(
    config: DecoderConfig, server: GrpcServer, loaded: Loaded, process: ServiceProcess
) -> None:
    """Serves a loaded bundle until the process is to stop, then drains."""
    tasks: set[asyncio.Task[None]] = set()

    def on_death() -> None:
        task = asyncio.create_task(server.set_serving(False))
        tasks.add(task)  # a task without a reference may be collected before it runs
        task.add_done_callback(tasks.discard)

    engine = Engine(
        executor=loaded.executor,
        max_waiting=config.max_waiting,
        on_death=on_death,
    )
    grammars = GrammarCompiler(
        lambda: GrammarVocabulary.from_bundle(loaded.bundle), config.grammar_limits
    )
    servicer = DecoderServicer(
        engine=engine,
        grammars=grammars,
        limits=RequestLimits(
            bundle=loaded.bundle,
            max_context=loaded.plan.max_context,
            allow_logits=config.allow_logits,
        ),
        plan=loaded.plan,
        features_timeout_s=config.features_timeout_s,
    )
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(servicer, server.server)
    servicer.metrics.watch_certificates(config.shown)
    server.end_calls = engine.end_streams
    async with grammars, engine, server:
        with servicer.metrics.serving(config.metrics_host, config.metrics_port) as metrics_port:
            await server.set_serving(True)
            process.announce(grpc=server.port, metrics=metrics_port)
            await process.stopped()
