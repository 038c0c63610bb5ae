"""What a set of manifest files declares while some of them are bad, gone, or say a thing twice."""

from gwanmun.api.load import load_text
from gwanmun.names import ObjectKey
from gwanmun.providers import difference
from gwanmun.providers.fileset import FileSet


def config(name: str, value: str = "1", namespace: str = "default") -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{v: '{value}'}}\n"


def put(files: FileSet, path: str, *documents: str) -> FileSet:
    return files.put({path: load_text("---\n".join(documents), path)})


def declared(files: FileSet) -> dict[str, str]:
    """Names and values of the ConfigMaps."""
    objects, _ = files.objects()
    return {key.name: obj.data["v"] for key, obj in objects.items()}  # type: ignore[union-attr]  # ConfigMaps


def test_a_file_read_anew_says_what_it_says_now() -> None:
    files = put(FileSet(), "a.yaml", config("one"), config("two"))
    files = put(files, "a.yaml", config("one", "2"))
    assert declared(files) == {"one": "2"}


def test_a_broken_document_keeps_its_last_good_object_and_hides_no_other() -> None:
    files = put(FileSet(), "a.yaml", config("one"), config("two"), config("three"))
    files = put(files, "a.yaml", config("one", "2"), config("two").replace("\ndata: {", "\ndata: 7 #{"))
    assert declared(files) == {"one": "2", "two": "1"}  # three was deleted by the edit
    assert [problem.name for problem in files.problems()] == ["default/two"]
    assert declared(put(files, "a.yaml", config("one", "2"), config("two", "3"))) == {"one": "2", "two": "3"}


def test_of_a_document_that_cannot_be_read_at_all_everything_before_stays() -> None:
    files = put(FileSet(), "a.yaml", config("one"), config("two"))
    files = put(files, "a.yaml", config("one", "2"), "{ not: [yaml\n")
    assert declared(files) == {"one": "2", "two": "1"}
    assert len(files.problems()) == 1


def test_a_slip_in_the_kind_or_the_name_takes_nothing_away() -> None:
    good = put(FileSet(), "a.yaml", config("one"), config("two"))
    kind = config("one").replace("kind: ConfigMap", "kind: ConfigMapp")
    for broken in (kind, config("ONE!"), config("one", namespace="Default!")):
        assert declared(put(good, "a.yaml", broken, config("two", "2"))) == {"one": "1", "two": "2"}, broken


def test_what_only_an_earlier_text_says_is_held() -> None:
    files = put(FileSet(), "a.yaml", config("one"), config("two"))
    assert files.held() == {}
    broken = put(files, "a.yaml", config("one", "2"), config("two").replace("\ndata: {", "\ndata: 7 #{"))
    assert {path: [obj.metadata.name for obj in objects] for path, objects in broken.held().items()} == {"a.yaml": ["two"]}
    again = FileSet().hold("a.yaml", broken.held()["a.yaml"])
    assert declared(put(again, "a.yaml", config("one", "3"), "{ not: [yaml\n")) == {"one": "3", "two": "1"}
    assert put(again, "a.yaml", config("one", "3")).held() == {}


def test_a_warning_keeps_nothing_back() -> None:
    files = put(FileSet(), "a.yaml", config("one"), config("two"))
    loaded = load_text(config("one", "2"), "a.yaml")
    assert declared(files.put({"a.yaml": loaded})) == {"one": "2"}


def test_names_without_a_namespace_and_with_it_are_one() -> None:
    files = put(FileSet(), "a.yaml", config("one").replace(", namespace: default", ""))
    broken = config("one").replace(", namespace: default", "").replace("\ndata: {", "\ndata: 7 #{")
    assert declared(put(files, "a.yaml", broken)) == {"one": "1"}


def test_where_two_files_declare_one_object_the_first_path_wins() -> None:
    files = put(put(FileSet(), "b.yaml", config("one", "b")), "a.yaml", config("one", "a"))
    objects, problems = files.objects()
    assert declared(files) == {"one": "a"}
    assert [(problem.source, problem.message) for problem in problems] == [
        ("b.yaml", "ConfigMap default/one is also in a.yaml, which is used; this one is ignored")
    ]
    assert declared(files.remove({"a.yaml"})) == {"one": "b"}
    assert len(objects) == 1


def test_a_file_that_is_there_wins_over_one_that_is_missing_and_both_are_no_double() -> None:
    files = put(put(FileSet(), "b.yaml", config("one", "b")), "a.yaml", config("one", "a"), config("two", "a"))
    for missing, value in (("a.yaml", "b"), ("b.yaml", "a")):
        objects, problems = files.objects([missing])
        assert {key.name: obj.data["v"] for key, obj in objects.items()} == {"one": value, "two": "a"}  # type: ignore[union-attr]  # ConfigMaps
        assert problems == []


def test_a_removed_file_takes_its_objects_and_problems_along() -> None:
    files = put(FileSet(), "a.yaml", config("one"), "{ not: [yaml\n")
    files = files.remove({"a.yaml"})
    assert declared(files) == {}
    assert files.problems() == []


def test_the_difference_of_two_sets_is_what_was_put_and_what_has_gone() -> None:
    one, _ = put(FileSet(), "a.yaml", config("one"), config("two")).objects()
    other = dict(one)
    gone = ObjectKey("", "ConfigMap", "default", "one")
    del other[gone]
    assert difference(one, other) == {gone: None}
    assert difference(other, one) == {gone: one[gone]}
    assert difference(one, dict(one)) == {}
