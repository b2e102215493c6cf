"""What several modules of real processes share."""

from pathlib import Path

import pytest

from tests.e2e.decoder_environment import make_environment


@pytest.fixture(scope="session")
def decoder_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds only what the decoder requires."""
    return make_environment(tmp_path_factory.mktemp("decoder-env"))
