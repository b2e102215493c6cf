"""The launcher against programs that only speak the services' start-up protocol."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.stack.local import LaunchError, LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE, Ports
from deploy.stack.restarts import Restarts
from deploy.stack.tier import TierReady, TierStarting
from tests.support.waiting import wait_until
from tests.unit.deploy.fakes import empty_bundle, fake_services, fake_settings, is_alive


def launch_error(settings: StackSettings) -> LaunchError:
    with pytest.raises(LaunchError) as caught, LocalStack(settings):
        pass
    assert fake_services() == set()
    return caught.value


def test_every_tier_reports_readiness_with_its_ports(tmp_path: Path) -> None:
    events: list[TierReady] = []
    stack = LocalStack(fake_settings(tmp_path))
    stack.start(events.append)
    stack.stop()
    assert {event.tier for event in events} == {"vision", "decoder", "gateway"}
    assert stack.ready["gateway"].ports == {"http": stack.ports.http, "grpc": stack.ports.grpc}
    assert stack.ready["vision"].ports == {"grpc": stack.ports.vision}


def test_a_stopped_stack_leaves_no_process(tmp_path: Path) -> None:
    with LocalStack(fake_settings(tmp_path)) as stack:
        assert is_alive(stack.pid("decoder"))
    assert fake_services() == set()


def test_the_gateway_is_told_where_the_other_tiers_are(tmp_path: Path) -> None:
    with LocalStack(fake_settings(tmp_path)) as stack:
        flags = {"vision": stack.addresses["vision"], "decoder": stack.addresses["decoder"]}
    log = (tmp_path / "logs" / "gateway.log").read_text()
    assert all(f"'{name}': '{address}'" in log for name, address in flags.items())


def test_a_tier_s_environment_is_its_own(tmp_path: Path) -> None:
    settings = replace(
        fake_settings(tmp_path, decoder=("serve", "--show-environment=FAKE_KEY")),
        environment={"decoder": {"FAKE_KEY": "of the decoder"}},
    )
    with LocalStack(settings):
        pass
    assert "FAKE_KEY is of the decoder" in (tmp_path / "logs" / "decoder.log").read_text()
    assert "FAKE_KEY" not in os.environ


def test_a_tier_that_refuses_its_settings_stops_the_start_with_its_own_line(
    tmp_path: Path,
) -> None:
    error = launch_error(fake_settings(tmp_path, decoder=("refuse",)))
    assert (error.exit_code, str(error)) == (
        2,
        "decoder: max_slots must be of type int, got 'many'",
    )


def test_a_tier_that_crashes_while_starting_is_named(tmp_path: Path) -> None:
    error = launch_error(fake_settings(tmp_path, vision=("crash",)))
    assert error.exit_code == 1
    assert str(error).startswith("vision stopped while starting (exit code 3)")


def test_a_tier_that_never_becomes_ready_is_named(tmp_path: Path) -> None:
    error = launch_error(fake_settings(tmp_path, gateway=("silent",), startup_timeout_s=4.0))
    assert str(error).startswith("gateway not ready after 4 s")


def test_a_tier_that_is_still_starting_is_told_with_what_it_does(tmp_path: Path) -> None:
    notices: list[TierStarting] = []

    class Enough(Exception):
        """Ends the start that would otherwise take its whole time."""

    def told(notice: TierStarting) -> None:
        waited_for = {earlier.tier for earlier in notices[-1:]}
        notices.append(notice)
        if notice.seconds > 2.0 and waited_for == {"vision"} == {notice.tier}:
            raise Enough

    settings = fake_settings(tmp_path, vision=("silent",), startup_timeout_s=60.0, notice_s=0.2)
    with pytest.raises(Enough):
        LocalStack(settings).start(on_starting=told)
    last = notices[-1]
    assert last.tier == "vision"  # the others served before
    assert last.doing.startswith("flags {")  # the message of its last log record
    assert 2.0 < last.seconds < 30.0


def test_the_vision_tier_is_told_how_long_it_may_start(tmp_path: Path) -> None:
    with LocalStack(fake_settings(tmp_path, startup_timeout_s=77.0)):
        pass
    assert "'startup-timeout-s': '77.0'" in (tmp_path / "logs" / "vision.log").read_text()


def test_a_tier_that_dies_later_ends_the_wait_and_is_named(tmp_path: Path) -> None:
    with LocalStack(fake_settings(tmp_path)) as stack:
        os.kill(stack.pid("decoder"), signal.SIGKILL)
        error = stack.wait()
    assert (error.exit_code, str(error)) == (1, "decoder stopped (signal 9)")
    assert fake_services() == set()


def test_a_tier_that_dies_is_started_again_as_often_as_allowed(tmp_path: Path) -> None:
    causes: list[str] = []
    pauses: list[float] = []

    def note(error: LaunchError, pause_s: float) -> None:
        causes.append(str(error))
        pauses.append(pause_s)

    served: list[TierReady] = []

    def kill(event: TierReady) -> None:
        served.append(event)
        os.kill(stack.pid(event.tier), signal.SIGKILL)

    with LocalStack(fake_settings(tmp_path)) as stack:
        first, gateway = stack.pid("decoder"), stack.pid("gateway")
        os.kill(first, signal.SIGKILL)
        error = stack.wait(Restarts(2, first_pause_s=0.1), on_ready=kill, on_restart=note)
        assert is_alive(gateway)
    assert str(error) == "decoder stopped (signal 9)"
    assert causes == [str(error)] * 2
    assert pauses == [0.1, 0.2]
    assert [event.tier for event in served] == ["decoder"] * 2
    assert served[0].ports == {"grpc": stack.ports.decoder}
    log = (tmp_path / "logs" / "decoder.log").read_text()
    assert log.count("flags {") == 3  # of every life
    assert fake_services() == set()


def test_a_tier_that_does_not_serve_again_in_time_has_died_once_more(tmp_path: Path) -> None:
    once = ("once", f"--note={tmp_path / 'lived'}")
    with LocalStack(fake_settings(tmp_path, decoder=once)) as stack:
        stack.settings = replace(stack.settings, startup_timeout_s=0.5)  # of its next life
        os.kill(stack.pid("decoder"), signal.SIGKILL)
        error = stack.wait(Restarts(1, first_pause_s=0.1))
        assert is_alive(stack.pid("gateway"))
    assert str(error).startswith("decoder stopped (")
    assert fake_services() == set()


def test_the_pause_before_a_restart_doubles_up_to_a_minute_for_each_tier() -> None:
    restarts = Restarts(8)
    pauses = [restarts.next_pause_s("decoder") for _ in range(9)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, None]
    assert restarts.next_pause_s("vision") == 1.0


def test_a_tier_that_ignores_sigterm_is_killed_after_the_drain_time(tmp_path: Path) -> None:
    with LocalStack(fake_settings(tmp_path, vision=("stubborn",), drain_timeout_s=0.2)):
        pass
    assert fake_services() == set()


@pytest.mark.parametrize(("drain", "drain_timeout_s"), [(True, 0.2), (False, 60.0)])
def test_streams_that_are_not_waited_for_end_with_their_error_event(
    tmp_path: Path, drain: bool, drain_timeout_s: float
) -> None:
    note = tmp_path / "stream"
    stack = LocalStack(
        fake_settings(
            tmp_path, gateway=("streaming", f"--note={note}"), drain_timeout_s=drain_timeout_s
        )
    )
    stack.start()
    stack.stop(drain=drain)
    assert note.read_text() == "the error event"
    assert fake_services() == set()


def test_daemons_of_a_killed_service_end_with_it(tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    with LocalStack(fake_settings(tmp_path, vision=("family", f"--note={note}"))) as stack:
        daemon = int(note.read_text())
        assert is_alive(daemon)
        os.kill(stack.pid("vision"), signal.SIGKILL)
        stack.wait()
        assert not is_alive(daemon)


def test_everything_ends_when_the_launcher_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "daemon"
    program = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        from deploy.stack.local import LocalStack
        from tests.unit.deploy.fakes import fake_settings
        stack = LocalStack(fake_settings(Path({str(tmp_path)!r}),
            vision=("family", "--note={note}"), decoder=("stubborn",)))
        stack.start()
        print(*(stack.pid(tier) for tier in ("vision", "decoder", "gateway")), flush=True)
        signal.pause()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        pids = [int(pid) for pid in launcher.stdout.readline().split()]
        pids.append(int(note.read_text()))
        assert len(pids) == 4
        launcher.kill()
    wait_until(lambda: not any(map(is_alive, pids)), what="orphans to end", timeout_s=15.0)


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        error = launch_error(
            fake_settings(tmp_path, ports=Ports(http=0, grpc=0, vision=0, decoder=port))
        )
    assert error.exit_code == 2
    assert f"port {port} is already in use" in str(error)
    assert "--decoder-port" in str(error)
    assert not (tmp_path / "logs").exists()


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    settings = StackSettings(bundle=tmp_path / "nowhere", ports=ANY_FREE)
    assert launch_error(settings).exit_code == 2


def test_a_damaged_bundle_is_refused_by_file(tmp_path: Path) -> None:
    bundle = empty_bundle(tmp_path / "bundle")
    (bundle / "decoder" / "model.onnx").write_text("decoder/model.ONNX")
    error = launch_error(StackSettings(bundle=bundle, ports=ANY_FREE))
    assert error.exit_code == 2
    assert "decoder/model.onnx" in str(error)


def test_logs_that_cannot_be_written_do_not_keep_the_stack_from_serving(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with LocalStack(fake_settings(tmp_path)) as stack:
        assert len(stack.ready) == 3
