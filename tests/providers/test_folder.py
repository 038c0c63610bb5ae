"""Manifests on a real disk: editors, ConfigMap volumes, and whatever else happens to files."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from gwanmun.providers import FolderProvider, SourceProblem, files, folder
from gwanmun.providers.folder import Changes


def config(name: str, value: str = "1") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{v: '{value}'}}\n"


def said(changes: Changes) -> dict[str, str | None]:
    return {key.name: None if obj is None else obj.data["v"] for key, obj in changes.objects.items()}  # type: ignore[union-attr]  # ConfigMaps


def messages(changes: Changes) -> list[str]:
    return [problem.message for problem in changes.problems]


def test_manifests_are_found_below_and_nothing_else_is_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / ".git").mkdir()
    for path in ("a.yaml", "below/b.yml", ".git/c.yaml", ".hidden.yaml", "notes.txt", "d.yaml~"):
        (tmp_path / path).write_text(config(path.replace("/", "-").strip(".").replace("~", "")))
    (tmp_path / "e.json").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "e"}, "data": {"v": "1"}}')
    os.mkfifo(tmp_path / "f.yaml")  # opening it would block
    changes = FolderProvider([tmp_path]).scan()
    assert sorted(said(changes)) == ["a.yaml", "below-b.yml", "e"]
    assert changes.problems == ()


def test_a_single_file_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "manifests.txt"
    path.write_text(config("one"))
    assert said(FolderProvider([path]).scan()) == {"one": "1"}


def settled(provider: FolderProvider) -> Changes:
    """What has changed once nobody has written anything for a while."""
    provider.scan(100.0)
    return provider.scan(160.0)


def test_only_what_has_changed_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("one") + "---\n" + config("two"))
    provider = FolderProvider([tmp_path])
    provider.scan()
    assert said(provider.scan()) == {}
    (tmp_path / "a.yaml").write_text(config("one", "22") + "---\n" + config("two"))
    assert said(provider.scan()) == {"one": "22", "two": "1"}
    (tmp_path / "a.yaml").unlink()
    assert said(settled(provider)) == {"one": None, "two": None}


def test_what_is_being_written_anew_is_not_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one") + "---\n" + config("two"))
    provider = FolderProvider([tmp_path])
    provider.scan(0.0)
    for now, text in ((1.0, ""), (1.5, ""), (1.7, config("one", "2")), (2.4, config("one", "2") + "---\n")):
        path.write_text(text)
        assert None not in said(provider.scan(now)).values(), now
    path.write_text(config("one", "2") + "---\n" + config("two", "2"))
    assert said(provider.scan(3.1)) == {"one": "2", "two": "2"}
    path.write_text(config("one", "2"))
    assert said(provider.scan(4.0)) == {"one": "2"}
    assert said(provider.scan(4.7)) == {}
    assert said(provider.scan(4.9)) == {"two": None}


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("b", "a")])
def test_a_renamed_file_says_what_it_said_and_nothing_twice(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / f"{old}.yaml"
    path.write_text(config("one") + "---\n" + config("two"))
    provider = FolderProvider([tmp_path])
    provider.scan(0.0)
    path.rename(tmp_path / f"{new}.yaml")
    for now in (1.0, 1.5, 60.0, 120.0):
        changes = provider.scan(now)
        assert None not in said(changes).values(), now
        assert changes.problems == (), now


def test_an_empty_file_that_stays_empty_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one"))
    provider = FolderProvider([tmp_path])
    provider.scan(0.0)
    path.write_text("")
    assert said(provider.scan(1.0)) == said(provider.scan(1.5)) == {}
    assert said(provider.scan(1.9)) == {"one": None}


def test_what_was_renamed_away_and_comes_back_broken_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one"))
    provider = FolderProvider([tmp_path])
    provider.scan(0.0)
    path.rename(tmp_path / "a.yaml~")
    assert said(provider.scan(1.0)) == {}
    path.write_text("{ not: [yaml")
    for now in (1.5, 60.0, 120.0):
        assert said(provider.scan(now)) == {}


def test_a_folder_that_is_always_written_to_still_forgets(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("one"))
    provider = FolderProvider([tmp_path])
    provider.scan(0.0)
    (tmp_path / "a.yaml").unlink()
    for now in range(1, 11):
        (tmp_path / "b.yaml").write_text(config("two", str(now)))
        assert said(provider.scan(float(now))) == {"two": str(now)}
    (tmp_path / "b.yaml").write_text(config("two", "last"))
    assert said(provider.scan(11.0)) == {"one": None, "two": "last"}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root, shared = tmp_path / "root", tmp_path / "shared"
    (root / "below").mkdir(parents=True)
    shared.mkdir()
    (shared / "a.yaml").write_text(config("one"))
    (root / "below" / "b.yaml").write_text(config("two"))
    for name, to in {"again": shared, "link": shared, "circle": root, "aside": root / "below"}.items():
        (root / name).symlink_to(to)
    changes = FolderProvider([root]).scan()
    assert said(changes) == {"one": "1", "two": "1"}
    assert changes.problems == ()


def test_a_file_that_was_given_its_old_time_back_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one", "x"))
    before = path.stat()
    provider = FolderProvider([tmp_path])
    provider.scan()
    path.write_text(config("one", "y"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert said(provider.scan()) == {"one": "y"}


def test_a_folder_that_is_away_says_what_it_said_before(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").write_text(config("one"))
    provider = FolderProvider([root])
    provider.scan()
    root.rename(tmp_path / "away")
    changes = provider.scan()
    assert said(changes) == {}
    assert messages(changes) == ["is not there (No such file or directory); what it said before stays in force"]
    (tmp_path / "away").rename(root)
    assert provider.scan() == Changes({}, ())


def test_a_deleted_subfolder_takes_its_manifests_along(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text(config("one"))
    (tmp_path / "b.yaml").write_text(config("two"))
    provider = FolderProvider([tmp_path])
    provider.scan()
    shutil.rmtree(tmp_path / "below")
    assert said(settled(provider)) == {"one": None}


def test_a_subfolder_that_cannot_be_read_keeps_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "a.yaml").write_text(config("one"))
    (tmp_path / "b.yaml").write_text(config("two"))
    provider = FolderProvider([tmp_path])
    provider.scan()
    scandir = os.scandir

    def closed(path: Path) -> object:  # root may look into anything, so the kernel cannot be made to say it
        if path == below:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    (tmp_path / "b.yaml").write_text(config("two", "22"))
    changes = provider.scan()
    assert said(changes) == {"two": "22"}
    assert messages(changes) == ["cannot be read (Permission denied); what it said before stays in force"]


def test_a_link_in_circles_or_to_nothing_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(config("one"))
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    (tmp_path / "nothing.yaml").symlink_to("not-there")
    changes = FolderProvider([tmp_path]).scan()
    assert said(changes) == {"one": "1"}
    assert [problem.source for problem in changes.problems if isinstance(problem, SourceProblem)] == [
        str(tmp_path / "circle.yaml"),
        str(tmp_path / "nothing.yaml"),
    ]
    assert "cannot be read" in messages(changes)[0]
    assert "is not there" in messages(changes)[1]


@pytest.mark.parametrize("what", ["file", "folder", "below"])
def test_what_a_link_led_to_stays_in_force_while_it_leads_nowhere(tmp_path: Path, what: str) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    (root / "sub").mkdir(parents=True)
    target.mkdir()
    (target / "a.yaml").write_text(config("one"))
    links = {
        "file": (root / "a.yaml", target / "a.yaml"),
        "folder": (root / "link", target),
        "below": (root / "sub/link", target),
    }
    link, to = links[what]
    link.symlink_to(to)
    (root / "unknown").symlink_to("not-there")  # which says nothing, and has never said anything
    provider = FolderProvider([root])
    assert said(provider.scan(0.0)) == {"one": "1"}
    target.rename(tmp_path / "away")
    for now in (1.0, 60.0, 120.0):
        changes = provider.scan(now)
        assert said(changes) == {}, now
        assert changes.problems == (
            SourceProblem(str(link), "is not there (No such file or directory); what it said before stays in force"),
        )
    (tmp_path / "away").rename(target)
    assert provider.scan(121.0) == Changes({}, ())
    link.unlink()
    assert said(provider.scan(122.0)) == {}
    assert said(provider.scan(182.0)) == {"one": None}


def test_what_is_kept_is_in_force_for_the_next_one(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    root.mkdir()
    target.mkdir()
    (target / "c.yaml").write_text(config("three"))
    (root / "link").symlink_to(target)
    (root / "a.yaml").write_text(config("one"))
    (root / "b.yaml").write_text(config("two"))
    provider = FolderProvider([root])
    assert provider.scan(0.0).kept == {}
    (root / "a.yaml").write_text("{ not: [yaml")
    (root / "b.yaml").unlink()
    target.rename(tmp_path / "away")
    before = provider.scan(1.0)
    assert sorted(before.kept) == [str(root / "a.yaml"), str(root / "link" / "c.yaml")]
    after = FolderProvider(
        [root], {**before.kept, str(root / "gone.yaml"): (), "/elsewhere/a.yaml": before.kept[str(root / "a.yaml")]}
    )
    first = after.scan(100.0)
    assert said(first) == {"one": "1", "three": "1"}
    assert (first.problems, first.kept) == (before.problems, before.kept)
    (tmp_path / "away").rename(target)
    (root / "a.yaml").write_text(config("one", "2"))
    mended = after.scan(101.0)
    assert said(mended)["one"] == "2"
    assert (mended.problems, mended.kept) == ((), {})


def test_what_is_kept_of_a_file_that_was_deleted_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one"))
    before = FolderProvider([tmp_path])
    before.scan(0.0)
    path.write_text("{ not: [yaml")
    kept = before.scan(1.0).kept
    path.unlink()
    after = FolderProvider([tmp_path], kept)
    after.scan(100.0)
    assert said(after.scan(160.0)) == {"one": None}


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text(config("one"))
    with (tmp_path / "b.yaml").open("wb") as sparse:
        sparse.truncate(files.MAX_FILE_BYTES + 1)
    changes = FolderProvider([tmp_path]).scan()
    assert said(changes) == {"one": "1"}
    assert "more than the 67108864" in messages(changes)[0]


def test_too_many_files_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_FILES", 3)
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_text(config(f"c{number}"))
    changes = FolderProvider([tmp_path]).scan()
    assert sorted(said(changes)) == ["c0", "c1", "c2"]
    assert changes.problems == (SourceProblem(str(tmp_path), "holds more than 3 manifest files; the rest is ignored"),)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \xe9\n", b"\x00" * 100, b"", b"---\n---\n", b"\xef\xbb\xbf"])
def test_bytes_that_are_no_text_are_a_problem_at_most(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    (tmp_path / "b.yaml").write_text(config("one"))
    assert said(FolderProvider([tmp_path]).scan()) == {"one": "1"}


# Watched


@asynccontextmanager
async def watched(*paths: Path) -> AsyncIterator["asyncio.Queue[Changes]"]:
    """What the provider says, as it says it."""
    news: asyncio.Queue[Changes] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(FolderProvider(paths).watch()) as batches:
            async for changes in batches:
                news.put_nowait(changes)

    task = asyncio.create_task(listen())
    try:
        yield news
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def value(news: "asyncio.Queue[Changes]", name: str) -> str | None:
    """The next value that is told of an object."""
    async with asyncio.timeout(10):
        while True:
            changes = said(await news.get())
            if name in changes:
                return changes[name]


async def problem(news: "asyncio.Queue[Changes]") -> list[str]:
    async with asyncio.timeout(10):
        return messages(await news.get())


async def test_the_links_of_a_configmap_volume_are_swapped(tmp_path: Path) -> None:
    def version(number: int) -> None:
        data = tmp_path / f"..{number}"
        data.mkdir()
        (data / "a.yaml").write_text(config("one", str(number)))
        (tmp_path / "..next").symlink_to(data.name)
        (tmp_path / "..next").rename(tmp_path / "..data")

    version(1)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with watched(tmp_path) as news:
        assert await value(news, "one") == "1"
        version(2)
        shutil.rmtree(tmp_path / "..1")
        assert await value(news, "one") == "2"


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
async def test_an_editor_renames_over_a_file(tmp_path: Path, single: bool) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one"))
    async with watched(path if single else tmp_path) as news:
        assert await value(news, "one") == "1"
        for edit in ("2", "3"):
            path.rename(tmp_path / "a.yaml~")
            (tmp_path / ".a.yaml.swp").write_text(config("one", edit))
            (tmp_path / ".a.yaml.swp").rename(path)
            assert await value(news, "one") == edit


async def test_a_folder_and_a_file_elsewhere_are_both_watched(tmp_path: Path) -> None:
    root, file = tmp_path / "root", tmp_path / "other" / "a.yaml"
    root.mkdir()
    file.parent.mkdir()
    file.write_text(config("one"))
    async with watched(root, file) as news:
        assert await value(news, "one") == "1"
        file.write_text(config("one", "22"))
        assert await value(news, "one") == "22"
        (root / "b.yaml").write_text(config("two"))
        assert await value(news, "two") == "1"


async def test_a_folder_is_deleted_and_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").write_text(config("one"))
    async with watched(root) as news:
        assert await value(news, "one") == "1"
        root.rename(tmp_path / "away")
        assert "is not there" in (await problem(news))[0]
        anew = tmp_path / "anew"  # filled before it takes the place: a look at it while it is empty would find nothing in it
        anew.mkdir()
        (anew / "a.yaml").write_text(config("one", "22"))
        anew.rename(root)
        assert await value(news, "one") == "22"
        (root / "a.yaml").write_text(config("one", "333"))  # the new folder is watched, not the old
        assert await value(news, "one") == "333"


async def test_a_problem_is_told_once_and_its_end_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(config("one"))
    async with watched(tmp_path) as news:
        await value(news, "one")
        path.write_text("{ not: [yaml")
        assert len(await problem(news)) == 1
        (tmp_path / "unrelated.txt").write_text("x")
        path.write_text(config("one", "2"))
        assert await value(news, "one") == "2"
