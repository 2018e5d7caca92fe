"""What a number came from is in the record, and is checked wherever numbers meet an adapter."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from introspection.concepts.splits import UNSEEN_CATEGORIES
from introspection.errors import IntrospectionError
from introspection.evaluation import runner
from introspection.evaluation.records import provenance, record_files
from introspection.hub import transfer
from introspection.injection.extraction import UNSEEN_TEMPLATE
from introspection.injection.vectors import load_vectors, save_vectors
from introspection.io.files import sha256_file
from introspection.io.outputs import manifest
from introspection.io.version import __version__
from introspection.models.adapters import adapter_info
from introspection.models.adapters.card import write_card
from introspection.models.fingerprints import fingerprint
from introspection.models.presets import DEFAULT, PRESETS
from tests.support.command import done, one_sentence, run
from tests.support.tiny_folder import edit_json, edit_tensors, write_adapter, write_model

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "adapters" / "smollm2-135m"
SMALL = ("--suite", "quick", "--limit", 2, "--device", "cpu")


def refused(*args: object, says: str) -> str:
    result = run(*args)
    assert result.exit_code == 2, result.output
    line = one_sentence(result.stderr, longest=2_000)  # some list all conditions
    assert re.search(says, line), line
    return line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model, an adapter for it, and the folder of a run that measured it."""
    folder = tmp_path_factory.mktemp("made")
    model = write_model(folder / "secret-place" / "tiny")
    own = write_adapter(folder / "adapter", model, base_id="org/tiny")
    done("evaluate", *SMALL, "--model", model, "--adapter", own, "--out", folder / "run")
    return model, own, folder / "run"


