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
from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table
from rich.text import Text

from holdfast.cli.running import exit_status
from holdfast.cli.values import Header
from holdfast.client import AsyncClient
from holdfast.errors import HoldfastError
from holdfast.watching import ENDED, News
from holdfast_protocol.live import Place

LINE_EVERY: Final = 5.0
SHOWN: Final = 20
"""Uploads on the screen."""
_WIDTH: Final = 24
_STYLES: Final = {"complete": "green", "failed": "red", "expired": "red", "terminated": "yellow"}


@click.command()
@click.argument("server")
@click.argument("uploads", nargs=-1, metavar="[UPLOAD]...")
@click.option("--project", "projects", multiple=True, help="All uploads of a project; may be repeated.")
@click.option("--owner", "owners", multiple=True, help="All uploads of an owner; may be repeated.")
@click.option("--since", help="Go on behind this place (EPOCH-OFFSET), as --json has told it.")
@click.option("--header", "headers", type=Header(), multiple=True, help="Sent with each request; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.pass_context
def watch(
    ctx: click.Context,
    server: str,
    uploads: tuple[str, ...],
    projects: tuple[str, ...],
    owners: tuple[str, ...],
    since: str | None,
    headers: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Follow uploads on a server while they happen: all of them, or those that are named.

    SERVER is its URL, UPLOAD an id or a URL. With uploads alone it ends when all of them have: with 0 if they are
    complete, else with 1. Otherwise it goes on until Ctrl-C. Lost connections are made again, and nothing is missed.
    """
    screen = _Json() if as_json else _Bars() if sys.stdout.isatty() else _Lines()
    place = None if since is None else Place.parse(since)
    try:
        failed = anyio.run(_follow, screen, server, uploads, projects, owners, place, dict(headers))
    except HoldfastError as error:
        click.echo(f"holdfast watch: {error}", err=True)
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
    headers: dict[str, str],
) -> bool:
    bad: dict[str, bool] = {}
    with screen.shown():
        async with AsyncClient(headers=headers) as client:
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
            click.echo(f"{news.upload} {news.name}: {_sentence(news)}")

    def lost(self, error: HoldfastError, wait: float) -> None:
        self.say(f"{error}; trying again in {wait:.1f} s")

    def say(self, sentence: str) -> None:
        click.echo(sentence, err=True)


class _Json(_Lines):
    def show(self, news: News) -> None:
        told = {"kind": news.kind, "upload": news.upload, "topic": news.topic, "payload": news.payload}
        if news.place is not None:
            told["place"] = str(news.place)
        click.echo(json.dumps({name: value for name, value in told.items() if value is not None}, ensure_ascii=False))


class _Bars(_Lines):
    """The uploads that were heard of last, on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._news: dict[str, News] = {}
        self._note = ""
        self._live = RichLive(get_renderable=self._table, console=Console(), refresh_per_second=8)

    def shown(self) -> AbstractContextManager[object]:
        return self._live

    def show(self, news: News) -> None:
        self._note = "It is not known what happened meanwhile." if news.kind == "gap" else ""
        if news.upload is not None:
            self._news.pop(news.upload, None)
            self._news[news.upload] = news
            while len(self._news) > SHOWN:
                ended = next((upload for upload, each in self._news.items() if each.ended), next(iter(self._news)))
                del self._news[ended]

    def say(self, sentence: str) -> None:
        self._note = sentence

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for upload in sorted(self._news):
            news = self._news[upload]
            done = round(_WIDTH * (news.fraction or 0.0))
            bar = Text("━" * done, style=_STYLES.get(news.status or "", "cyan"))
            bar.append("━" * (_WIDTH - done), style="bright_black")
            table.add_row(upload[:8], news.name[:32], bar, _sentence(news))
        if self._note:
            table.add_row("", Text(self._note, style="yellow"))
        return table


def _sentence(news: News) -> str:
    if news.status in ENDED or news.status == "verifying":
        return news.message
    parts = [] if news.fraction is None else [f"{news.fraction:.1%}"]
    if news.speed:
        parts.append(f"{news.speed / 1e6:.1f} MB/s")
    if news.eta is not None:
        parts.append(f"{news.eta:.0f} s left")
    if news.payload.get("errors"):
        parts.append(f"{news.payload['errors']} failed requests")
    if not news.speed:
        parts.append(news.message)
    return ", ".join(parts)
