"""One suite for each interface with several implementations."""

import pytest

# Before they are imported: a failure then shows the values that were compared.
pytest.register_assert_rewrite("tests.contracts.cache", "tests.contracts.locks", "tests.contracts.object_store")
