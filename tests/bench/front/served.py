"""`python -m vision_service`, the real one, whose replicas are those of ready_replica.py."""

import sys
from unittest.mock import patch

from tests.bench.front.ready_replica import ReadyDeployment
from vision_service import __main__ as service
from vision_service.replicas import deployment

if __name__ == "__main__":
    with patch.object(deployment, "EncoderDeployment", ReadyDeployment):
        sys.exit(service.main())
