"""What the tests of credentials share."""

from collections.abc import Iterator

import pytest
from tests.support.guarded import Guarded


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded"), workers=request.param) as process:
        yield process
