"""What the documentation says is true: generated pages are current, commands and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from xdbg.cli import main
from xdbg.session.bundled import bundled_guests

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "guests/README.md", "docs/debugging.md", "docs/domains.md")


def test_the_pages_of_packets_and_hypercalls_are_those_of_the_tables():
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate-docs", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_each_command_in_the_readme_exists():
    commands = set(re.findall(r"xdbg ([a-z]+(?:-[a-z]+)*)\b", (ROOT / "README.md").read_text()))
    assert {"guests", "run", "serve", "debug", "trace"} <= commands
    for command in commands & set(main.list_commands(None)):
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    assert set(main.list_commands(None)) <= commands


def test_each_option_in_the_readme_exists():
    text = (ROOT / "README.md").read_text()
    helps = "".join(CliRunner().invoke(main, [name, "--help"]).output for name in main.list_commands(None))
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)):
        assert option in helps


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_each_file_that_a_page_names_exists(page):
    for name in re.findall(r"`((?:xdbg|guests|tests|scripts|docs)/[\w./]+)`", (ROOT / page).read_text()):
        if "NAME" not in name:
            assert (ROOT / name).exists(), name


def test_the_guests_page_and_the_changelog_name_each_guest():
    for page in ("guests/README.md", "CHANGELOG.md"):
        for guest in bundled_guests():
            assert f"`{guest.name}`" in (ROOT / page).read_text()
