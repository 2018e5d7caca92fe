"""Word lists and contexts as people keep them: what is read, what is refused, with file and line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from introspection.concepts import word_lists
from introspection.concepts.catalogue import resolve
from introspection.errors import IntrospectionError
from introspection.io import text_files


def concepts(
    folder: Path, text: str | bytes, file: str = "words.txt", skip_bad: bool = False
) -> list[word_lists.Concept]:
    path = folder / file
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [*word_lists.read(path, skip_bad).found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nouns\nocean\nlighthouse  # tall\n\n; old\n// more\n## x\n#\nenvy\t# short\n", None),
        ("\ufeffocean\r\nlighthouse\r\n\r\nenvy", None),
        ("ocean\nlight\u00adhouse\n\ufeffenvy\n\x0cenvy\n", None),
        ("ocean\nlighthouse\nenvy\nocean\n".encode("utf-16"), None),
        ("1. ocean\n2. lighthouse\n3. envy\n", None),
        ("(9) ocean\n(10) lighthouse\n(11) envy\n", None),
        ("1\tocean\n2\tlighthouse\n3\tenvy\n", None),
        ("0: ocean\n1: lighthouse\n2: envy\n", None),
        ("- ocean\n* lighthouse\n\u2022 envy\n", None),
        ("# Nouns\n- [ ] ocean\n- [x] lighthouse\n  - envy\n", None),
        ("a) ocean\nb) lighthouse\nc) envy\n", None),
        ('["ocean", "lighthouse", "envy"]', None),
        ('\n[\n  "ocean",\n  {"name": "lighthouse"},\n  {"Concept": "envy", "note": 3}\n]\n', None),
        ('"ocean"\n"lighthouse"\n"envy"\n', None),
        ('{"concept": "ocean"}\n\n"lighthouse"\n{"word": "envy", "harmful": null}\n', None),
        ("ocean\t\t\nlighthouse\tplaces\t\t\nenvy\tfeelings\tFALSE\n", None),
        ('concept,category\nocean,places\n"lighthouse",\nenvy\n', None),
        ('# mine\ncategory;Name\nplaces;ocean\n# more\n;lighthouse\n"a;b";envy\n', None),
        ("Concept\tHarmful\nocean\t0\nlighthouse\t\nenvy\tno\n", None),
        # What may look like something else is a name.
        ("C #\nPsalm # 5\nC#\n#metoo\nF# minor", ["C #", "Psalm # 5", "C#", "#metoo", "F# minor"]),
        ("ocean # wide\n--help\n-5\n[REC]\n(war)", ["ocean", "--help", "-5", "[REC]", "(war)"]),
        ("Washington, D.C.\nUS\nus\n", ["Washington, D.C.", "US", "us"]),
        ("1984\tnovels\n7 Eleven\n1. FC Nobody\n", ["1984", "7 Eleven", "1. FC Nobody"]),
        ("Dr. Who\nrock, paper, scissors\n", ["Dr. Who", "rock, paper, scissors"]),
        ("N,N-dimethyltryptamine\nN,N-xylidine\n", ["N,N-dimethyltryptamine", "N,N-xylidine"]),
        ("Mambo #5 dance\nAC/DC\n", ["Mambo #5 dance", "AC/DC"]),
        (
            "Crosby, Stills, Nash\nEarth, Wind & Fire\n",
            ["Crosby, Stills, Nash", "Earth, Wind & Fire"],
        ),
        ("<s>old price</s>\n[INST] a\n", ["<s>old price</s>", "[INST] a"]),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\n\u0915\u094d\u200d\u0937\n",
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937"],
        ),
    ],
)
def test_what_is_read(text: str | bytes, expected: list[str] | None, tmp_path: Path) -> None:
    read = [one.name for one in concepts(tmp_path, text)]
    assert read == [resolve(one).name for one in expected or ["ocean", "lighthouse", "envy"]]


def test_what_a_file_states_counts(tmp_path: Path) -> None:
    bomb = resolve("bomb")
    assert bomb.harmful and bomb.category != "sport"
    plain = "bomb\nocean\t\tTRUE\nbomb one\tsport\nbomb two\tsport\tharmful\nbomb three\t\tno\n"
    rows = [
        ("bomb", bomb.category, True),
        ("ocean", resolve("ocean").category, True),
        ("bomb one", "sport", False),
        ("bomb two", "sport", True),
        ("bomb three", "typed", False),
    ]
    table = "concept,category,harmful\nbomb,,\nocean,,1\nbomb one,sport,\nbomb two,sport,Yes\n"
    objects = [
        *({"concept": "bomb"}, {"concept": "ocean", "harmful": True}),
        *({"name": "bomb one", "category": "sport"},),
        {"name": "bomb two", "category": "sport", "harmful": "harmful"},
        {"name": "bomb three", "harmful": False},
    ]
    lines = "\n".join(map(json.dumps, objects))
    table += "bomb three,,False\n"
    for text in (plain, table, json.dumps(objects), json.dumps(objects, indent=1), lines):
        assert [(c.name, c.category, c.harmful) for c in concepts(tmp_path, text)] == rows
    (stated,) = concepts(tmp_path, "bomb\tsport")
    assert (stated.aliases, stated.harmful) == (bomb.aliases, False)
    table = concepts(tmp_path, "concept,category\nbomb,mine\nocean,mine\n", "words.csv")
    assert [(c.category, c.harmful) for c in table] == [("mine", True), ("mine", False)]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("words.txt", "Dust, Peace, Milk", 1),
        ("words.txt", "Dust, Peace, Milk,\nSalt, Wind, Bread\n", 1),
        ("words.txt", "Dust,\nPeace,\nMilk\n", 1),
        ("words.txt", "ocean,places\nenvy,feelings\n", 1),
        ("words.txt", 'sea\n"hot air balloon",things\n', 2),
        ("words.csv", "ocean,places\n", 1),
        ("words.txt", "| ocean | places |\n|---|---|\n| envy | feelings |", 1),
        ("words.txt", "['ocean', 'envy']", 1),
        ("words.json", '["ocean",\n "envy",\n]', 3),
        ("words.json", '{"words": ["ocean"]}', 1),
        ("words.json", '[\n"ocean",\n\n["envy"]\n]', 4),
        ("words.jsonl", '{"concept": "ocean"}\nenvy\n', 2),
        ("words.jsonl", '{"concept": "ocean"}\n{"category": "x"}\n', 2),
        ("words.txt", "1. FC One\n1. FC Two\n", 1),
        ("words.txt", "Nouns:\n- ocean\n- envy\n", 1),
        ("words.txt", "ocean\n#nouns, easy\n", 2),
        ("words.txt", "ocean #wet\n", 1),
        ("words.txt", "ocean|places\nenvy|feelings\n", 1),
        ("words.txt", "\tplaces\n", 1),
        ("words.txt", "ocean\nenvy\tb\tc\td\n", 2),
        ("words.txt", "ocean\nbomb\tweapons\tperhaps\n", 2),
        ("words.csv", "concept,harmful\nocean,0\nbomb,perhaps\n", 3),
        ("words.csv", "concept,category\n# x\nrock, paper, scissors\n", 3),
        ("words.csv", 'concept,category\nocean,places\n"envy,feelings\n', 4),
        ("words.txt", b"ocean\ncaf\xe9\n", 2),
        ("words.txt", "ocean\n\nse\x1ba\n", 3),
        ("words.txt", "ocean\n" + "a, b and c, " * 9, 2),
        ("words.txt", "ocean\n\n!!!\n", 3),
        ("words.txt", "ocean\nUser: envy\n", 2),
    ],
)
def test_what_is_refused_with_file_and_line(
    file: str, text: str | bytes, line: int, tmp_path: Path
) -> None:
    with pytest.raises(IntrospectionError) as caught:
        concepts(tmp_path, text, file)
    told = str(caught.value)
    assert (
        told.startswith(f"{file}, line {line}: ") and told.endswith(".") and told.count(". ") == 0
    )
    assert "one per line" in told or "--skip-bad-lines" in told


@pytest.mark.parametrize(
    "text", ["", "\n \n\t\t\n", "# only\n; this\n", "[]", "concept,category\n"]
)
def test_an_empty_list_says_so(text: str, tmp_path: Path) -> None:
    with pytest.raises(IntrospectionError, match="words.txt has no name in it"):
        concepts(tmp_path, text)


def test_bad_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(b"# mine\nocean\nse\x1ba\ncaf\xe9\n\nenvy\nUser: x\n")
    read = word_lists.read(words, skip_bad=True)
    assert [one.name for one in read.found] == ["ocean", "envy"]
    assert read.left_out() == "words.txt: 3 of 5 lines were left out: lines 3, 4, 7."
    words.write_text("concept,harmful\nocean,maybe\nenvy,no\n")
    read = word_lists.read(words, skip_bad=True)
    assert read.left_out() == "words.txt: 1 of 2 lines was left out: line 2."
    words.write_text("ocean\n")
    assert word_lists.read(words, skip_bad=True).left_out() == ""
    words.write_text("ocean\n" + "!!!\n" * 23)
    assert word_lists.read(words, skip_bad=True).left_out().endswith("20, 21 and 3 more.")
    words.write_text("!!!\nUser: x\n")
    with pytest.raises(IntrospectionError, match=r"No line of words.txt .* line 2: .*role marker"):
        word_lists.read(words, skip_bad=True)


class TestContexts:
    def test_what_is_text(self, tmp_path: Path) -> None:
        lines = [
            "Fix this HTML: <p><s>old price</s> new price</p>",
            "Why does my tokenizer print <unk> for emoji?",
            "What does [INST] mean in a Llama prompt?",
            "Explain photo\u00adsynthesis.",
            "Plan a trip\u200b to Rome.",
            "A mark \ufeff in the middle, 1\u2060000, and \u0645\u06cc\u200c\u062e\u0648.",
            "# no comment, ; this neither",
            '["no", "list"]',
        ]
        path = tmp_path / "texts.txt"
        path.write_text("\ufeff" + "\n\n".join([*lines, lines[0]]), encoding="utf-8")
        assert text_files.contexts(path).found == tuple(lines)
        path.write_bytes("One\x0ctwo\u2028three\r\n\x0c\r\nFour\r\n".encode())
        assert text_files.contexts(path).found == ("One\ntwo\nthree", "Four")

    @pytest.mark.parametrize("bad", [b"a\x1b[2J", b"a\0b", b"caf\xe9", b"User: yes", b"x" * 8_001])
    def test_a_bad_line(self, bad: bytes, tmp_path: Path) -> None:
        path = tmp_path / "texts.txt"
        path.write_bytes(b"One.\n\n" + bad + b"\nTwo.\n")
        with pytest.raises(
            IntrospectionError, match=r"^texts.txt, line 3: the context .*--skip-bad"
        ):
            text_files.contexts(path)
        read = text_files.contexts(path, skip_bad=True)
        assert read.found == ("One.", "Two.")
        assert read.left_out() == "texts.txt: 1 of 3 lines was left out: line 3."

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.txt"
        path.write_text("\n \n")
        with pytest.raises(IntrospectionError, match="empty"):
            text_files.contexts(path)
        with pytest.raises(IntrospectionError, match="cannot be read"):
            text_files.contexts(tmp_path)

    def test_contexts_as_json(self, tmp_path: Path) -> None:
        texts = ["I ate lunch.", 'She said "no".\nTwice.']
        for name, data in (
            ("a.json", json.dumps(texts)),
            ("b.jsonl", "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts)),
        ):
            (tmp_path / name).write_text(data)
            assert list(text_files.contexts(tmp_path / name).found) == texts
        (tmp_path / "b.jsonl").write_text('"fine"\n{"body": 1}\n')
        with pytest.raises(IntrospectionError, match="b.jsonl, line 2"):
            text_files.contexts(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    "line",
    ["#1\tocean", 'words = ["ocean"]', "/* words */", "<!-- words -->", "-- words"]
    + ["% words", "<li>ocean</li>", "ocean" + " " * 300_000 + "x"],
)
def test_what_may_be_no_name_is_asked_about(tmp_path: Path, line: str) -> None:
    path, began = tmp_path / "words.txt", time.perf_counter()
    path.write_text(f"{line}\nlighthouse\n")
    with pytest.raises(IntrospectionError, match=r"words.txt, line 1: .* --skip-bad-lines"):
        word_lists.read(path)
    assert time.perf_counter() - began < 5
    assert [c.name for c in word_lists.read(path, skip_bad=True).found] == ["lighthouse"]
