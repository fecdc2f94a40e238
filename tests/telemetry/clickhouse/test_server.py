"""A whole server whose records are in ClickHouse."""

from pathlib import Path

import pytest

from tests.faults.server import serving, starting, until

OK = 200


@pytest.mark.parametrize("is_there", [True, False])
def test_a_server_starts_and_stops_whether_clickhouse_is_there_or_not(tmp_path: Path, *, is_there: bool) -> None:
    address = f"chdb://{tmp_path}/engine" if is_there else "clickhouse://lifesign:secret@127.0.0.1:9/lifesign"
    with serving(tmp_path, telemetry_url=address) as server:
        until(lambda: server.request("GET", "/ready").status_code == OK)
        metrics = server.request("GET", "/metrics").text
        server.terminate()
        code = server.exit_code()

    assert "\nlifesign_spool_records 0.0\n" in metrics
    assert 'lifesign_loop_errors_total{loop="prune_spans"}' not in metrics
    assert code == 0
    assert (tmp_path / "data" / "spool.db").exists()
    assert "secret" not in server.log.read_text()


def test_an_address_of_no_store_stops_the_start_and_names_the_variable(tmp_path: Path) -> None:
    with starting(tmp_path, telemetry_url="mysql://127.0.0.1/lifesign") as server:
        code = server.exit_code()

    told = server.output.read_text() + server.log.read_text()
    assert code != 0
    assert "TELEMETRY_URL" in told.upper()
    assert "clickhouse" in told
