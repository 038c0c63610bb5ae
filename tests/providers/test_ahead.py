"""Files that are read ahead by other processes say what they say to a provider that reads them itself."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from gwanmun.providers import Changes, FolderProvider, files
from gwanmun.providers.ahead import MIN_FILES, read_ahead

T = TypeVar("T")


def in_a_process_of_one_thread(function: Callable[[Path], T], folder: Path) -> T:
    """Which `read_ahead` needs, and pytest is not always."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, folder).result()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As many files as are read ahead, some of them with mistakes, one of them empty, and one that is no file."""
    for number in range(MIN_FILES):
        (tmp_path / f"{number}.yaml").write_text(config(number, "before"))
    (tmp_path / "broken.yaml").write_text(f"# twice, and then nothing that is YAML\n{config(1, 'again')}---\n[\n")
    (tmp_path / "refused.yaml").write_text(config(-1, "refused").replace("kind: ConfigMap", "kind: ConfigMop"))
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {a: b}\n")
    (tmp_path / "blank.yaml").write_text("\n")
    (tmp_path / "astray.yaml").symlink_to(tmp_path / "nowhere")
    return tmp_path


def config(number: int, value: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{number}}}\ndata: {{v: '{value}'}}\n"


def without_reading(folder: Path) -> Changes:
    """What is read ahead, where nothing can be read any more by the time that it is asked for."""
    ahead = read_ahead([folder], 2)
    reads = []
    ahead.take("", ())  # waits for all
    patched = pytest.MonkeyPatch()
    patched.setattr("gwanmun.providers.folder.read_file", reads.append)
    changes = FolderProvider([folder], ahead=ahead).scan()
    patched.undo()
    assert reads == [str(folder / "blank.yaml")]
    return changes


def after_a_change(folder: Path) -> Changes:
    ahead = read_ahead([folder], 2)
    ahead.take("", ())
    (folder / "7.yaml").write_text(config(7, "after"))
    (folder / "8.yaml").unlink()
    return FolderProvider([folder], ahead=ahead).scan()


def with_one_killed(folder: Path) -> Changes:
    ahead = read_ahead([folder], 2)
    multiprocessing.active_children()[0].kill()
    return FolderProvider([folder], ahead=ahead).scan()


@pytest.mark.parametrize("read", [without_reading, after_a_change, with_one_killed])
def test_it_makes_no_difference_who_has_read(read: Callable[[Path], Changes], folder: Path) -> None:
    found = in_a_process_of_one_thread(read, folder)
    alone = FolderProvider([folder]).scan()
    assert found == alone
    assert list(found.objects) == list(alone.objects)
    assert len(alone.objects) >= MIN_FILES
    assert len(alone.problems) == 4


def test_a_file_is_read_again_once_it_was_given_away(folder: Path) -> None:
    assert in_a_process_of_one_thread(taken_twice, folder) == (True, False)


def taken_twice(folder: Path) -> tuple[bool, bool]:
    path = str(folder / "1.yaml")
    ahead, stamp = read_ahead([folder], 2), files.stamp_of(path)
    return ahead.take(path, stamp) is not None, ahead.take(path, stamp) is not None


@pytest.mark.parametrize(("cores", "missing"), [(1, 0), (2, 100)])
def test_one_core_and_few_files_are_not_worth_it(folder: Path, cores: int, missing: int) -> None:
    for number in range(missing):
        (folder / f"{number}.yaml").unlink()
    assert read_ahead([folder], cores).take(str(folder / "200.yaml"), files.stamp_of(str(folder / "200.yaml"))) is None
    assert multiprocessing.active_children() == []
