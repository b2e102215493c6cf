"""Which characters of a rendered prompt came from the template and which from the client.

Added tokens (`<|im_end|>`, ...) may come from the template only. So a conversation is rendered
twice: once as it is, which is the truth, and once with a marker put into every string of the
client's, so that no added token can be read there, not even one that forms when the template
joins two strings. The marked prompt without its markers must equal the true one; then every
added token found in it is the template's own.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NamedTuple

# Unicode's noncharacters: valid in a string, never part of a text, without effect on JSON.
_NONCHARACTERS = (
    *range(0xFDD0, 0xFDF0),
    *(plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF)),
)
# Only a text that holds all of the above gets as far as the private planes.
_FALLBACK = range(0x10FFFD, 0xEFFFF, -1)

Mark = Callable[[str], str]


class Marks(NamedTuple):
    """How the client's strings are marked."""

    text: Mark
    answer: Mark  # texts of former answers, which templates may look into
    key: Mark  # keys of JSON objects, by which templates look things up


def unmarked(text: str) -> str:
    """The mark that is none."""
    return text


UNMARKED = Marks(unmarked, unmarked, unmarked)


def choose_marker(texts: Iterable[str]) -> str:
    """A character that occurs in none of `texts`."""
    return choose_markers(texts, 1)[0]


def choose_markers(
    texts: Iterable[str], count: int, *, taken: Collection[str] = ()
) -> tuple[str, ...]:
    """Different characters that occur in none of `texts`, and are not among those `taken`."""
    used = set().union(taken, *texts)
    free = (chr(code) for code in chain(_NONCHARACTERS, _FALLBACK) if chr(code) not in used)
    markers = tuple(islice(free, count))
    assert len(markers) == count, "no request holds 65,000 different characters"
    return markers


def interleaved(marker: str) -> Mark:
    """Marks every character, so that whatever a template does to a string, its marks follow.

    White space around a string stays bare, because templates trim strings.
    """

    def mark(text: str) -> str:
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        end = start + len(core)
        return text[:start] + marker + marker.join(core) + marker + text[end:]

    return mark


def broken(marker: str, tokens: tuple[str, ...]) -> Mark:
    """Marks only what could be read as one of `tokens`, or as the start or end of one.

    For templates that look into strings (`'</think>' in content`), whose outcome interleaved
    markers would change.
    """
    occurrence = _any_of(tokens, "(?={})")
    heads, tails = _ends(tokens)
    longest = max(map(len, tokens), default=0)

    def mark(text: str) -> str:
        reach = range(1, min(longest, len(text)) + 1)
        cuts = {match.start() + 1 for match in occurrence.finditer(text)}
        cuts.update(len(text) - length + 1 for length in reach if text[-length:] in heads)
        cuts.update(length - 1 for length in reach if text[:length] in tails)
        if not cuts:
            return text
        edges = [0, *sorted(cuts), len(text)]
        return marker.join(text[a:b] for a, b in zip(edges, edges[1:], strict=False))

    return mark


def sparing(mark: Mark, tokens: tuple[str, ...]) -> Mark:
    """Marks a text but for whole occurrences of `tokens`, which stay readable."""
    splitter = _any_of(tokens, "({})")

    def spared(text: str) -> str:
        pieces = enumerate(splitter.split(text))
        return "".join(piece if index % 2 else mark(piece) for index, piece in pieces)

    return spared


# A bundle's tokens are the same in every request.
@lru_cache(maxsize=8)
def _ends(tokens: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str]]:
    """Everything that tokens may begin with, and that they may end with; none of them whole."""
    heads = frozenset(token[:length] for token in tokens for length in range(1, len(token)))
    tails = frozenset(token[length:] for token in tokens for length in range(1, len(token)))
    return heads, tails


@lru_cache(maxsize=16)
def _any_of(tokens: tuple[str, ...], form: str) -> re.Pattern[str]:
    """Matches any of the tokens, the longest first; nothing where there are none."""
    names = sorted(tokens, key=len, reverse=True)
    return re.compile(form.format("|".join(map(re.escape, names)) or "(?!)"))


def strategies(
    marker: str, special: tuple[str, ...], others: tuple[str, ...], spoken: tuple[str, ...]
) -> Iterator[Marks]:
    """Ways to mark, the strictest first; a later one serves templates that look into strings.

    In former answers the tokens that models write themselves stay tokens, so that an answer comes
    back as it was said. The last ways leave other added tokens readable (as transformers does):
    in former answers, and finally everywhere.

    Args:
        marker: A character that occurs nowhere else.
        special: Special tokens, which are always kept from the client.
        others: Added tokens that are not special.
        spoken: Those of them that models write: around thoughts and calls.
    """
    strict = interleaved(marker)
    plain = broken(marker, (*special, *others))
    loose = broken(marker, special)
    said = sparing(plain, spoken)
    yield Marks(strict, sparing(strict, spoken), plain)
    yield Marks(strict, said, plain)
    yield Marks(plain, said, plain)
    yield Marks(plain, loose, plain)
    yield Marks(loose, loose, loose)


def marked(value: Any, marks: Marks) -> Any:
    """A copy of plain JSON data (strings, numbers, lists, mappings) with every string marked."""
    if isinstance(value, str):
        return marks.text(value)
    if isinstance(value, Mapping):
        return {marks.key(key): marked(item, marks) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [marked(item, marks) for item in value]
    return value


def strings_in(value: Any) -> Iterator[str]:
    """Every string in plain JSON data, keys included, in order; however deep it is nested."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(reversed([one for pair in item.items() for one in pair]))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(item))
