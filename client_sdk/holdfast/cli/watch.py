"""`holdfast watch`.

Rule of this file: on a terminal there is a bar for each upload that moves, elsewhere a line for each change of a state
and one every few seconds; with --json standard output has every piece of news, one a line.
"""

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import anyio
import click
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live as RichLive
from rich.text import Text

from holdfast.cli import options
from holdfast.cli.bars import Layout, amount, room_of, row
from holdfast.cli.running import exit_status
from holdfast.cli.screen import clock, human, printable, say
from holdfast.errors import HoldfastError
from holdfast.watching import ENDED, News
from holdfast_protocol.live import Place

LINE_EVERY: Final = 5.0
SHOWN: Final = 20
"""Uploads on the screen."""
_STYLES: Final = {"complete": "green", "failed": "red", "expired": "red", "terminated": "yellow"}


@click.command(short_help="Follow uploads on a server while they happen.")
@click.argument("server")
@click.argument("uploads", nargs=-1, metavar="[UPLOAD]...")
@click.option("--project", "projects", multiple=True, help="All uploads of a project; may be repeated.")
@click.option("--owner", "owners", multiple=True, help="All uploads of an owner; may be repeated.")
@click.option("--since", help="Go on behind this place (EPOCH-OFFSET), as --json has told it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@options.reaching
@click.pass_context
def watch(
    ctx: click.Context,
    server: str,
    uploads: tuple[str, ...],
    projects: tuple[str, ...],
    owners: tuple[str, ...],
    since: str | None,
    settings: options.Settings,
) -> None:
    """Follow uploads on a server while they happen: all that the credential may watch, or those that are named.

    SERVER is its URL, UPLOAD an id or a URL. With uploads alone it ends when all of them have: with 0 if they are
    complete, else with 1. Otherwise it goes on until Ctrl-C. Lost connections are made again, and nothing is missed.
    """
    screen = _Json() if settings.as_json else _Bars() if sys.stdout.isatty() else _Lines()
    place = None if since is None else Place.parse(since)
    try:
        failed = anyio.run(_follow, screen, server, uploads, projects, owners, place, settings)
    except HoldfastError as error:
        say(f"holdfast watch: {error}")
        ctx.exit(exit_status(error))
    except KeyboardInterrupt:
        ctx.exit(130)
    ctx.exit(1 if failed else 0)


async def _follow(
    screen: "_Lines",
    server: str,
    uploads: tuple[str, ...],
    projects: tuple[str, ...],
    owners: tuple[str, ...],
    since: Place | None,
    settings: options.Settings,
) -> bool:
    bad: dict[str, bool] = {}
    with screen.shown():
        async with settings.client() as client:
            news = client.watch(
                server, *uploads, projects=projects, owners=owners, since=since, max_attempts=None, lost=screen.lost
            )
            async for each in news:
                screen.show(each)
                if each.upload is not None and each.ended:
                    bad[each.upload] = each.status != "complete"
    return any(bad.values())


class _Lines:
    """A line for each change of a state, and now and then one for progress."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[float, str | None]] = {}

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def show(self, news: News) -> None:
        if news.kind == "gap":
            self.say("The server cannot tell what happened meanwhile; this is how it is now.")
        if news.upload is None:
            return
        then, status = self._shown.get(news.upload, (float("-inf"), None))
        now = time.monotonic()
        if news.kind == "status" or status != news.status or now - then >= LINE_EVERY:
            self._shown[news.upload] = (now, news.status)
            click.echo(printable(f"{news.upload} {news.name}: {_sentence(news)}"))

    def lost(self, error: HoldfastError, wait: float) -> None:
        self.say(f"{error}; trying again in {wait:.1f} s")

    def say(self, sentence: str) -> None:
        say(sentence)


class _Json(_Lines):
    def show(self, news: News) -> None:
        told = {"kind": news.kind, "upload": news.upload, "topic": news.topic, "payload": news.payload}
        if news.place is not None:
            told["place"] = str(news.place)
        click.echo(json.dumps({name: value for name, value in told.items() if value is not None}))


class _Bars(_Lines):
    """On a terminal: a line for each upload that was heard of last, and for good what became of those that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._news: dict[str, News] = {}
        self._note = ""
        self._console = Console()
        self._live = RichLive(get_renderable=self._frame, console=self._console, refresh_per_second=8)

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, news: News) -> None:
        self._note = "It is not known what happened meanwhile." if news.kind == "gap" else ""
        if news.upload is None:
            return
        self._news.pop(news.upload, None)
        if not news.ended:
            self._news[news.upload] = news
            return
        line = Text(
            printable(f"{news.upload} {news.name}: {_sentence(news)}"), style=_STYLES.get(news.status or "", "")
        )
        self._console.print(line, soft_wrap=True)

    def say(self, sentence: str) -> None:
        self._note = sentence

    def _frame(self) -> RenderableType:
        width = room_of(self._console)
        layout = Layout.of(width)
        all_news = list(self._news.values())  # the frame is drawn in another thread
        # Of those that were heard of last; among themselves they do not change places.
        room = max(1, min(SHOWN, self._console.height - 4))
        lines = [_bar(layout, news) for news in sorted(all_news[-room:], key=lambda news: news.upload or "")]
        if len(all_news) > room:
            lines.append(_remark(f"{len(all_news) - room} more, not heard of as lately", "dim"))
        if self._note:
            lines.append(_remark(self._note, "yellow"))
        return Constrain(Group(*lines), width)


def _bar(layout: Layout, news: News) -> RenderableType:
    speed, received = news.speed, news.payload.get("received")
    state = "waits" if news.status == "receiving" else news.status or ""
    columns = {
        "size": "" if received is None else amount(received, news.payload.get("length")),
        "speed": f"{human(speed)}/s" if speed else "",
        "eta": state if news.eta is None else clock(news.eta),
    }
    return row(layout, news.name or news.upload or "", news.fraction, columns, waits=not speed)


def _remark(sentence: str, style: str) -> RenderableType:
    return Text(printable(sentence), style=style, no_wrap=True, overflow="ellipsis")


def _sentence(news: News) -> str:
    if news.status in ENDED or news.status == "verifying":
        return news.message
    parts = [] if news.fraction is None else [f"{news.fraction:.1%}"]
    if news.speed:
        parts.append(f"{human(news.speed)}/s")
    if news.eta is not None:
        parts.append(f"{clock(news.eta)} to go")
    if news.payload.get("errors"):
        parts.append(f"{news.payload['errors']} failed requests")
    if not news.speed:
        parts.append(news.message)
    return ", ".join(parts)
