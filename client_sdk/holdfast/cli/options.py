"""Options that several commands have, each in one place, and what they come to.

Rule of this file: how transfers are run is said once, here, for whatever command runs some; what is of one file, or of
one direction alone, stands with its command.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeAlias

import click
from msgspec import Struct, field
from msgspec.structs import fields

from holdfast.cli.values import Header, Size
from holdfast.client import AsyncClient, IfBusy
from holdfast.transfers import RetryPolicy

Command: TypeAlias = Callable[..., None]
Option: TypeAlias = Callable[[Command], Command]

TRANSFERS: Final = 4


class Settings(Struct, frozen=True, kw_only=True):
    """How the transfers of a command are run. `limit_rate` is in bytes a second, for all of them together."""

    headers: Mapping[str, str] = field(default_factory=dict)
    limit_rate: int | None = None
    transfers: int = TRANSFERS
    connections: int | None = None
    retries: int = 2
    if_busy: IfBusy = "follow"
    proxy: str | None = None
    cacert: str | None = None
    as_json: bool = False
    quiet: bool = False

    def client(self, *, override_method: bool = False) -> AsyncClient:
        """One that runs them so."""
        return AsyncClient(
            headers=self.headers,
            limit_rate=self.limit_rate,
            transfers=self.transfers,
            connections=self.connections,
            retry=RetryPolicy(retries=self.retries),
            if_busy=self.if_busy,
            proxy=self.proxy,
            verify=self.cacert or True,
            override_method=override_method,
        )


def listed(what: str) -> Option:
    """-i and what goes with it, for a list of `what`."""
    return _all(
        click.option(
            "-i",
            "--input",
            "batch_file",
            type=click.File("r", encoding="utf-8", errors="surrogateescape"),
            metavar="FILE",
            help=f"{what}, one a line, perhaps with options of its own; - is standard input.",
        ),
        click.option("--strict", is_flag=True, help="With -i: begin nothing if a line of it cannot be read."),
    )


def max_attempts(command: Command) -> Command:
    """It is of one file, and the same for both directions."""
    return click.option(
        "--max-attempts",
        type=click.IntRange(1),
        metavar="N",
        default=10,
        show_default=True,
        help="Failures in a row without progress before giving up.",
    )(command)


def priority(command: Command) -> Command:
    """It is of one file, and the same for both directions."""
    return click.option(
        "--priority", type=int, metavar="N", default=0, show_default=True, help="Lower numbers go first."
    )(command)


repeating: Final[Sequence[Option]] = (
    click.option(
        "--retries",
        type=click.IntRange(0),
        metavar="N",
        default=2,
        show_default=True,
        help="How often a transfer that gave up is begun again, if it may go better then.",
    ),
    click.option(
        "--if-busy",
        type=click.Choice(["follow", "fail"]),
        default="follow",
        show_default=True,
        help="If another process is at the same file: follow it to its end, or fail.",
    ),
)

network: Final[Sequence[Option]] = (
    click.option(
        "--header",
        "headers",
        type=Header(),
        multiple=True,
        help="Sent with each request, and kept nowhere; may be repeated. For a token HOLDFAST_TOKEN is better, and"
        " ~/.netrc for a login.",
    ),
    click.option(
        "--proxy",
        metavar="URL",
        help="For all requests: http://host:port. Else HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say which.",
    ),
    click.option(
        "--cacert",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE",
        help="Certificate authorities that servers are checked against, in PEM, in place of the system's.",
    ),
)
"""How servers are reached; also by commands that run no transfers."""

limits: Final[Sequence[Option]] = (
    click.option("--limit-rate", type=Size(), help="Bytes a second for all files together: 500K, 2M."),
    click.option(
        "--transfers",
        type=click.IntRange(1),
        metavar="N",
        default=TRANSFERS,
        show_default=True,
        help="Files on their way at once.",
    ),
    click.option(
        "--connections",
        type=click.IntRange(1),
        metavar="N",
        help="Connections for all files together; as many as pay if not given, at most 16 for each server.",
    ),
)

output: Final[Sequence[Option]] = (
    click.option("--json", "as_json", is_flag=True, help="One JSON event a line on standard output."),
    click.option("--quiet", is_flag=True, help="No progress and no summary; results, errors and warnings alone."),
)


def reaching(command: Command) -> Command:
    """The options of a command that asks servers and runs no transfers; it gets them as `settings`."""
    return _settings(*network)(command)


def running(*more: Option) -> Option:
    """The options of a command that runs transfers, which it gets as `settings`; `more` go before them."""
    return _settings(*more, *limits, *network, *output)


def _settings(*options: Option) -> Option:
    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*arguments: Any, **said: Any) -> None:
            how = {each.name: said.pop(each.name) for each in fields(Settings) if each.name in said}
            how["headers"] = dict(how["headers"])
            command(*arguments, settings=Settings(**how), **said)

        return _all(*options)(run)

    return decorate


def _all(*options: Option) -> Option:
    """Several at once, in the order in which help has them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
