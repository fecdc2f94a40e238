"""Pages are tried on SQLite, which starts sooner; what their own SQL does on PostgreSQL is in `test_databases`."""

import pytest
from pydantic import SecretStr


@pytest.fixture
def database_url() -> SecretStr | None:
    return None
