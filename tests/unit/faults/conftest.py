"""The gateway's bundle, for its stage."""

from tests.unit.gateway.conftest import bundle

__all__ = ["bundle"]
