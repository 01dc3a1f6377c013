"""The stores over which the contract suites run."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.catalogs import OPENERS, Opener

from holdfast_server.catalog.base import UNBOUNDED, Catalog


@pytest.fixture(params=sorted(OPENERS))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the one catalog of a test; opened twice, it is as two processes have it."""
    open_in = OPENERS[request.param]
    return lambda quota=UNBOUNDED: open_in(tmp_path, quota)


@pytest.fixture
async def catalog(opener: Opener) -> AsyncIterator[Catalog]:
    async with opener() as opened:
        yield opened
