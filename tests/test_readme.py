"""What the README shows runs, and what it names exists."""

import re
from pathlib import Path

import pytest

from heedful.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/maps.md", "docs/icasc.md", "docs/streams.md", "docs/detection.md"])
def test_every_python_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        assert names["maps"].shape == (2, 1, 8, 8)
        assert (tmp_path / "runs" / "from_python" / "index.html").exists()
    assert blocks


def test_it_is_short_and_every_link_and_option_exists():
    assert README.count("\n") < 250
    pages = {ROOT / "README.md": README} | {page: page.read_text() for page in (ROOT / "docs").glob("*.md")}
    links = [(page.parent, link) for page, text in pages.items() for link in re.findall(r"\]\(([^)#]+)[)#]", text)]
    assert len(links) >= 6
    for folder, link in links:
        assert link.startswith("http") or (folder / link).exists(), link
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"heedful (compare|run|report|list|\w+) ", README)) & {"compare", "run"}
    assert names == {"compare", "run", "report", "list", "cost", "export", "explain", "evaluate"}
    help_text = "".join(path.read_text() for path in (ROOT / "src" / "heedful" / "cli").glob("*.py"))
    for option in set(re.findall(r"[ `]--([a-z][a-z-]+)", "".join(pages.values()))) - {"nproc-per-node"}:  # torchrun's
        assert f"    {option.replace('-', '_')}: " in help_text or f'"--{option}"' in help_text, option


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "CITATION.cff", ".ci/run"])
def test_what_a_repository_needs_is_there(name):
    assert (ROOT / name).stat().st_size > 200
