"""The root file system of the test image, made from this machine alone: busybox, this Python, the pretend TGI.

Nothing is downloaded: of Python go in the modules the pretend server imports and the shared libraries they are
linked with, of everything else a static busybox for the entry point's shell.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
RELEASES = ("3.3.7", "2.4.1", "2.0.4")
"""Releases whose log the image can play."""


def root(flags: dict[str, str]) -> bytes:
    """The image's files as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _program(tar, "/bin/busybox", _busybox())
        for name in ("sh", "sleep", "ls", "cat"):
            _link(tar, f"/bin/{name}", "/bin/busybox")
        modules = _modules()
        for path in modules:
            _file(tar, path, Path(path).read_bytes())
        python = Path(sys.executable).resolve()  # at its own path, where it finds its modules
        _program(tar, str(python), python)
        launcher = f'#!/bin/sh\nexec {python} -S /pretend_tgi.py "$@"\n'
        _file(tar, "/usr/bin/text-generation-launcher", launcher.encode(), 0o755)
        for script in ("tgi-entrypoint.sh", "sagemaker-entrypoint.sh"):
            _file(tar, f"/{script}", (HERE / script).read_bytes(), 0o755)
        for library in _libraries([str(python), *(m for m in modules if ".so" in m)]):
            _program(tar, library, Path(library))
        _file(tar, "/pretend_tgi.py", (HERE / "pretend_tgi.py").read_bytes())
        _file(tar, "/flags.json", json.dumps(flags).encode())
        for release in RELEASES:
            _file(tar, f"/logs/{release}.txt", (HERE / "logs" / f"{release}.txt").read_bytes())
        for folder in ("tmp", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
    return out.getvalue()


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("busybox is not installed (Debian: busybox-static)")
    return Path(found)


def _modules() -> list[str]:
    """Files of every module the pretend server imports."""
    code = (
        "import sys, runpy, os; os.environ['PRETEND_RELEASE'] = '3.3.7'\n"
        f"runpy.run_path({str(HERE / 'pretend_tgi.py')!r}, run_name='imported')\n"
        "import encodings.utf_8, encodings.idna, encodings.latin_1, encodings.ascii, stringprep\n"
        "files = {getattr(m, '__file__', None) for m in list(sys.modules.values())}\n"
        "print('\\n'.join(sorted(f for f in files if f and os.path.exists(f))))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    base = Path(sys.base_prefix)
    landmark = base / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "os.py"
    found = {line for line in done.stdout.splitlines() if "/launch_image/" not in line}
    return sorted({*found, str(landmark)})


def _libraries(binaries: list[str]) -> list[str]:
    """The shared libraries the binaries are linked with, the loader among them."""
    found = set()
    for binary in binaries:
        done = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(/\S+) \(0x", done.stdout))
    return sorted(found)


def _program(tar: tarfile.TarFile, name: str, path: Path) -> None:
    _file(tar, name, path.read_bytes(), 0o755)


def _file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
