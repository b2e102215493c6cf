"""The `tandem` command, with the vision tier of the stacks it starts in one process.

`python -m tests.support.tandem_without_ray COMMAND...`; see vision_without_ray.py.
"""

from deploy.cli.__main__ import main
from deploy.stack import local

if __name__ == "__main__":
    local.MODULES["vision"] = "tests.support.vision_without_ray"
    main()
