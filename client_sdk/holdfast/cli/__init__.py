"""The `holdfast` command.

Rule of this file: the group knows the names of its own commands, and finds those of other packages through the entry
points "holdfast.commands"; one that cannot be loaded says what to install. A command is imported when it is run, with
nothing that it does not need: that is most of the time that a short one takes. Exit status, everywhere: 0 all done, 1 a
transfer failed, 2 usage, 3 verification failed, 4 refused by the server, 130 paused by Ctrl-C.
"""

import atexit
import gc
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

OWN: Final = ("completion", "download", "transfers", "upload", "watch")
"""Commands of this package, each in the module of its name."""
ENTRY_POINTS: Final = "holdfast.commands"
_EXTRAS: Final = {"serve": "server", "sign": "server", "token": "server", "watch": "server"}
"""Commands of other packages, and the extra that brings what they need."""


class Commands(click.Group):
    """Own commands first, then those of installed packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*OWN, *(each.name for each in _others())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN:
            return _imported(cmd_name)
        found = next(iter(_others().select(name=cmd_name)), None)
        if found is not None:
            return _loaded(cmd_name, found.load)
        return _absent(cmd_name, "it is not installed") if cmd_name in _EXTRAS else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)


def _others() -> "EntryPoints":
    """Commands of other packages. Who runs one of our own does not need what finds them."""
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)


def _imported(name: str) -> click.Command:
    """One of our own. Nothing of what is imported is garbage, so none is looked for, now or later; nor of what is left
    when the process ends, which is taken down as a whole.
    """
    # The command line of httpx, for which nobody asks, would bring more than httpx itself.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    collecting = gc.isenabled()
    gc.disable()
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    finally:
        if collecting:
            gc.enable()
    gc.freeze()
    atexit.register(gc.freeze)
    command: click.Command = getattr(module, name)
    return command


def _loaded(name: str, load: Callable[[], object]) -> click.Command:
    try:
        command = load()
    except ImportError as error:
        return _absent(name, str(error))
    if not isinstance(command, click.Command):
        return _absent(name, "what its entry point names is no command")
    return command


def _absent(name: str, reason: str) -> click.Command:
    extra = _EXTRAS.get(name, "server")
    sentence = f'holdfast {name} is not available here ({reason}); run: pip install "holdfast[{extra}]"'

    def refuse() -> None:
        raise click.UsageError(sentence)

    return click.Command(
        name,
        callback=refuse,
        help=f'Not available here: pip install "holdfast[{extra}]"',
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )


EXIT_STATUS: Final = """\b
Exit status:
  0    all done
  1    a transfer failed: the network, a file, or the server for now
  2    the command line makes no sense; nothing was transferred
  3    what arrived is not what it must be (a digest, a length)
  4    the server refused: credentials, size, room, nothing there
  130  paused by Ctrl-C; the same command goes on
"""
"""The same table is in docs/transfers.md."""


@click.group(
    cls=Commands, epilog=EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="holdfast", prog_name="holdfast")
def main() -> None:
    """Resumable uploads and downloads for large files over bad networks."""
