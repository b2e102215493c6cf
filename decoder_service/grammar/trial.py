"""Tries grammars in a process that may die of them: `python -m decoder_service.grammar.trial`.

llguidance bounds most work, but measured on 1.9.1: a `multipleOf` of ten million compiles for
minutes, and 4,000 rules in a row overflow the stack, which ends the process. So every new
grammar is first compiled here, over a vocabulary of single bytes, under limits of time, memory
and stack that the kernel enforces; the decoder compiles only what came through. That bytes are
the tokens here changes no verdict on a text: the decoder's vocabulary too spells any, byte for
byte.

One JSON object a line: {"source": ..., "limit_s": ...} in; {"error": ..., "size_bytes": ...} out.
"""

import ctypes
import json
import resource
import signal
import sys

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

# Far below what the decoder's own threads have, so that what passes here passes there.
STACK_BYTES = 1024 * 1024
MEMORY_BYTES = 256 * 1024 * 1024
MAX_ERROR_CHARS = 200

MAX_ADDED_TOKENS = 16  # that one grammar may use

_EOS = 256


def trial_ids(count: int) -> range:
    """Ids, in the trial's vocabulary, of the added tokens that a grammar uses."""
    return range(_EOS + 1, _EOS + 1 + count)


def parser_limits() -> LLParserLimits:
    """What one grammar may cost, to compile and at each token.

    A lexer state takes 1 to 2 kB. Of 45 grammars made to be slow, those that compiled took at
    most 60 ms for a token's mask, with a vocabulary of 150,000; ordinary JSON schemas take 5 us,
    rarely 50.
    """
    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=150_000,
        step_max_items=20_000,
        max_lexer_states=10_000,
        precompute_large_lexemes=False,  # costs more the larger the vocabulary: untried here
        verbose_errors=False,  # they quote our state
    )


class _Bytes:
    """A tokenizer whose tokens are the bytes, and some that stand for a model's added ones."""

    eos_token_id = _EOS
    bos_token_id = None
    tokens = (
        *(bytes([value]) for value in range(256)),
        b"<eos>",
        *(b"<added %d>" % at for at in range(MAX_ADDED_TOKENS)),
    )
    special_token_ids = (_EOS, *trial_ids(MAX_ADDED_TOKENS))

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _allocated_bytes() -> int:
    """Bytes on the heap now; exact with glibc, because nothing else runs in this process."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:  # another libc: to the page
        return _pages("resident") * resource.getpagesize()
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def _try(source: str, tokenizer: LLTokenizer) -> tuple[str | None, int]:
    before = _allocated_bytes()
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=parser_limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    error = matcher.get_error() if matcher.is_error() else None
    return error, max(0, _allocated_bytes() - before)


def _readable(error: str) -> str:
    """The first line of a complaint; it speaks of the client's own text."""
    first = error.splitlines()[0] if error.splitlines() else "it is not a grammar"
    return "".join(filter(str.isprintable, first))[:MAX_ERROR_CHARS]


def _pages(kind: str) -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[("mapped", "resident").index(kind)])


def _confine() -> None:
    most = _pages("mapped") * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, STACK_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answers lines until the input ends."""
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()))
    _confine()
    for line in sys.stdin:
        request = json.loads(line)
        # Its default action ends the process: no compiling outlives its limit, even an orphan's.
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
        error, size_bytes = _try(request["source"], tokenizer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply = {"error": None if error is None else _readable(error), "size_bytes": size_bytes}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
