"""`holdfast completion`.

Rule of this file: what is printed is all that the shell needs; it asks the command itself for the words, so that it
never knows less than the command does.
"""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete the words of this command.

    \b
    bash: add to ~/.bashrc:    eval "$(holdfast completion bash)"
    zsh:  add to ~/.zshrc:     eval "$(holdfast completion zsh)"
    fish: run once:            holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    click.echo(found(root.command, {}, "holdfast", "_HOLDFAST_COMPLETE").source())
