"""The table of real clients says what is installed and run."""

from pathlib import Path

from tests.clients.environments import CLIENTS, HERE
from tests.support.markdown import tables

README = HERE / "README.md"


def test_the_table_has_a_row_for_every_client_with_its_version_and_script() -> None:
    (table,) = tables(README.read_text())
    rows = [row[:3] for row in table.rows]
    assert rows == [[client.name, client.version, f"`{client.script}`"] for client in CLIENTS]


def test_every_script_is_one_clients() -> None:
    found = [*HERE.glob("*/*.py"), *HERE.glob("node/*.mjs")]
    scripts = {str(path.relative_to(HERE)) for path in found} - {"node/checks.mjs"}
    assert scripts == {client.script for client in CLIENTS}


def test_every_version_is_fixed_and_every_client_named_in_the_readme() -> None:
    assert all(client.version[:1].isdigit() for client in CLIENTS)
    assert len({client.folder for client in CLIENTS}) == len(CLIENTS)
    assert "(tests/clients/README.md)" in (Path(HERE).parents[1] / "README.md").read_text()
