"""From a grammar to a constraint: tried in a helper process, compiled on a thread, kept.

The event loop asks; nothing here runs on the engine's thread. Who goes away while a grammar is
compiled leaves the work to those who want the same grammar.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from llguidance import LLMatcher

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.grammar import CompiledGrammar, Grammar
from decoder_service.grammar.state import GrammarState
from decoder_service.grammar.trial import parser_limits, trial_ids
from decoder_service.grammar.vocabulary import GrammarVocabulary
from protos.bundle.manifest import BundleError
from protos.wire.errors import InternalError, Overloaded, Reason, Unavailable, Unsupported

logger = logging.getLogger(__name__)

_TRIAL_PROCESSES = 2
_MASK_THREADS = 4
_ENTRY_BYTES = 16 * 1024  # of our own, per grammar kept


class GrammarCompiler:
    """Makes constraints. Use as an async context manager.

    Args:
        load_vocabulary: Called once, on a thread, when the first grammar comes; a process that
            never sees one pays nothing.
        limits: What grammars may cost.
    """

    def __init__(
        self, load_vocabulary: Callable[[], GrammarVocabulary], limits: GrammarLimits
    ) -> None:
        self.limits = limits
        self.cache = GrammarCache(limits.cache_bytes)
        self._load_vocabulary = load_vocabulary
        self._vocabulary: GrammarVocabulary | None = None
        self._compiling: dict[Grammar, asyncio.Task[CompiledGrammar]] = {}
        self._trials: asyncio.LifoQueue[TrialProcess] = asyncio.LifoQueue()
        for _ in range(_TRIAL_PROCESSES):
            self._trials.put_nowait(TrialProcess(limits.compile_s))
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="grammar-compile")
        mask_threads = min(_MASK_THREADS, len(os.sched_getaffinity(0)))
        self._masks = ThreadPoolExecutor(mask_threads, thread_name_prefix="grammar-mask")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._compiling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not self._trials.empty():
            await self._trials.get_nowait().close()
        for pool in (self._compiler, self._masks):
            pool.shutdown(wait=False, cancel_futures=True)

    async def constraint(self, grammar: Grammar) -> GrammarState:
        """A new sequence's constraint; compiles the grammar unless it is kept.

        Raises:
            InvalidRequest: INVALID_SCHEMA, it cannot be compiled within the limits.
            Overloaded: too many grammars wait to be compiled.
            Unsupported: the bundle's tokenizer allows no structured output.
        """
        compiled = self.cache.get(grammar)
        if compiled is None:
            task = self._compiling.get(grammar) or self._start(grammar)
            compiled = await asyncio.shield(task)
        return GrammarState(compiled, self._masks)

    def _start(self, grammar: Grammar) -> "asyncio.Task[CompiledGrammar]":
        if len(self._compiling) >= self.limits.max_compiling:
            raise Overloaded(
                f"{len(self._compiling)} grammars wait to be compiled, which is the limit",
                retry_after_s=self.limits.compile_s,
            )
        task = asyncio.create_task(self._compile(grammar))
        self._compiling[grammar] = task
        task.add_done_callback(lambda done: self._settle(grammar, done))
        return task

    def _settle(self, grammar: Grammar, task: "asyncio.Task[CompiledGrammar]") -> None:
        del self._compiling[grammar]
        if not task.cancelled():
            task.exception()  # taken note of, in case nobody waits any more

    async def _compile(self, grammar: Grammar) -> CompiledGrammar:
        try:
            source = grammar.source()
            tried = grammar.source(token_ids=trial_ids(len(grammar.token_ids)))
        except ValueError as error:  # llguidance reads options within a schema
            raise grammar.refusal("is not a schema that can be read") from error
        size_bytes = await self._try(grammar, tried)
        loop = asyncio.get_running_loop()
        compiled = await loop.run_in_executor(
            self._compiler, lambda: self._build(grammar, source, size_bytes)
        )
        self.cache.add(compiled)
        return compiled

    async def _try(self, grammar: Grammar, source: str) -> int:
        """What it will take of memory, bytes."""
        trial = await self._trials.get()
        try:
            error, size_bytes = await trial.run(source)
        except TrialDied as death:
            raise grammar.refusal(str(death)) from death
        finally:
            self._trials.put_nowait(trial)
        if error is not None:
            raise grammar.refusal(f"cannot be compiled: {error}")
        most = self.limits.cache_bytes // 4
        if size_bytes > most:
            raise grammar.refusal(f"takes {size_bytes} bytes compiled, expected at most {most}")
        return size_bytes

    def _build(self, grammar: Grammar, source: str, size_bytes: int) -> CompiledGrammar:
        vocabulary = self._loaded_vocabulary()
        matcher = LLMatcher(vocabulary.tokenizer, source, log_level=0, limits=parser_limits())
        if matcher.is_error():  # for instance a token's name that the trial's bytes did not know
            raise grammar.refusal("cannot be compiled for this model's vocabulary")
        return CompiledGrammar(grammar, matcher, vocabulary, size_bytes)

    def _loaded_vocabulary(self) -> GrammarVocabulary:
        if self._vocabulary is None:
            try:
                self._vocabulary = self._load_vocabulary()
            except BundleError as error:
                logger.warning("no structured output: %s", error)
                raise Unsupported(
                    "constraint is not supported: the bundle's tokenizer cannot be used for it",
                    param="constraint",
                ) from error
        return self._vocabulary


class GrammarCache:
    """Compiled grammars, the least recently used dropped first; bounded by bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, grammar: Grammar) -> CompiledGrammar | None:
        """The compiled grammar, if it is kept and as good as new."""
        compiled = self._entries.get(grammar)
        if compiled is None:
            return None
        if compiled.is_worn:
            self._drop(grammar)
            return None
        self._entries.move_to_end(grammar)
        return compiled

    def add(self, compiled: CompiledGrammar) -> None:
        """Keeps a grammar and drops what does not fit any more."""
        if compiled.grammar in self._entries:
            self._drop(compiled.grammar)
        self._entries[compiled.grammar] = compiled
        self.size_bytes += _entry_bytes(compiled)
        while self.size_bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, grammar: Grammar) -> None:
        self.size_bytes -= _entry_bytes(self._entries.pop(grammar))


