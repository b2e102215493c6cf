"""Settings come from flags, then environment, then defaults, and name what is wrong."""

from dataclasses import dataclass

import pytest

from protos.process import settings
from protos.process.settings import SettingError, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    bundle: str = setting("folder of the bundle")
    port: int = setting("port to listen on", default=50052)
    threads: int | None = setting("compute threads; none: all cores", default=None)
    ratio: float = setting("a share", default=0.5)
    allow_logits: bool = setting("answer with raw logits", default=False)
    depth: int | None = setting("how deep", default=None, least=1, most=9)
    pause_s: float = setting("how long", default=1.0, above=0)
    kernels: str = setting("whose kernels", default="auto", choices=("auto", "own", "none"))
    key: str | None = setting("who may ask", default=None, secret=True)

    def __post_init__(self) -> None:
        settings.check(self)


def load(argv: list[str], environ: dict[str, str] | None = None) -> Config:
    return settings.load(
        Config, program="decoder_service", prefix="DECODER", argv=argv, environ=environ or {}
    )


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    config = load(["--bundle=a", "--port", "7"], {"DECODER_PORT": "6", "DECODER_RATIO": "0.25"})
    assert config == Config(bundle="a", port=7, ratio=0.25)


def test_optional_values_take_none() -> None:
    assert load(["--bundle=a", "--threads=none"]).threads is None
    assert load(["--bundle=a", "--threads=2"]).threads == 2


@pytest.mark.parametrize(
    ("argv", "environ", "named"),
    [
        (["--bundle=a"], {"DECODER_PROT": "1"}, "DECODER_PROT"),
        (["--bundle=a", "--port=x"], {}, "port"),
        (["--bundle=a", "--allow-logits=maybe"], {}, "allow_logits"),
        (["--bundle=a", "--prot=1"], {}, "--prot"),
        (["--bundle=a", "--por=1"], {}, "--por"),
        ([], {}, "DECODER_BUNDLE"),
    ],
)
def test_a_wrong_setting_is_named(argv: list[str], environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        load(argv, environ)


def test_other_services_environment_is_left_alone() -> None:
    assert load(["--bundle=a"], {"VISION_PORT": "x", "PATH": "y"}).port == 50052


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--depth=0", "depth is 0, expected at least 1"),
        ("--depth=10", "depth is 10, expected at most 9"),
        ("--pause-s=0", "pause_s is 0.0, expected more than 0"),
        ("--pause-s=nan", "pause_s is nan, expected more than 0"),
        ("--kernels=other", "kernels is 'other', expected auto, own or none"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_range(flag: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}$"):
        load(["--bundle=a", flag])


def test_the_ends_of_a_range_and_unset_values_are_taken() -> None:
    assert load(["--bundle=a", "--depth=9", "--pause-s=0.001"]).depth == 9
    assert load(["--bundle=a", "--depth=none"]).depth is None


def test_secrets_are_not_shown() -> None:
    shown = settings.describe(load(["--bundle=a", "--key=swordfish"]))
    assert "swordfish" not in shown
    assert "key=***" in shown
    assert "bundle='a'" in shown
