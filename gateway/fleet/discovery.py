"""Which addresses a tier has just now: what its setting lists, and what look-ups and files say.

A look-up that fails or finds nothing, and a file that cannot be read or is empty, change nothing:
what was found last stays, and one line of the log says so.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.fleet.sources import Listed, Named, Source, Watched, read_file

if TYPE_CHECKING:
    from gateway.fleet.names import Names

logger = logging.getLogger(__name__)

MAX_ADDRESSES = 256  # of one tier; each has a channel, and is looked at again and again


class Discovery:
    """The addresses of one tier.

    Args:
        tier: Its name, for the log.
        sources: What its setting names.
        names: Looks names up; made when first needed where None, as its library takes a while to
            load.
    """

    def __init__(
        self, tier: str, sources: Sequence[Source], *, names: "Names | None" = None
    ) -> None:
        self._tier = tier
        self._sources = sources
        self._names = names
        self._found: dict[Source, list[str]] = {
            source: [source.address] for source in sources if isinstance(source, Listed)
        }
        self._troubles: dict[Source, str] = {}
        self._is_over = False

    @property
    def is_static(self) -> bool:
        """Whether the addresses never change."""
        return all(isinstance(source, Listed) for source in self._sources)

    async def look(self) -> tuple[str, ...]:
        """Looks everything up again.

        Returns:
            The addresses, each once, at most `MAX_ADDRESSES`: of more, the same ones for every
            gateway that sees the same.
        """
        changing = [source for source in self._sources if not isinstance(source, Listed)]
        await asyncio.gather(*(self._look_up(source) for source in changing))
        found = [address for source in self._sources for address in self._found.get(source, ())]
        addresses = tuple(dict.fromkeys(found))
        is_over = len(addresses) > MAX_ADDRESSES
        if is_over and not self._is_over:
            logger.warning(
                "the %s tier has %d addresses, only %d of them are used",
                self._tier,
                len(addresses),
                MAX_ADDRESSES,
            )
        self._is_over = is_over
        return tuple(sorted(addresses)[:MAX_ADDRESSES]) if is_over else addresses

    async def _look_up(self, source: Source) -> None:
        try:
            addresses = await self._addresses(source)
        except ValueError as error:
            self._note_trouble(source, str(error))
            return
        if not addresses:
            self._note_trouble(source, "it names no address")
            return
        self._found[source] = addresses
        if self._troubles.pop(source, None) is not None:
            logger.info("%s tier: %s is read again", self._tier, source)

    async def _addresses(self, source: Source) -> list[str]:
        """What a source says now.

        Raises:
            ValueError: nothing; the text says why.
        """
        if isinstance(source, Watched):
            return await asyncio.to_thread(read_file, source.path)
        from gateway.fleet.names import LookupFailed, Names  # a seventh of a second

        self._names = self._names or Names()
        try:
            if isinstance(source, Named):
                return await self._names.addresses(source.name, source.port)
            assert not isinstance(source, Listed), "it needs no look-up"
            return await self._names.services(source.name)
        except LookupFailed as error:
            raise ValueError(str(error)) from error

    def _note_trouble(self, source: Source, trouble: str) -> None:
        if self._troubles.get(source) != trouble:
            kept = len(self._found.get(source, ()))
            logger.warning(
                "%s tier: %s: %s; the %d addresses it named last stay",
                self._tier,
                source,
                trouble,
                kept,
            )
            self._troubles[source] = trouble
