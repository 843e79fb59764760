"""The tagger on a Ray cluster gives what the pipeline gives."""

import json
import runpy
from pathlib import Path

import pytest

pytest_plugins = ("tiny_taggers",)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster of this machine whose processes start in the test's folder."""
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8)
    yield
    ray.shutdown()


def test_the_example_tags_on_a_cluster(cluster, tagger, picture, tmp_path):
    tagger.save_pretrained("model")
    Path("pictures").mkdir()
    picture.save("pictures/p.png")
    posts = [{"id": i, "text": f"Anna meets Bob {i}", "image": "p.png" if i % 2 else None} for i in range(20)]
    posts += [{"id": 20, "text": None, "image": None}, {"id": 21, "text": "Rome", "image": "missing.png"}]
    Path("posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    example = runpy.run_path(str(ROOT / "examples" / "tag_with_ray.py"))
    example["main"](["posts.jsonl", "--model=model", "--images=pictures", "--output=entities", "--batch_size=4"])

    rows = {}
    for file in (tmp_path / "entities").iterdir():
        for line in file.read_text().splitlines():
            row = json.loads(line)
            rows[row["id"]] = row
    assert rows.keys() == set(range(22))
    for post in posts[:20]:
        expected = tagger({"text": post["text"], "image": picture if post["image"] else None})
        found = rows[post["id"]]["entities"]
        assert [(e["entity_group"], e["word"], e["start"], e["end"]) for e in found] == [
            (e["entity_group"], e["word"], e["start"], e["end"]) for e in expected
        ]
        for one, other in zip(found, expected, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
            assert [node["box"] for node in one["objects"]] == [node["box"] for node in other["objects"]]
    assert "no text" in rows[20]["error"] and "missing.png: no such file" in rows[21]["warning"]
    assert rows[20].get("entities") is None