def _entry_bytes(compiled: CompiledGrammar) -> int:
    grammar = compiled.grammar
    text = len(grammar.text) + len(grammar.whitespace.pattern or "")
    return _ENTRY_BYTES + 2 * text + compiled.size_bytes


class TrialDied(Exception):
    """A grammar ended the process that tried it; the text says in short why."""


class TrialProcess:
    """A helper process that tries one grammar at a time; started when needed, and again."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, source: str) -> tuple[str | None, int]:
        """Tries a grammar.

        Returns:
            What is wrong with it, or None; and the bytes it takes.

        Raises:
            TrialDied: it takes too long, too much memory, or too deep a stack.
        """
        request = json.dumps({"source": source, "limit_s": self._limit_s})
        try:
            process = self._process or await self._start()
            reply = await self._exchange(process, request)
        except BaseException:  # Cancelling included: a process with a reply to come is unusable.
            await self.close()
            raise
        return reply["error"], reply["size_bytes"]

    async def _exchange(self, process: asyncio.subprocess.Process, request: str) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None, "opened as pipes"
        try:
            process.stdin.write(request.encode() + b"\n")
            await process.stdin.drain()
        except ConnectionError:
            pass  # the read below finds the same end
        line = await process.stdout.readline()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        code = await process.wait()
        logger.info("a grammar ended its trial process, exit status %d", code)
        if code == -signal.SIGALRM:
            raise TrialDied(f"takes longer to compile than {self._limit_s:g} s")
        if code > 0:
            raise InternalError("the process that tries grammars failed")
        raise TrialDied("is too complex to compile")

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "decoder_service.grammar.trial"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            logger.exception("the process that tries grammars did not start")
            raise Unavailable(
                "grammars cannot be compiled now", reason=Reason.DECODER_UNAVAILABLE
            ) from error
        return self._process

    async def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()
