"""One bundle for all tests of the gateway, and one stage for the tests of a module."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from tests.support.bundles import checkpoint
from tests.support.prompts import processor_bundle
from tests.unit.gateway.stage import GENERATION, Stage, staged


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("gateway") / "bundle"
    changes = {"model_id": "test", "generation": GENERATION}
    return processor_bundle(checkpoint("tied"), folder, manifest_changes=changes)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_stage(bundle: Bundle) -> AsyncIterator[Stage]:
    async with staged(bundle) as stage:
        yield stage


@pytest.fixture
def stage(module_stage: Stage) -> Stage:
    """The module's stage with fresh scripts."""
    module_stage.vision.reset()
    module_stage.decoder.reset()
    module_stage.will_say("Hi there")
    return module_stage
