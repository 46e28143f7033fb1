"""The same hubs of one process that the integration tests use."""

from tests.integration.conftest import alone as alone
from tests.integration.conftest import hub as hub
