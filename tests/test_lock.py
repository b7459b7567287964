from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
LOCKS = {
    name: (ROOT / name).read_text("utf-8")
    for name in (
        "requirements.lock", "requirements-dev.lock", "requirements-validate.lock", "requirements-hub.lock",
        "requirements-space.lock", "requirements-kubectl.lock",
    )
}  # fmt: skip
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; [^\n\\]+)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)


def asked(key: str) -> set[str]:
    """Names in one list of pyproject.toml."""
    listed = re.search(rf"^{key} = \[\n(.+?)^\]", PYPROJECT, re.DOTALL | re.MULTILINE)
    assert listed
    names = re.findall(r'^    "([A-Za-z0-9_.-]+)', listed[1], re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_pins_with_hashes_and_names_no_index(name: str) -> None:
    rest = PIN.sub("", LOCKS[name])
    assert [line for line in rest.splitlines() if not re.fullmatch(r" +# [\w .,:()/-]+", line)] == []


def test_what_the_package_asks_for_is_locked() -> None:
    runtime, dev, alone, _, space, _ = ({pin[1] for pin in PIN.finditer(text)} for text in LOCKS.values())
    assert asked("dependencies") <= runtime
    assert asked("dev") <= dev
    assert asked("validate") == alone
    assert alone | {"jinja2", "starlette", "uvicorn"} <= space
    assert not space & {"docker", "huggingface-hub", "transformers"}


def test_the_checks_run_on_what_users_run() -> None:
    def pins(text: str) -> set[tuple[str, str]]:
        return {(pin[1], pin[2]) for pin in PIN.finditer(text)}

    assert pins(LOCKS["requirements.lock"]) <= pins(LOCKS["requirements-dev.lock"])
    assert pins(LOCKS["requirements-validate.lock"]) <= pins(LOCKS["requirements.lock"])
    assert pins(LOCKS["requirements-space.lock"]) <= pins(LOCKS["requirements-dev.lock"])


def test_the_oldest_huggingface_hub_is_the_oldest_we_ask_for() -> None:
    asked_for = re.search(r'"huggingface_hub>=(\d+\.\d+)"', PYPROJECT)
    pinned = re.search(r"^huggingface-hub==(\d+\.\d+)", LOCKS["requirements-hub.lock"], re.MULTILINE)
    assert asked_for
    assert pinned
    assert asked_for[1] == pinned[1]
