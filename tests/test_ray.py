"""The tagger on a Ray cluster gives what the pipeline gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ("tiny_taggers",)
ROOT = Path(__file__).resolve().parents[1]


def test_the_example_tags_on_a_local_cluster(tagger, picture, tmp_path):
    pytest.importorskip("ray")
    tagger.save_pretrained(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "p.png")
    posts = [{"id": i, "text": f"Anna meets Bob {i}", "image": "p.png" if i % 2 else None} for i in range(20)]
    posts += [{"id": 20, "text": None, "image": None}, {"id": 21, "text": "Rome", "image": "missing.png"}]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    start = "import ray, runpy, sys; ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8); "
    code = start + "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    arguments = ["posts.jsonl", "--model=model", "--images=pictures", "--output=entities", "--batch_size=4"]

    process = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "examples" / "tag_with_ray.py"), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    lines = [line for path in (tmp_path / "entities").iterdir() for line in path.read_text().splitlines()]
    rows = {row["id"]: row for row in map(json.loads, lines)}
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
    assert "no text" in rows[20]["error"] and "missing.png: no such file" in rows[21]["error"]
    assert rows[20].get("entities") is None
