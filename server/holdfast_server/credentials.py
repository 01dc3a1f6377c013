"""`holdfast token` and `holdfast sign`: commands that make credentials, on the machine of whoever may.

Rule of this file: a secret is printed once, on standard output and alone there, and is kept nowhere; files of secrets
are made for their owner's eyes only.
"""

import math
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from holdfast_server.auth import SCOPES, Scope, signing, tokens
from holdfast_server.cli import Duration, Size

_FILE = click.option(
    "--file",
    "path",
    envvar="HOLDFAST_TOKENS",
    default="tokens.toml",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of tokens, as holdfast serve --tokens has it.",
)


class Scopes(click.ParamType[list[Scope]]):
    """`create,write`"""

    name = "scopes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Scope]:
        found = value if isinstance(value, list) else [each.strip() for each in str(value).split(",")]
        if not set(found) <= SCOPES:
            self.fail(f"{value!r}: scopes are {', '.join(sorted(SCOPES))}, with commas between them.", param, ctx)
        return cast("list[Scope]", found)


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of a server. The file has hashes alone: a token is shown once."""


@token.command("add")
@_FILE
@click.option("--owner", required=True, help="Whose uploads they will be.")
@click.option(
    "--scopes", default="create,write,read,delete,watch", show_default=True, type=Scopes(), help="What it may."
)
@click.option("--project", "projects", multiple=True, help="A project that it belongs to. Can be given several times.")
@click.option("--default-project", help="Where its uploads go that name no project.")
@click.option("--expires-in", type=Duration(), help="How long it is good, as 90d.  [default: until it is revoked]")
def add(
    path: Path,
    owner: str,
    scopes: list[Scope],
    projects: tuple[str, ...],
    default_project: str | None,
    expires_in: float | None,
) -> None:
    """Make a token, add it to the file, and print it."""
    expires = None if expires_in is None or math.isinf(expires_in) else time.time() + expires_in
    try:
        who = tokens.principal(owner, scopes, list(projects), default_project, expires)
        token_id, made, table = tokens.made(who, secrets.token_bytes(36))
        if path.exists():
            tokens.parse(path.read_bytes())
        path.touch(0o600)
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if file.tell() else "") + table)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path}: {error}") from None
    click.echo(f"token {token_id} of {owner} is in {path}; it is shown this once:", err=True)
    click.echo(made)


@token.command("list")
@_FILE
def list_(path: Path) -> None:
    """Show what the file has; the tokens themselves nobody can show."""
    try:
        entries = tokens.parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path}: {error}") from None
    for entry in entries.values():
        who = entry.principal
        until = "" if who.expires is None else f"  until {datetime.fromtimestamp(who.expires, UTC):%Y-%m-%d %H:%M}Z"
        projects = f"  projects {','.join(sorted(who.projects))}" if who.projects else ""
        click.echo(f"{entry.id}  {who.owner}  {','.join(sorted(who.scopes))}{projects}{until}")


@token.command("revoke")
@_FILE
@click.argument("token_id")
def revoke(path: Path, token_id: str) -> None:
    """Take a token out of the file. Servers know it within a second."""
    try:
        rest = tokens.without(path.read_text("utf-8"), token_id)
        other = path.with_name(path.name + ".new")
        other.touch(0o600)
        other.write_text(rest, "utf-8")
        other.chmod(path.stat().st_mode & 0o777)
        other.replace(path)
    except KeyError:
        raise click.ClickException(f"{path} has no token {token_id}; holdfast token list shows them.") from None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path}: {error}") from None


@click.command()
@click.argument("url")
@click.option(
    "--key",
    "path",
    envvar="HOLDFAST_SIGNING_KEY",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file of keys that holdfast serve has as --signing-key.",
)
@click.option("--owner", help="Whose upload it will be; for a creation.")
@click.option("--project", help="The project that it goes into; for a creation.")
@click.option("--scopes", default="write", show_default=True, type=Scopes(), help="What may be done with the upload.")
@click.option("--expires-in", default="1h", show_default=True, type=Duration(), help="How long the URL is good.")
@click.option(
    "--upload-within",
    default="1d",
    show_default=True,
    type=Duration(),
    help="How long an upload that it made may be gone on with.",
)
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1), help="How many uploads it makes.")
@click.option("--max-size", type=Size(), help="Largest file.")
@click.option("--type", "types", multiple=True, help="image/*, application/pdf or .pdf. Can be given several times.")
@click.option("--name", help="The name that the file gets, whatever the client calls it.")
def sign(url: str, path: Path, **values: Any) -> None:
    """Print URL with a signature: the right to create an upload there (.../files) or to one upload (.../files/ID),
    and to nothing else, for whoever has it."""
    try:
        click.echo(signing.sign_upload(url, path.read_bytes(), **values))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
