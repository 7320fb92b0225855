"""xdbg guests: the bundled guests."""

import click

from xdbg.session.bundled import bundled_guests


@click.command("guests")
def command() -> None:
    """List the bundled guests, one line each."""
    guests = bundled_guests()
    if not guests:
        raise click.ClickException("no bundled guests here: xdbg was installed without its source tree")
    width = max(len(guest.name) for guest in guests)
    for guest in guests:
        note = "" if guest.built else " (not built: run scripts/build-guests)"
        click.echo(f"{guest.name:<{width}}  {guest.summary}{note}")
