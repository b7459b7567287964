"""Which token limits of text-generation-inference fit your GPU, before you rent it.

`advise` and `predict` take a spec (a path, a mapping or a `Spec`) and return a `Plan`;
`gather_facts` finds what is true of a spec once, for many questions. `validate_files` judges the
deployment files people already have, `import_server` makes a spec of one, and `upgrade` says what another
release of TGI changes for them; `migrate` writes them for vLLM or SGLang, and `on_engine` plans for those who start
there. `compare`, `fits`, `sweep` and `size` answer the questions before a deployment,
`draw` draws a sweep, `calibrate` measures a running server and `inspect` says what it has and could have. They are
imported when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tgi_advisor.api import (
        Facts,
        Limits,
        Plan,
        Prediction,
        Spec,
        advise,
        gather_facts,
        migrate,
        on_engine,
        predict,
        read_spec,
    )  # fmt: skip
    from tgi_advisor.ask import calibrate, compare, draw, fits, inspect, size, sweep
    from tgi_advisor.errors import AdvisorError
    from tgi_advisor.lint import import_server, validate_files
    from tgi_advisor.moves import upgrade
    from tgi_advisor.patching import patch

__all__ = [
    "AdvisorError", "Facts", "Limits", "Plan", "Prediction", "Spec", "__version__",
    "advise", "calibrate", "compare", "draw", "fits", "gather_facts", "import_server", "inspect", "migrate",
    "on_engine", "patch", "predict", "read_spec", "size", "sweep", "upgrade", "validate_files",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "AdvisorError":
        from tgi_advisor.errors import AdvisorError

        return AdvisorError
    if name in ("import_server", "validate_files"):
        from tgi_advisor import lint

        return getattr(lint, name)
    if name == "upgrade":
        from tgi_advisor import moves

        return moves.upgrade
    if name == "patch":
        from tgi_advisor import patching

        return patching.patch
    if name in ("calibrate", "compare", "draw", "fits", "inspect", "size", "sweep"):
        from tgi_advisor import ask

        return getattr(ask, name)
    from tgi_advisor import api

    return getattr(api, name)
