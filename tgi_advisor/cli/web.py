"""The page in a browser: start a server, and say where it is."""

from __future__ import annotations

import click

from tgi_advisor.cli.output import say
from tgi_advisor.errors import Exit, UsageError


@click.command()
@click.option(
    "--host", metavar="ADDRESS", default="127.0.0.1", show_default=True,
    help="Address to listen on. Any other than this machine's own opens the page to others.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--online", is_flag=True,
    help="Ask the Hub about models that are not shipped, with HF_TOKEN where it is set. It never reaches the page.",
)  # fmt: skip
@click.option(
    "--allow-host", "hosts", metavar="NAME", multiple=True,
    help="A name the page is reached by, such as gpu.example.com or *.hf.space. Repeatable.",
)  # fmt: skip
@click.option("--frame", metavar="ORIGIN", default="", help="A site that may show the page in a frame.")
@click.option("--open", "opened", is_flag=True, help="Open the page in your browser.")
def web(host: str, port: int, online: bool, hosts: tuple[str, ...], frame: str, opened: bool) -> int:
    """Open the calculator as a page in the browser.

    The page answers what advise, predict, compare and size answer, by the same functions, while sliders are moved. It
    is served to this machine alone and asks nothing of any other: shipped models need no network.

    \b
    Examples:
      tgi-advisor web --open
      tgi-advisor web --online
      tgi-advisor web --host 0.0.0.0 --allow-host gpu.example.com
    """
    from tgi_advisor.web import serve

    unusable = any(char in frame for char in " ;,\"'\n")
    if unusable or (frame and not frame.startswith(("https://", "http://"))):
        raise UsageError(f"{frame!r} is no origin", "Write for example https://huggingface.co.")

    def told(url: str) -> None:
        say(f"tgi-advisor is at {url} (Ctrl-C ends it)", err=True)
        if not serve.is_local(host):
            say(OPEN, err=True)
            if online:
                say(OPEN_ONLINE, err=True)
        if opened:
            click.launch(url)

    serve.serve(host, port, online=online, hosts=hosts, framed_by=frame, told=told)
    return Exit.STARTS


OPEN = (
    "Anyone who reaches this address can use the page: there is no password and no encryption.\n"
    "They see estimates for shipped models, not your files, caches or launches. Where that is too\n"
    "much, put a reverse proxy with TLS and a login before it."
)
OPEN_ONLINE = (
    "With --online they also make this server ask the Hub, with your token if HF_TOKEN is set: sizes\n"
    "of your private and gated models are then visible to them. Unset HF_TOKEN, or leave --online\n"
    "out, where they should not be."
)
