"""What every test may use."""

from __future__ import annotations

import pytest
from golden import Golden


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing with it")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(name, text)`: the text must equal `tests/golden/<name>`."""
    return Golden(update=bool(request.config.getoption("--update-golden")))
