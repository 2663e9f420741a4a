"""Large networks are spared in test_table.py where another one stands for them, see tests/support/networks.py."""

import pytest

from tests.support.networks import OF_THOSE, SIBLINGS, WITH_HEADS, WITH_RECIPES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of the tests of every network those that another one stands for."""
    spared = [item for item in items if isinstance(item, pytest.Function) and _is_spared(item)]
    items[:] = [item for item in items if item not in spared]
    config.hook.pytest_deselected(items=spared)


def _is_spared(item: pytest.Function) -> bool:
    if item.path.name != "test_table.py" or not hasattr(item, "callspec"):
        return False
    parameters, marks = item.callspec.params, item.fixturenames
    name = parameters.get("name")
    if item.originalname == "test_one_training_step" and name in WITH_RECIPES:
        return True
    if name in WITH_HEADS and ("one_with_a_head_is_tested" in marks or "policy" in parameters):
        return name != OF_THOSE
    return name in SIBLINGS and "every_one_is_tested" not in marks
