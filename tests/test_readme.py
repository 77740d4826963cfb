"""The README's commands exist, and every command is in it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from penchant.cli import cli

PROGRAMS = {
    "penchant": [],
    "python infer": [],
    "python -m torch.distributed.run --nproc_per_node=2 infer": [],
    "python train": ["train"],
    "accelerate launch train": ["train"],
}


def commands(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every leaf of the command tree, as the words that name it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name)


def shell_lines(text: str) -> list[str]:
    """Lines of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def as_penchant(line: str) -> list[str] | None:
    """The arguments of a line that runs Penchant."""
    for program, first in PROGRAMS.items():
        if line.startswith(f"{program} "):
            return [*first, *shlex.split(line.removeprefix(program))]
    return None


def test_every_command_is_in_the_readme(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    lines = [" ".join(each) for line in shell_lines(text) if (each := as_penchant(line))]
    missing = [" ".join(names) for names in commands(cli) if not any(line.startswith(" ".join(names)) for line in lines)]
    assert missing == []


@pytest.mark.parametrize(
    ("file", "least"),
    [("README.md", 20), ("docs/training.md", 7), ("docs/performance.md", 5), ("docs/spark.md", 1), ("docs/profiles.md", 9)],
)
def test_documented_commands_parse(file: str, least: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (root / file).read_text(encoding="utf-8")
    lines = [each for line in shell_lines(text) if (each := as_penchant(line))]
    assert len(lines) >= least
    for folder in ("configs", "data"):
        (tmp_path / folder).symlink_to(root / folder)
    for place in (
        "out/events",
        "out/profiles",
        "out/newsgroups",
        "out/newsgroups-profiles",
        "runs/interests/bundle",
        "runs/spans/bundle",
        "runs/both/bundle",
        "runs/headlines-zh/bundle",
        "runs/student/bundle",
        "out/lilybbs",
        "EVENTS",
        "TAGS",
    ):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name in ("out/tags.parquet", "out/newsgroups-tags.parquet", "out/lilybbs-tags.parquet", "iab-audience-1.1.tsv"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for arguments in lines:
        command: click.Command = cli
        words = list(arguments)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(command.name, words)


def test_the_files_the_readme_links_to_exist(root: Path) -> None:
    for file in ("README.md", "CONTRIBUTING.md", "data/README.md", "docs/training.md", "docs/performance.md", "docs/spark.md"):
        text = (root / file).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (root / file).parent.joinpath(target).exists(), f"{file}: {target}"


def test_the_module_map_names_every_room(root: Path) -> None:
    text = (root / "README.md").read_text(encoding="utf-8")
    rooms = [each.name for each in (root / "src" / "penchant").iterdir() if not each.name.startswith("__")]
    assert [room for room in rooms if f"  {room}" not in text] == []


def test_every_setting_of_the_examples_is_known(root: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    from penchant.config import load
    from penchant.ingest.mapping import load_mapping
    from penchant.profiles.policy import Policy
    from penchant.reports.overview_page import ReportSettings
    from penchant.segments.destinations import Destinations
    from penchant.segments.load import read_audience
    from penchant.training.settings import TrainSettings

    kinds = {"train-": TrainSettings, "policy": Policy, "report": ReportSettings, "destinations": Destinations}
    for path in (root / "configs").glob("*.yaml"):
        kind = next(kind for start, kind in kinds.items() if path.name.startswith(start))
        assert load(kind, path)
    for path in (root / "configs" / "accelerate").glob("*.yaml"):
        assert load_config_from_file(str(path)).num_processes > 1
    for path in (root / "configs" / "segments").glob("*.yaml"):
        assert read_audience(path).rule.positive()
    for path in [*(root / "configs" / "mappings").glob("*.yaml"), root / "data" / "events.yaml"]:
        assert load_mapping(path).sources
