"""`tandem vision-down`: ends the applications of a cluster that no front uses.

Such are left by fronts with `keep_replicas`, and by fronts of which the last was killed.
"""

import os
import sys
from dataclasses import dataclass, fields

from protos.process import logs, settings
from protos.process.settings import LOG_LEVELS, SettingError, check, setting
from vision_service.cluster import application, fronts, shared
from vision_service.cluster.joined import join

PROGRAM = "tandem vision-down"
EXIT_BAD_SETTING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DownConfig:
    """Where to look; the names are those of the vision service's settings."""

    ray_address: str = setting("HOST:PORT of a cluster's head, or auto", default="auto")
    ray_node_ip: str | None = setting("address of this host's Ray node", default=None)
    allow_insecure: bool = setting("join a cluster that lets everybody in", default=False)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="WARNING", choices=LOG_LEVELS)

    def __post_init__(self) -> None:
        check(self)


def end_unused() -> list[str]:
    """Ends what no front uses; returns a line about each application of the tier."""
    lines = []
    for name in application.names(shared.PREFIX):
        users = len(fronts.living(name))
        if application.is_declared(name):
            lines.append(f"{name} stays: serve deploy brought it")
        elif users:
            lines.append(f"{name} stays: {users} fronts use it")
        else:
            shared.end(name)
            lines.append(f"{name} is ended")
    return lines


def main() -> int:
    """Joins, ends and tells; returns the exit code."""
    names = {f"VISION_{field.name.upper()}" for field in fields(DownConfig)}
    try:
        config = settings.load(
            DownConfig,
            program=PROGRAM,
            prefix="VISION",
            argv=sys.argv[1:],
            environ={name: text for name, text in os.environ.items() if name in names},
        )
        logs.configure(config.log_level)
        join(config.ray_address, config.ray_node_ip, config.allow_insecure)
    except (SettingError, ConnectionError, RuntimeError) as error:
        sys.stderr.write(f"{PROGRAM}: {str(error).splitlines()[0]}\n")
        return EXIT_BAD_SETTING
    lines = end_unused() or ["no application of the vision tier is there"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
