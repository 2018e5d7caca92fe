"""Models of other kinds, and files of models that are not as they should be: one true sentence each,
alike for every command, about the network only where the network is the cause."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, ByT5Tokenizer
from transformers.models import auto

from introspection.errors import IntrospectionError
from introspection.injection import hooks
from introspection.injection.decoding.generation import generate
from introspection.injection.self_test import self_test
from introspection.injection.trials.message import conversation
from introspection.injection.trials.trial import Trial
from introspection.models import loading
from introspection.models.weights import load_errors
from introspection.training.data.activation_cache import ActivationCache
from tests.support.command import one_sentence, run
from tests.support.fake_hub import FakeHub
from tests.support.tiny import DEPTH, make_model, make_tokenizer
from tests.support.tiny_folder import edit_json, edit_tensors, write_adapter, write_model

pytestmark = pytest.mark.slow  # models of many kinds

NETWORK = re.compile(r"network|HF_TOKEN|internet|proxy", re.IGNORECASE)
SIZES = {"hidden_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 256}
TEXT = {**SIZES, "num_key_value_heads": 2}
LLAVA = {
    "text_config": {"model_type": "llama", **TEXT},
    "vision_config": {
        "model_type": "clip_vision_model",
        "image_size": 28,
        "patch_size": 14,
        **SIZES,
    },
    "image_token_index": 5,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}


def refused(*args: object, says: str) -> str:
    """The one sentence, which matches ``says`` and blames no network."""
    result = run(*args)
    assert result.exit_code == 2, (result.output, result.exception)
    line = one_sentence(result.stderr, result.stdout)
    assert re.search(says, line) and not NETWORK.search(line) and " ..." not in line, line
    return line


def commands(folder: Path, out: Path) -> list[tuple[object, ...]]:
    train = ("train", "--recipe", "paper", "--examples", 8, "--epochs", 1, "--batch-size", 4)
    return [
        ("ask", "ocean", "--base", "--model", folder),
        ("ask", "ocean", "--model", folder),
        ("extract", "ocean", "--out", out / "v.safetensors", "--model", folder),
        (*train, "--out", out / "a", "--run", out / "r", "--model", folder),
    ]


def save(folder: Path, kind: Any, config: str, **options: Any) -> None:
    tokens = len(make_tokenizer())
    inner = options.get("text_config", options)
    inner.setdefault("vocab_size", tokens)
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 3}
    kind.from_config(AutoConfig.for_model(config, **ids, **options)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def save_slow(folder: Path) -> None:
    save(folder, AutoModelForCausalLM, "llama", **TEXT, vocab_size=400)
    (folder / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(folder)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "llava": (
        lambda f: save(f, auto.AutoModelForImageTextToText, "llava", **LLAVA),
        r"vision-language.*\(LlavaForConditionalGeneration\)",
    ),
    "bert": (lambda f: save(f, auto.AutoModelForMaskedLM, "bert", **SIZES), "encoder, which reads"),
    "bert without a head": (lambda f: save(f, AutoModel, "bert", **SIZES), "encoder, which reads"),
    "t5": (lambda f: save(f, auto.AutoModelForSeq2SeqLM, "t5", **T5), "encoder-decoder"),
    "reward": (
        lambda f: save(f, auto.AutoModelForSequenceClassification, "llama", **TEXT),
        "classifier or reward model",
    ),
    "no head": (lambda f: save(f, AutoModel, "llama", **TEXT), "lacks 1 of .* lm_head.weight"),
    "slow tokenizer": (save_slow, r"tokenizer .*\(ByT5Tokenizer\) is a slow one.*tokenizer\.json"),
    # What the hook or the gate cannot do yet.
    "no positions in its layers": (
        lambda f: save(f, AutoModelForCausalLM, "mamba", state_size=8, **SIZES),
        "MambaForCausalLM is built in a way that .* no position_ids",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_model_of_another_kind(name: str, tmp_path: Path) -> None:
    make, says = KINDS[name]
    make(tmp_path / "m")
    for command in commands(tmp_path / "m", tmp_path):
        if command[:2] == ("ask", "ocean") and "--base" not in command and name in LATE:
            continue  # without an adapter nothing is loaded
        refused(*command, says=says)
    checked = run("check", "--model", tmp_path / "m", "--adapter", "none")
    assert checked.exit_code == 2
    (line,) = [line for line in checked.stdout.splitlines() if line.startswith("problem model: ")]
    assert re.search(says, line) and not NETWORK.search(line)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


LATE = ("no head", "slow tokenizer", "no positions in its layers")


MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
MAMBA |= {"mamba_chunk_size": 16, "mamba_expand": 1, "mamba_d_ssm": 32, "head_dim": 8}


def test_models_that_cannot_be_trained_yet(tmp_path: Path) -> None:
    unknown = "FalconH1ForCausalLM is built in a way that training does not know here"
    for family, options, says in (
        ("gpt2", SIZES, "NoMatchingPeftModuleError: Target modules"),
        ("falcon_h1", TEXT | MAMBA, unknown),
    ):
        folder = tmp_path / family
        save(folder, AutoModelForCausalLM, family, **options)
        assert run("ask", "ocean", "--base", "--model", folder).exit_code == 0
        refused(*commands(folder, tmp_path)[-1], says=says)


def test_a_model_that_reads_both_ways() -> None:
    model = make_model("llama")
    hooks.install(model, 1)

    def both_ways(_module: Any, _args: Any, output: Any) -> Any:
        return output + output.mean(1, keepdim=True)

    hooks.decoder_layers(model)[2].register_forward_hook(both_ways)
    with pytest.raises(IntrospectionError, match="reads its text in both directions"):
        self_test(model, 1)


GPT = {"n_embd": 32, "n_layer": DEPTH, "n_head": 4, "n_positions": 64}
OPT = {**SIZES, "max_position_embeddings": 64, "ffn_dim": 48, "word_embed_proj_dim": 32}
TABLES = {"gpt2": GPT, "opt": OPT, "gptj": {**GPT, "rotary_dim": 4}}


@pytest.mark.parametrize("family", TABLES)
def test_a_text_beyond_the_table_of_positions(family: str, tmp_path: Path) -> None:
    save(tmp_path / "m", AutoModelForCausalLM, family, **TABLES[family])
    ask = ("ask", "ocean", "--base", "--model", tmp_path / "m", "--question")
    assert run(*ask, "Hi", "--max-tokens", 30).exit_code == 0
    length = r"A text of \d{2,3} tokens and an answer of up to 30 is too long .* 64 positions"
    refused(*ask, "What is it? " * 9, "--max-tokens", 30, says=length)
    refused(*ask, "Hi", "--max-tokens", 60, says="an answer of up to 60 is too long .* 64 posit")
    extract = ("extract", "ocean", "--out", tmp_path / "v", "--model", tmp_path / "m")
    long = "What do you know of it in all its many ways and times and places, of {c}?"
    refused(*extract, "--template", long, says=r"A text of \d+ tokens is too long .* 64 positions")
    loaded = loading.load(str(tmp_path / "m"), None, device="cpu")
    with pytest.raises(IntrospectionError, match="65 tokens is too long .* 64 positions"):
        ActivationCache(loaded.model, [(5,) * 65], 2048)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole") / "tiny")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def emptied(**files: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    return apply


def template(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text) and None


def told(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def renamed(to: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").rename(folder / to) and None


def in_parts(folder: Path) -> None:
    renamed("model-00001-of-00002.safetensors")(folder)
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def no_end(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = {"eos_token" if "tokenizer" in name else "eos_token_id": None}
        edit_json(folder / name, **settings)


def not_a_number(folder: Path) -> None:
    weights = folder / "model.safetensors"
    edit_tensors(weights, lambda state: {name: v * float("nan") for name, v in state.items()})


def others_tokenizer(folder: Path) -> None:
    own = {"AutoTokenizer": ["code.Own", None]}
    edit_json(folder / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=own)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (emptied(), "is empty"),
    "no config": (without("config.json"), "has no config.json"),
    "GGUF": (emptied(m__gguf="GGUF"), r"holds GGUF weights \(m\.gguf\)"),
    "an adapter": (emptied(adapter_config__json="{}"), "holds an adapter.*--adapter"),
    "config cut": (lambda f: os.truncate(f / "config.json", 9), "config.json .* is not JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "config empty": (lambda f: (f / "config.json").write_text("{}"), "model_type"),
    "impossible": (told(num_attention_heads=0), "configuration cannot be used.*ZeroDivision"),
    "unknown kind": (told(model_type="llama9"), "'llama9', which this version of transformers"),
    "remote code": (told(model_type="x", auto_map={"A": "b.C"}), "program code from its own rep"),
    "weights cut": (lambda f: os.truncate(f / "model.safetensors", 5000), "cut short"),
    "no weights": (without("model.safetensors"), "no weights that can be read"),
    "weights of others": (renamed("tf_model.h5"), r"only tf_model\.h5"),
    "a part lacks": (in_parts, "lacks 1 of the files of its weights .*00002-of-00002"),
    "more layers": (told(num_hidden_layers=DEPTH + 2), "lacks 18 of the weights"),
    "other shapes": (told(hidden_size=64), "other shapes than its config.json says"),
    "quantised by others": (
        told(quantization_config={"quant_method": "gptq", "bits": 4}),
        "a package is missing to read its weights.*optimum",
    ),
    "NaN": (not_a_number, "own weights give NaN"),
    "no tokenizer": (without("tokenizer.json"), "tokenizer's files are missing"),
    "tokenizer garbled": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer's files"),
    "tokenizer's code": (others_tokenizer, "tokenizer needs program code from its own repository"),
    "tokenizer of another": (told(vocab_size=200), r"gives token \d+, but the model knows 200"),
    "no end": (no_end, "has no end token"),
    "template garbled": (template("{% for"), "chat template cannot be used.*unexpected"),
    "template says nothing": (template("Hello"), "the words are missing"),
    "template raises": (template("{{ raise_exception('No chat') }}"), r"\(No chat\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_not_as_they_should_be(name: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    breaks, says = BROKEN[name]
    breaks(folder)
    ask, _, extract, train = commands(folder, tmp_path)
    for command in (ask, extract, train):
        refused(*command, says=says)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_file_or_the_folder_above(whole: Path) -> None:
    ask = ("ask", "ocean", "--base", "--model")
    assert run(*ask, whole, "--question", "What is it? " * 40).exit_code == 0  # no last position
    refused(*ask, whole / "model.safetensors", says="is a file: name the folder")
    refused(*ask, whole.parent, says="folders that have one: name .*tiny instead")
    refused(*ask, "no/such.gguf", says="is a GGUF file")


def test_memory_that_does_not_suffice(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ):

        def full(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
        with pytest.raises(IntrospectionError, match="memory does not suffice"):
            loading.load(str(whole), None, device="cpu")


def test_a_folder_that_may_not_be_read(whole: Path) -> None:
    for error in (PermissionError(13, "Permission denied"), OSError(5, "Input/output error")):
        with (
            pytest.raises(IntrospectionError, match=f"{error.strerror}.: mend the perm") as refused,
            load_errors.readable_load_errors("tiny", str(whole)),
        ):
            raise error
        assert not NETWORK.search(str(refused.value))


def test_an_end_token_that_only_the_model_knows(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    (folder / "chat_template.jinja").unlink()
    loaded = loading.load(str(folder), None, device="cpu")
    assert loaded.tokenizer.eos_token_id == loaded.model.generation_config.eos_token_id == 2
    assert run(*commands(folder, tmp_path)[0]).exit_code == 0


def test_a_pad_token_beyond_the_embeddings_is_not_used(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "m"))
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<added later>"})
    tokenizer.save_pretrained(folder)
    loaded = loading.load(str(folder), None, device="cpu")
    assert loaded.tokenizer.pad_token_id >= len(loaded.model.get_input_embeddings().weight)
    texts = ("Hi", "What is it about, then?")
    trials = [Trial(conversation(text), adapter=False) for text in texts]
    assert len(generate(loaded, trials, 4)) == 2


@pytest.mark.slow  # a process of its own, as the library reads the Hub's address at the start
def test_what_the_hub_says(whole: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    wanted = {
        "org/good": "",
        "org/private": r"does not exist at .* or is private: .* HF_TOKEN",
        "org/gated": r"is gated: ask for access",
        "org/good@nope": "has no such revision",
        "org/gguf": r"holds GGUF weights \(x\.gguf\)",
        "org/cut": "damaged or cut short",
        "org/bare": "weights cannot be used",
    }
    code = (
        "import json, sys\nfrom typer.testing import CliRunner\n"
        "from introspection.__main__ import app\n"
        "for name in sys.argv[1:]:\n"
        "    args = ['ask', 'ocean', '--base', '--device', 'cpu', '--model', name]\n"
        "    done = CliRunner().invoke(app, args)\n"
        "    print(json.dumps([done.exit_code, done.stderr.splitlines()[-1:]]), flush=True)\n"
    )
    with FakeHub() as hub:
        hub.create("org/good").commit(dict(files))
        hub.create("org/private", private=True).commit(dict(files))
        hub.create("org/gated", gated=True).commit(dict(files))
        hub.create("org/gguf").commit({"x.gguf": b"GGUF"})
        cut = files["model.safetensors"][:3000]
        hub.create("org/cut").commit({**files, "model.safetensors": cut})
        hub.create("org/bare").commit({k: v for k, v in files.items() if "safetensors" not in k})
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code, *wanted],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "HF_TOKEN": "", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
    for (name, says), line in zip(wanted.items(), done.stdout.splitlines(), strict=True):
        code_, said = json.loads(line)
        assert code_ == (2 if says else 0), (name, said)
        if says:
            assert re.search(says, said[0]) and said[0].endswith("."), (name, said)
            assert bool(NETWORK.search(said[0])) == ("HF_TOKEN" in says or "gated" in says), said


def test_a_model_with_an_adapter_beside_it(tmp_path: Path) -> None:
    """transformers would load it with the model, and its fingerprint would be the base's."""
    model = write_model(tmp_path / "m")
    adapter = write_adapter(tmp_path / "a", model)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, model / name)
    with pytest.raises(IntrospectionError, match="holds a model and an adapter"):
        loading.load(str(model), None, device="cpu")
