import importlib
import pkgutil

import lifesign
from lifesign.envelopes.failures import TABLE


def test_every_exception_of_a_slices_rules_has_its_place_in_the_table_of_failures() -> None:
    found = {
        value
        for module in pkgutil.walk_packages(lifesign.__path__, "lifesign.")
        if module.name.endswith(".rules")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.name
    }

    assert len(found) > 10
    assert found - set(TABLE) == set()
