"""Names looked up with the name servers of /etc/resolv.conf, without threads and within a bound."""

import asyncio
from collections.abc import Callable

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdata
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from protos.wire.addresses import join

LOOKUP_S = 3.0


class LookupFailed(Exception):
    """A name that gave no addresses; the text says why in a few words."""


class Names:
    """Asks name servers.

    Args:
        resolver: Makes what asks; read anew each time, as /etc/resolv.conf may change.
    """

    def __init__(
        self,
        resolver: Callable[[], dns.asyncresolver.Resolver] = dns.asyncresolver.Resolver,
    ) -> None:
        self._resolver = resolver

    async def addresses(self, name: str, port: int) -> list[str]:
        """`HOST:PORT` of every A and AAAA record, sorted.

        Raises:
            LookupFailed: there are none, or one of the two questions was not answered.
        """
        found = await asyncio.gather(self._records(name, "A"), self._records(name, "AAAA"))
        hosts = [str(record) for records in found for record in records]
        if not hosts:
            raise LookupFailed("it has no A and no AAAA records")
        return sorted(join(host, port) for host in hosts)

    async def services(self, name: str) -> list[str]:
        """`HOST:PORT` of every address of the SRV records with the lowest priority, sorted.

        Raises:
            LookupFailed: there are none, or a question was not answered.
        """
        found_records = await self._records(name, "SRV")
        records = [record for record in found_records if isinstance(record, SRV)]
        first = min((record.priority for record in records), default=0)
        targets = [
            (record.target.to_text(), record.port)
            for record in records
            if record.priority == first and record.target != dns.name.root
        ]
        if not targets:
            raise LookupFailed("it has no SRV records")
        found = await asyncio.gather(*(self.addresses(host, port) for host, port in targets))
        return sorted({address for addresses in found for address in addresses})

    async def _records(self, name: str, kind: str) -> list[dns.rdata.Rdata]:
        """Records of one kind; none where the name has others only."""
        try:
            answer = await self._resolver().resolve(name, kind, search=True, lifetime=LOOKUP_S)
        except dns.resolver.NoAnswer:
            return []
        except dns.resolver.NXDOMAIN as error:
            raise LookupFailed("there is no such name") from error
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailed(f"no name server answered ({type(error).__name__})") from error
        return list(answer)