@pytest.fixture
def copies(made: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the adapter and of the records, to be broken."""
    own = Path(shutil.copytree(made[1], tmp_path / "adapter"))
    return own, Path(shutil.copyfile(made[2] / "records.jsonl", tmp_path / "records.jsonl"))


def rewrite(path: Path, seal: bool = True, **changes: Any) -> None:
    """Change every record, and its checksum with it as the program would."""
    found = [{**record, **changes} for record in record_files.load(path)]
    path.write_text("".join(record_files.line(provenance.seal(r) if seal else r) for r in found))


def test_every_field_is_in_the_table_and_nothing_else(made: tuple[Path, Path, Path]) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+) \|$", (ROOT / "records" / "README.md").read_text(), re.M
    )
    assert dict(rows) == dict(record_files.FIELDS) and len(rows) == len(record_files.FIELDS)
    for path in (made[2] / "records.jsonl", *ROOT.glob("records/*/*.jsonl.gz")):
        for record in record_files.load(path):
            assert list(record) == list(record_files.FIELDS), path


def test_a_record_says_what_it_came_from(made: tuple[Path, Path, Path]) -> None:
    model, own, folder = made
    info = adapter_info.read_info(own)
    summary = json.loads((folder / "summary.json").read_text())
    found = record_files.read(folder / "records.jsonl")
    for record in found:
        assert record["weights"] == sha256_file(own / manifest.WEIGHTS)
        assert record["base"] == info.base_fingerprint and record["norm"] == info.norm
        assert (record["layer"], record["site"], record["seed"]) == (info.layer, info.site, 0)
        assert record["template"] == UNSEEN_TEMPLATE and record["suite"] == "quick"
        assert record["model"] == "tiny" and record["base_id"] == "tiny"
        assert record["device"] == "cpu float32" and record["adapter_name"] == "adapter"
        assert record["versions"]["introspection"] == __version__
        assert record["versions"]["torch"] == torch.__version__
        assert record["options"] == {"limit": 2}
        assert record["planned"] == len(found) == summary["planned"] == summary["done"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["time"])
        if record["concept"] is None:
            assert record["trained"] is record["held_out"] is record["split"] is None
        else:
            assert record["trained"] is (record["concept"] == "ocean")
            assert record["held_out"] is (record["category"] in UNSEEN_CATEGORIES)
        if not record["asked"] or not record["adapter"]:
            assert record["p_detect"] is None
    said = summary["provenance"]
    assert {field: said[field] for field in provenance.RUN_FIELDS} == {
        field: found[0][field] for field in provenance.RUN_FIELDS
    }
    assert said["started"] == min(r["time"] for r in found) <= said["ended"]
    assert summary["complete"] is True and provenance.sealed(summary)
    for file in folder.iterdir():
        assert "secret-place" not in file.read_text()


def test_trained_is_what_training_saw() -> None:
    seen = record_files.seen_names(adapter_info.read_info(SHIPPED))
    assert seen is not None
    for record in record_files.load(ROOT / "records" / "smollm2-135m" / "full.jsonl.gz"):
        if record["concept"] is not None:
            assert record["trained"] is (record["condition"] == "injected, seen"), record
            assert record["trained"] is record_files.was_trained(record["concept"], seen)
    assert record_files.was_trained("Pianos", frozenset({"piano"}))
    assert not record_files.was_trained("piano", frozenset({"piano stool"}))


def test_old_records_say_null_where_nothing_is_known() -> None:
    known = record_files.read(ROOT / "records" / "smollm2-135m" / "quick-cpu.jsonl.gz")[0]
    assert known["weights"] == sha256_file(SHIPPED / manifest.WEIGHTS)
    assert known["time"] is known["versions"] is known["device"] is None
    paper = record_files.read(ROOT / "records" / "paper" / "smollm2-135m.jsonl.gz")
    assert {record["weights"] for record in paper} == {None}
    assert {record["trained"] for record in paper} == {None}


class TestReport:
    def test_of_its_own_adapter(self, copies: tuple[Path, Path], tmp_path: Path) -> None:
        own, path = copies
        packed = tmp_path / "records.jsonl.gz"
        rewrite(path, versions={"introspection": "0.1.99"})  # a compatible one
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert run("report", "--records", packed, "--adapter", own).exit_code == 0
        document = json.loads((own / "evaluation.json").read_text())
        assert document["records"] == "records.jsonl.gz" and provenance.sealed(document)
        card = (own / "README.md").read_text()
        assert "| Seen concept named |" in card and str(tmp_path) not in card
        files = json.loads((own / manifest.INFO).read_text())["files"]
        assert files["evaluation.json"] == sha256_file(own / "evaluation.json")
        assert files["README.md"] == sha256_file(own / "README.md")

    def test_of_another_adapter(self, copies: tuple[Path, Path]) -> None:
        own, path = copies
        edit_tensors(own / manifest.WEIGHTS, lambda state: {k: v + 1 for k, v in state.items()})
        adapter_info.refresh_manifest(own)
        before = {file.name: file.read_bytes() for file in own.iterdir()}
        refused("report", "--records", path, "--adapter", own, says=r"another adapter \(weights")
        shipped = ROOT / "records" / "smollm2-135m" / "quick-cpu.jsonl.gz"
        refused("report", "--records", shipped, "--adapter", own, says="another adapter")
        paper = ROOT / "records" / "paper" / "smollm2-135m.jsonl.gz"
        refused("report", "--records", paper, "--adapter", own, says="does not say which adapter")
        assert {file.name: file.read_bytes() for file in own.iterdir()} == before

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"base": "0" * 16}, "another base model"),
            ({"layer": 2}, r"another layer \(layer 2 there, 1 here"),
            ({"norm": 1.5}, "another unit of strength"),
            ({"versions": {"introspection": "0.2.0"}}, r"another version \(introspection 0.2.0"),
            ({"versions": {"introspection": "1.0"}}, "another version"),
            ({"schema": None}, "has schema 1 or older.*regrade"),
            ({"schema": 3}, "has schema '3'"),
            ({"planned": 9999}, r"of the 9,999 reports.*evaluate"),
            ({"condition": "injected, seen"}, "Line 1 of .* was edited"),  # not the key's
        ],
    )
    def test_of_something_else(
        self, changes: dict[str, Any], says: str, copies: tuple[Path, Path]
    ) -> None:
        own, path = copies
        rewrite(path, **changes)
        refused("report", "--records", path, "--adapter", own, says=says)
        assert not (own / "evaluation.json").exists()

    @pytest.mark.parametrize(
        "changes",
        [{"correct": True}, {"condition": "injected, seen"}, {"note": "mine"}, {"check": "0" * 16}],
    )  # fmt: skip
    def test_edited_by_hand(self, changes: dict[str, Any], copies: tuple[Path, Path]) -> None:
        own, path = copies
        lines = path.read_text().splitlines()
        at = next(
            i for i, line in enumerate(lines)
            if not json.loads(line)["correct"] and json.loads(line)["p_detect"] != 0.5
            and json.loads(line)["condition"] == "injected, unseen"
        )  # fmt: skip
        lines[at] = json.dumps({**json.loads(lines[at]), **changes}, ensure_ascii=False)
        path.write_text("\n".join(lines) + "\n")
        says = rf"Line {at + 1} of .* was edited or damaged"
        refused("report", "--records", path, "--adapter", own, says=says)

    def test_lines_left_out_doubled_or_of_two_runs(self, copies: tuple[Path, Path]) -> None:
        own, path = copies
        lines = path.read_text().splitlines(keepends=True)
        asked = ("report", "--records", path, "--adapter", own)
        path.write_text("".join(lines[1:]))
        refused(*asked, says=f"holds {len(lines) - 1} of the {len(lines)} reports")
        path.write_text("".join([*lines[1:], lines[1]]))
        refused(*asked, says=f"Line {len(lines)} of .* stands there twice")
        other = provenance.seal({**json.loads(lines[-1]), "seed": 1})
        path.write_text("".join([*lines[:-1], record_files.line(other)]))
        refused(*asked, says=r"another run than line 1 \(seed 1 there, 0 here\)")

    def test_verdicts_of_another_grading(self, copies: tuple[Path, Path]) -> None:
        own, path = copies
        text = "I detect an injected thought about ocean."
        rewrite(path, text=text, detected=False, named=None, correct=False, coherent=True)
        refused("report", "--records", path, "--adapter", own, says="line 1 of .*regrade")
        found = [record_files.regraded(record) for record in record_files.load(path)]
        path.write_text("".join(map(record_files.line, found)))
        assert all(r["detected"] and r["named"] == "ocean" for r in record_files.read(path))
        assert run("report", "--records", path, "--adapter", own).exit_code == 0

    def test_a_damaged_archive(self, copies: tuple[Path, Path], tmp_path: Path) -> None:
        own, path = copies
        whole, packed = gzip.compress(path.read_bytes()), tmp_path / "r.jsonl.gz"
        for data in (whole[:100], whole[:99] + bytes([whole[99] ^ 255]) + whole[100:], b"no", b""):
            packed.write_bytes(data)
            asked = ("report", "--records", packed, "--adapter", own)
            refused(*asked, says="cannot be read|are empty")

    @pytest.mark.parametrize("content", ["", "{", "3\n", '{"a": 1}\n'])
    def test_no_records(self, content: str, copies: tuple[Path, Path]) -> None:
        own, path = copies
        path.write_text(content)
        refused("report", "--records", path, "--adapter", own, says="records|schema")


class TestPush:
    @pytest.fixture
    def measured(self, copies: tuple[Path, Path]) -> Path:
        own, path = copies
        assert run("report", "--records", path, "--adapter", own).exit_code == 0
        return own

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(transfer.client, "commit_files", lambda *_, **__: "sent")
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        yield

    def test_its_own(self, measured: Path) -> None:
        assert transfer.push(measured, "org/name") == "sent"
        (measured / "evaluation.json").unlink()
        assert transfer.push(measured, "org/name") == "sent"

    def test_stale_after_another_training(self, measured: Path) -> None:
        edit_tensors(measured / manifest.WEIGHTS, lambda s: {k: v + 1 for k, v in s.items()})
        adapter_info.refresh_manifest(measured)
        with pytest.raises(IntrospectionError, match=r"evaluation.json is of another adapter"):
            transfer.push(measured, "org/name")

    def test_edited_by_hand(self, measured: Path) -> None:
        path = measured / "evaluation.json"
        document = json.loads(path.read_text())
        document["conditions"]["clean, asked"]["flagged"]["successes"] = 0
        document["conditions"]["clean, asked"]["n"] += 1
        path.write_text(json.dumps(document))
        adapter_info.refresh_manifest(measured)
        with pytest.raises(IntrospectionError, match=r"was edited or damaged .*\.$"):
            transfer.push(measured, "org/name")
        edit_json(path, provenance=None)
        with pytest.raises(IntrospectionError, match="does not say which adapter it measured"):
            transfer.push(measured, "org/name")


class TestEvaluate:
    def test_options(self, made: tuple[Path, Path, Path], tmp_path: Path) -> None:
        model, own, _ = made
        words, texts = tmp_path / "words.txt", tmp_path / "texts.txt"
        words.write_text("zorblat\nflurb\tmachines\tharmful\n")
        texts.write_text("The sky is blue.\nRain again.\n")
        asked = ("evaluate", "--concepts", words, "--contexts", texts, "--model", model)
        asked += ("--adapter", own, "--strengths", "0.3,0.9,1.5", "--schedules", "final_on,final")
        asked += ("--base", "--template", "Say {c} now", "--out", tmp_path / "out", "--limit", 2)
        done(*asked)
        found = record_files.read(tmp_path / "out" / "records.jsonl")
        assert {r["strength"] for r in found} == {0, 0.3, 0.9}
        assert {r["schedule"] for r in found} == {"final_on", "final"}
        assert {r["template"] for r in found} == {"Say {c} now"}
        assert sum(r["adapter"] for r in found) == len(found) / 2
        conditions = {r["condition"] for r in found}
        assert {"injected, own context", "injected, own context, final, base model"} <= conditions
        stands = [r for r in found if r["condition"] == "clean, as it stands"]
        assert stands and {r["p_detect"] for r in stands} == {None}
        options = found[0]["options"]
        assert re.fullmatch("[0-9a-f]{16}", options["concepts"]) and options["base"] is True
        assert options["strengths"] == [0.3, 0.9, 1.5] and options["limit"] == 2
        refused(*asked, "--strengths", "0.3", says=r"another run \(options: .*--out")
        refused(*asked, "--template", "Sing {c}", says="another run")
        texts.write_text("The sky is green.\nRain again.\n")
        refused(*asked, says="another run")

    def test_bad_options(self, made: tuple[Path, Path, Path], tmp_path: Path) -> None:
        model, own, _ = made
        asked = ("evaluate", *SMALL, "--model", model, "--adapter", own, "--out", tmp_path / "o")
        for option, value, says in (
            ("--conditions", "injected", "There is no condition 'injected'.*injected, seen; "),
            ("--strengths", "0,1", "strength of 0"),
            ("--schedules", "span:1-2", "fits one prompt"),
            ("--template", "no slot", "{c}"),
        ):
            refused(*asked, option, value, says=says)
        assert not (tmp_path / "o").exists()

    @pytest.mark.slow  # runs a suite four times
    @pytest.mark.parametrize("end", [KeyboardInterrupt, OSError(28, "full"), "kill"])
    def test_a_summary_at_every_stop(
        self,
        end: Any,
        made: tuple[Path, Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        model, own, _ = made
        true, calls = runner.generate_with_scores, list[int]()

        def stopped(*args: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                if end == "kill":
                    signal.raise_signal(signal.SIGTERM)
                else:
                    raise end
            return true(*args)

        asked = ("evaluate", *SMALL, "--model", model, "--adapter", own, "--out", tmp_path)
        asked += ("--batch-size", 5)
        monkeypatch.setattr(runner, "generate_with_scores", stopped)
        assert run(*asked).exit_code != 0
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["done"] == 10 and not summary["complete"]
        assert summary["planned"] > 10 and provenance.sealed(summary)
        assert sum(found["n"] for found in summary["conditions"].values()) == 10
        path = tmp_path / "records.jsonl"
        refused("report", "--records", path, "--adapter", own, says="holds 10 of the")
        assert run(*asked).exit_code == 0
        again = json.loads((tmp_path / "summary.json").read_text())
        assert again["complete"] and again["done"] == again["planned"] == summary["planned"]

    def test_a_line_edited_by_hand_is_made_again(
        self, made: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        model, own, whole = made
        lines = (whole / "records.jsonl").read_text().splitlines(keepends=True)
        changed = json.dumps({**json.loads(lines[3]), "text": "I like it."}) + "\n"
        (tmp_path / "records.jsonl").write_text("".join([*lines[:3], changed, *lines[4:]]))
        asked = ("evaluate", *SMALL, "--model", model, "--adapter", own, "--out", tmp_path)
        assert run(*asked).exit_code == 0
        again, first = (record_files.read(at / "records.jsonl") for at in (tmp_path, whole))
        assert {r["key"]: r["text"] for r in again} == {r["key"]: r["text"] for r in first}


class TestCard:
    def test_before_it_is_measured(self, copies: tuple[Path, Path]) -> None:
        own, _ = copies
        write_card(own)
        card = (own / "README.md").read_text()
        assert "Not measured yet" in card and "introspection evaluate" in card
        assert "buckets" not in card and "Q4_1" not in card and "base_model: org/tiny" in card
        assert adapter_info.read_info(own)

    def test_of_a_folder_no_path(self, copies: tuple[Path, Path]) -> None:
        own, _ = copies
        command = "introspection train --model /home/secret-place/tiny/"
        command += " --x=~/secret-place --layer 1"
        edit_json(own / manifest.INFO, base_id="/home/me/secret-place/tiny", command=command)
        write_card(own)
        card = (own / "README.md").read_text()
        assert "/secret-place" not in card and "secret-place/" not in card
        assert "base_model:" not in card and "--model tiny --x=secret-place --layer 1" in card
        assert 'base = "path/to/tiny"' in card

    @pytest.mark.parametrize("suite", ["paper", "own", "quick", "validation"])
    def test_true_for_any_suite(
        self, suite: str, made: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        model, own, _ = made
        own = Path(shutil.copytree(own, tmp_path / "adapter"))
        words = tmp_path / "words.txt"
        words.write_text("zorblat\nflurb\tmachines\tharmful\n")
        which = {
            "own": ("--concepts", words),
            "validation": ("--suite", "quick", "--split", "validation", "--limit", 1),
        }.get(suite, ("--suite", suite, "--limit", 1))
        out = tmp_path / "run"
        done("evaluate", *which, "--model", model, "--adapter", own, "--out", out)
        done("report", "--records", out / "records.jsonl", "--adapter", own)
        card = (own / "README.md").read_text()
        sources = {"quick": "buckets 0 and 1", "validation": "bucket 2", "own": "own list"}
        sources["paper"] = "the paper's own 40 and 20"
        assert [name for name, told in sources.items() if told in card] == [suite]
        assert "`records.jsonl`" in card and str(tmp_path) not in card
        assert card.count("\n| ") > 2, "there are rates"

    def test_a_pinned_base(self, copies: tuple[Path, Path]) -> None:
        own, _ = copies
        preset = PRESETS["deepseek-7b"]
        edit_json(own / manifest.INFO, base_id=preset.base_id)
        write_card(own)
        example = f'CausalLM.from_pretrained(base, revision="{preset.weights.revision}")'
        card = (own / "README.md").read_text()
        assert f'base = "{preset.base_id}"' in card and example in card
        command = "python -m introspection train --model org/tiny@v1.2"
        edit_json(own / manifest.INFO, base_id="org/tiny", command=command)
        write_card(own)
        assert 'from_pretrained(base, revision="v1.2")' in (own / "README.md").read_text()

    @pytest.mark.slow  # loads the default model
    def test_the_example_runs_and_injects(self, capsys: pytest.CaptureFixture[str]) -> None:
        from introspection.concepts.texts import DEFAULT_QUESTION
        from introspection.injection.decoding.generation import generate
        from introspection.injection.trials.message import conversation
        from introspection.injection.trials.trial import Injection, Trial
        from introspection.models import loading

        card = (SHIPPED / "README.md").read_text()
        assert "Q4_1" in card and "model_folder()" in card
        example = card.split("```python\n")[1].split("```")[0]
        exec(example.replace("path/to/this/folder", str(SHIPPED)), {})
        said = capsys.readouterr().out.strip()
        loaded = loading.load(device="cpu")
        assert fingerprint(loaded.model).startswith(PRESETS[DEFAULT].weights.fingerprint)
        trial = Trial(conversation(DEFAULT_QUESTION), Injection(loaded.vector("ocean"), 1.0))
        assert said == generate(loaded, [trial])[0].text
        assert said.startswith("I detect an injected thought") and "ocean" in said


def test_files_of_an_adapter_have_one_norm(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, own, _ = made
    info = adapter_info.read_info(own)
    for i, words in enumerate((["ocean"], ["salt", "a quiet volcano", "justice"])):
        for extra in ((), ("--adapter", own)):
            file = tmp_path / f"{i}{len(extra)}.safetensors"
            done("extract", *words, "--out", file, "--model", model, "--layer", 1, *extra)
            vectors = load_vectors(file)
            assert vectors.norm == info.norm and vectors.fingerprint == info.base_fingerprint
            assert len(vectors.baseline) == 99


def test_vectors_in_another_unit_are_refused(copies: tuple[Path, Path], made: Any) -> None:
    own, _ = copies
    path = own / manifest.VECTORS
    vectors = load_vectors(path)
    for mark, bad in (("", False), ("0123456789abcdef", True)):
        other = replace(vectors, norm=1.02 * vectors.norm, fingerprint=mark)
        save_vectors(other, path)
        adapter_info.refresh_manifest(own)
        result = run("ask", "ocean", "--model", made[0], "--adapter", own)
        assert (result.exit_code == 2) is bad, result.output
        assert ("another typical norm" in result.stderr) is bad


def test_train_writes_a_card_and_one_norm(tmp_path: Path, made: tuple[Path, Path, Path]) -> None:
    own = tmp_path / "made-here" / "adapter"
    done(
        *("train", "--recipe", "paper", "--examples", 8, "--epochs", 1, "--batch-size", 4),
        *("--model", made[0], "--device", "cpu", "--out", own, "--run", tmp_path / "run"),
    )
    info, vectors = adapter_info.read_info(own), load_vectors(own / manifest.VECTORS)
    assert vectors.norm == info.norm and vectors.fingerprint == info.base_fingerprint
    assert vectors.baseline == info.baseline and len(info.baseline) == 32
    assert info.versions["introspection"] == __version__
    card = (own / "README.md").read_text()
    assert "Not measured yet" in card and str(tmp_path) not in card and "Q4_1" not in card
    assert "secret-place" not in card.split("Trained with")[0]
