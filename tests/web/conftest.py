"""Pages are tried on SQLite, which starts sooner; what their own SQL does on PostgreSQL is in `test_databases`."""

from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from lifesign.web import passwords

PRODUCTION_HASHER = passwords._HASHER  # noqa: SLF001 - to be looked at, since tests use another


@pytest.fixture(scope="package", autouse=True)
def _passwords_cost_little() -> Iterator[None]:
    """A hash that takes a tenth of a second proves no more of signing in than one that takes none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield


@pytest.fixture
def database_url() -> SecretStr | None:
    return None
