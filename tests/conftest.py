"""What every test may use."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import Golden
from hypothesis import HealthCheck, settings

settings.register_profile("here", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")  # the first text of a fresh checkout waits for tables that Hypothesis makes of Unicode

ENGINES = ("test_launch", "test_launch_faults", "test_launch_pull")
"""The files whose tests start Docker Engines: one at a time, as an engine alters the machine's network."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden instead of comparing with it")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers (`-n 2`) a file's tests stay together, and those that start Docker Engines, one by one."""
    from xdist.scheduler import LoadFileScheduling

    def scope(test: str) -> str:
        file = Path(test.split("::", 1)[0]).stem
        return "engines" if file in ENGINES else file

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = scope
    return scheduler


@pytest.fixture(scope="session", autouse=True)
def no_history(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What was launched on this machine does not bear on the tests."""
    os.environ["TGI_ADVISOR_DATA"] = str(tmp_path_factory.mktemp("history"))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """`golden(name, text)`: the text must equal `tests/golden/<name>`."""
    return Golden(update=bool(request.config.getoption("--update-golden")))


@pytest.fixture(autouse=True)
def broken_streams(request: pytest.FixtureRequest) -> Iterator[None]:
    """The Docker SDK leaves the sockets of streams that broke to the garbage collector: not to that of a later test."""
    yield
    if request.module.__name__ in (*ENGINES, "test_launch_laws"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


# -- launch --on kubernetes (tests/desks.py, which is imported where such tests run)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of `launch --on kubernetes` say where they run."""
    if any("kubernetes" in item.path.stem for item in items):
        import desks

        desks.collected(items)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which cluster they were on."""
    reports = [one for row in terminalreporter.stats.values() for one in row if isinstance(one, pytest.TestReport)]
    if any("kubernetes" in report.nodeid for report in reports):
        import desks

        if lines := desks.told(reports):
            terminalreporter.section("launch --on kubernetes")
            for line in lines:
                terminalreporter.line(line)


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The API server in a process of its own; None where a real cluster is named."""
    import desks

    if os.environ.get(desks.REAL):
        yield None
        return
    server = desks.Apart(tmp_path_factory.mktemp("apart"))
    yield server
    server.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A desk whose cluster the test looks into and gives troubles."""
    import desks

    with desks.on_loopback(tmp_path, monkeypatch) as one:
        yield one


@pytest.fixture
def anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: Any) -> Iterator[Any]:
    """A desk on a real cluster where one is named."""
    import desks

    with desks.on_any(tmp_path, monkeypatch, apart) as one:
        yield one
