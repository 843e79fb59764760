import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_umgf import relation_search
from modeling_umgf.pictures import content_hash, look, open_picture
from modeling_umgf.relation_index import SEARCH_FILE, SETTINGS_FILE, RelationIndex, RelationIndexError
from modeling_umgf.relation_pictures import FEATURES_FILE, PICTURES_FILE, VECTORS_FILE
from modeling_umgf.sentence_encoders import HashingEncoder, SentenceEncoder, searchable_text

IDS = ["a", "b", "c", "d"]
CAPTIONS = ["a dog on a beach", "a stadium at night", "a dog in a park", ""]
LABELS = [["dog"], ["person", "ball"], ["dog", "person", "dog"], []]


def small_index(**settings) -> RelationIndex:
    features = torch.arange(4 * 2 * 3, dtype=torch.float32).reshape(4, 2, 3)
    settings = {"captions": CAPTIONS, "object_labels": LABELS, "features": features} | settings
    return RelationIndex(IDS, encoder=HashingEncoder(256), **settings)


def random_pool(size: int = 300, width: int = 8, seed: int = 0, distinct: int = 60) -> torch.Tensor:
    """Vectors of which many are equal, so that ties must be broken."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(distinct, width, generator=generator) + 0.5
    return vectors[torch.randint(distinct, (size,), generator=generator)]


def ids_of(found: list[list[dict]]) -> list[list[str]]:
    return [[neighbor["id"] for neighbor in row] for row in found]


def reference_order(scores, looks, ids, k):
    """Best k positive scores of one query, equal ones by looks, then by id; plain Python."""
    order = sorted(
        (-round(s, 9), -round(v, 6), name) for s, v, name in zip(scores, looks, ids, strict=True) if s > 1e-6
    )
    return [name for _, _, name in order[:k]]


@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
@pytest.mark.parametrize("blocks", [(16_384, 1_024), (7, 3)])
def test_text_search_equals_brute_force(hubness, blocks, monkeypatch):
    monkeypatch.setattr(relation_search, "POOL_BLOCK", blocks[0])
    monkeypatch.setattr(relation_search, "QUERY_BLOCK", blocks[1])
    pool, queries = random_pool(), random_pool(20, seed=1)
    ids = [f"p{i * 37 % 300:03}" for i in range(300)]
    features = torch.randn(300, 2, 4, generator=torch.Generator().manual_seed(2)).half()
    own = torch.randn(20, 2, 4, generator=torch.Generator().manual_seed(3))
    index = RelationIndex(ids, text_embeddings=pool, features=features, hubness=hubness)
    found = index.neighbors_for_text(queries, k=5, features=own)

    unit = torch.nn.functional.normalize
    pool, queries = unit(pool, dim=-1), unit(queries, dim=-1)
    if hubness == "center":
        mean = pool.double().mean(0).float()
        pool, queries = unit(pool - mean, dim=-1), unit(queries - mean, dim=-1)
    scores = queries.double() @ pool.double().T
    if hubness == "csls":
        nearest = (pool @ pool.T).topk(11).values[:, 1:].double().mean(1)  # without the caption itself
        scores -= (nearest - nearest.mean()) / 2
    pooled, own = unit(features.float().mean(1), dim=-1).half(), unit(own.mean(1), dim=-1).half()
    looks = own.double() @ pooled.double().T
    expected = [reference_order(s, v, ids, 5) for s, v in zip(scores.tolist(), looks.tolist(), strict=True)]
    assert ids_of(found) == expected
    by_id = {name: scores[:, i] for i, name in enumerate(ids)}
    for query, row in enumerate(found):
        assert all(math.isclose(n["score"], min(by_id[n["id"]][query], 1), abs_tol=1e-6) for n in row)
        assert [n["score"] for n in row] == sorted((n["score"] for n in row), reverse=True)


@pytest.mark.parametrize("blocks", [(16_384, 1_024), (7, 3)])
def test_object_search_equals_brute_force(blocks, monkeypatch):
    monkeypatch.setattr(relation_search, "POOL_BLOCK", blocks[0])
    monkeypatch.setattr(relation_search, "QUERY_BLOCK", blocks[1])
    draw = torch.Generator().manual_seed(0)
    sets = [[f"l{j}" for j in range(6) if torch.rand(1, generator=draw) < 0.3] for _ in range(200)]
    queries = [*sets[:20], ["l0", "never seen"], [], None]
    ids = [f"p{i * 7 % 200:03}" for i in range(200)]
    found = RelationIndex(ids, object_labels=sets).neighbors_for_picture(queries, k=6)
    for asked, row in zip(queries, found, strict=True):
        asked = set(asked or [])
        scores = [len(asked & set(s)) / math.sqrt(max(len(asked) * len(s), 1)) for s in sets]
        assert [n["id"] for n in row] == reference_order(scores, [0] * 200, ids, 6)
        assert [n["score"] for n in row] == pytest.approx(sorted(scores, reverse=True)[: len(row)])


def test_equal_scores_are_ordered_by_looks_then_by_id():
    looks = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])[:, None]
    index = RelationIndex(["d", "c", "b", "a"], object_labels=[["dog"]] * 4, features=looks)
    assert ids_of(index.neighbors_for_picture([["dog"]], k=4)) == [["a", "b", "c", "d"]]
    assert ids_of(index.neighbors_for_picture([["dog"]], k=3, features=looks[:1])) == [["b", "d", "a"]]


def test_looks_are_of_one_kind():
    """Features can't be compared with pixels, nor with an index that knows neither."""
    pixels = small_index(looks=torch.eye(4))
    assert ids_of(pixels.neighbors_for_picture([["dog"]], k=2, looks=torch.eye(4)[2:3])) == [["a", "c"]]
    for index, given, message in [
        (pixels, {"features": torch.zeros(1, 2, 3)}, "give looks, not features"),
        (pixels, {"looks": torch.zeros(1, 3)}, "a vector of width 4 in this relation index, not 3"),
        (pixels, {"looks": torch.zeros(2, 4)}, "looks: 2 for 1 queries"),
        (small_index(features=None), {"looks": torch.zeros(1, 4)}, "does not know how its pictures look"),
    ]:
        with pytest.raises(RelationIndexError, match=message):
            index.neighbors_for_picture([["dog"]], k=1, **given)
    with pytest.raises(RelationIndexError, match="looks: give it for all"):
        pixels.add(["e"], captions=["x"], object_labels=[[]], features=torch.zeros(1, 2, 3))


@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
def test_no_score_is_above_one(hubness):
    pool = random_pool(200, 384)
    index = RelationIndex([str(i) for i in range(200)], text_embeddings=pool, hubness=hubness)
    scores = [one["score"] for row in index.neighbors_for_text(pool, k=5) for one in row]
    assert max(scores) == pytest.approx(1) and max(scores) <= 1


# ------------------------------------------------------------------------------------------ neighbours of posts


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def stored(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **({"lossless": True} if format == "WEBP" else {}))
    return buffer.getvalue()


def pool_of(images: list, **settings) -> RelationIndex:
    """Pictures that are equal for both relations."""
    size = len(images)
    opened = [open_picture(image) for image in images]
    columns = {
        "captions": ["a dog on a beach"] * size,
        "object_labels": [["dog"]] * size,
        "content_hashes": [content_hash(image) for image in images],
        "looks": torch.from_numpy(np.stack([look(image) for image in opened])),
    }
    ids = [f"p{i}" for i in range(size)]
    return RelationIndex(ids, encoder=HashingEncoder(64), hubness="none", **columns | settings)


def test_of_equally_good_pictures_the_one_that_looks_like_the_own_comes_first():
    like = np.asarray(picture(5)).copy()
    like[0, 0] = 0
    index = pool_of([*map(picture, range(5)), Image.fromarray(like)])
    for found in index.find_neighbors(["dogs"], [["dog"]], 2, pictures=[picture(5)]):
        assert ids_of(found)[0][0] == "p5"
    for found in index.find_neighbors(["dogs"], [["dog"]], 2):
        assert ids_of(found) == [["p0", "p1"]]
    one_colour = [Image.new("RGB", (9, 9), "red")]
    for found in index.find_neighbors(["dogs"], [["dog"]], 2, pictures=one_colour):
        assert ids_of(found) == [["p0", "p1"]]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF"])
def test_a_copy_stored_as_another_file_is_no_neighbour(format, tmp_path):
    file = tmp_path / "copy"
    file.write_bytes(stored(picture(1), format))
    index = pool_of([stored(picture(0), "PNG"), {"bytes": stored(picture(1), "PNG")}, picture(2), str(file)])
    for source in (picture(1), np.asarray(picture(1)), stored(picture(1), format), file):
        for found in index.find_neighbors(["dogs"], [["dog"]], 4, pictures=[open_picture(source)]):
            assert sorted(ids_of(found)[0]) == ["p0", "p2"]


def test_posts_find_the_same_alone_and_from_what_was_computed_before():
    index = pool_of([picture(i) for i in range(8)])
    images = [picture(i) for i in (3, 20, 21)] + [None]
    posts = {
        "texts": ["dogs", "a beach", "dog on a beach", "beach"],
        "object_labels": [["dog"], None, ["dog", "cat"], ["dog"]],
        "ids": ["p3", "new", None, "p1"],
    }
    together = index.find_neighbors(**posts, k=3, pictures=images)
    looks = torch.zeros(4, 192)
    for i, image in enumerate(images[:3]):
        looks[i] = torch.from_numpy(look(image))
    hashes = [*map(content_hash, images[:3]), None]
    assert index.find_neighbors(**posts, k=3, content_hashes=hashes, looks=looks) == together
    for i, image in enumerate(images):
        alone = index.find_neighbors(**{name: [values[i]] for name, values in posts.items()}, k=3, pictures=[image])
        assert [relation[0] for relation in alone] == [relation[i] for relation in together]


def test_without_pixels_the_looks_are_those_of_the_features():
    looks = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])[:, None]
    index = pool_of([picture(i) for i in range(4)], looks=None, features=looks, content_hashes=None)
    for features in (looks[1], looks[1].numpy(), looks[1].tolist()):
        posts = {"ids": ["p1", "p1"], "object_features": [features, None], "pictures": [picture(0)] * 2}
        for found in index.find_neighbors(["dogs"] * 2, [["dog"]] * 2, 3, **posts):
            assert ids_of(found) == [["p3", "p0", "p2"], ["p0", "p2", "p3"]]
    with pytest.raises(RelationIndexError, match="a vector of width 2 in this relation index, not 3"):
        index.find_neighbors(["dogs"], None, 3, object_features=[torch.ones(1, 3)])


def test_a_relation_that_the_index_does_not_know_is_not_looked_for(tmp_path):
    assert pool_of([picture(0)], object_labels=None).find_neighbors(["x"], [["dog"]], 1)[1] is None
    assert pool_of([picture(0)], captions=None).find_neighbors(["x"], [["dog"]], 1)[0] is None
    inter, intra = pool_of([picture(0)]).find_neighbors(None, [["dog"]], 1)
    assert inter is None and ids_of(intra) == [["p0"]]
    vectors_only = RelationIndex(["a"], text_embeddings=torch.ones(1, 4))
    assert vectors_only.find_neighbors(["x"], None, 1) == (None, None)


def test_a_score_of_zero_is_no_neighbour():
    index = small_index(hubness="none")
    assert ids_of(index.neighbors_for_picture([["dog"], ["cat"], [], None], k=4)) == [["a", "c"], [], [], []]
    assert index.neighbors_for_text(["", "http://t.co/x RT @someone", "#"], k=4) == [[], [], []]


@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
def test_a_picture_without_caption_is_never_found_by_text(hubness):
    index = small_index(hubness=hubness)
    for row in ids_of(index.neighbors_for_text([*CAPTIONS, "no word in common"], k=4)):
        assert "d" not in row


@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
def test_pictures_without_caption_do_not_change_the_scores_of_others(hubness):
    pool, queries = random_pool(60), random_pool(10, seed=5)
    ids = [str(i) for i in range(60)]
    alone = RelationIndex(ids, text_embeddings=pool, hubness=hubness).neighbors_for_text(queries, k=5)
    more = torch.cat([pool, torch.zeros(40, 8)])
    among = RelationIndex([*ids, *(f"n{i}" for i in range(40))], text_embeddings=more, hubness=hubness)
    found = among.neighbors_for_text(queries, k=5)
    assert ids_of(found) == ids_of(alone)
    for row, other in zip(found, alone, strict=True):
        assert [n["score"] for n in row] == pytest.approx([n["score"] for n in other], abs=1e-6)


def test_own_picture_and_its_copies_are_left_out():
    index = RelationIndex(["a", "b", "c"], object_labels=[["dog"]] * 3, content_hashes=["1", "2", "1"])
    query = [["dog"]]
    assert ids_of(index.neighbors_for_picture(query, k=3)) == [["a", "b", "c"]]
    assert ids_of(index.neighbors_for_picture(query, k=3, exclude=[["a"]])) == [["b"]]
    assert ids_of(index.neighbors_for_picture(query, k=3, exclude=[["1"]])) == [["b"]]  # the hash of an unknown picture
    assert ids_of(index.neighbors_for_picture(query, k=3, exclude=[["unknown"]])) == [["a", "b", "c"]]
    without_hashes = RelationIndex(["a", "b"], object_labels=[["dog"]] * 2)
    assert ids_of(without_hashes.neighbors_for_picture(query, k=2, exclude=[["a"]])) == [["b"]]


def test_pictures_of_which_only_captions_are_known_are_no_copies_of_each_other():
    """None as content hash means "no picture": it once made all of them one picture, which no such post could find."""
    index = RelationIndex(["a", "b", "c"], object_labels=[["dog"]] * 3, content_hashes=[None, None, "1"])
    assert ids_of(index.neighbors_for_picture([["dog"]], k=3, exclude=[["new", None]])) == [["a", "b", "c"]]
    assert ids_of(index.neighbors_for_picture([["dog"]], k=3, exclude=[["a", None]])) == [["b", "c"]]


def test_excluding_makes_room_for_the_next_best():
    pool = random_pool(200)
    index = RelationIndex([str(i) for i in range(200)], text_embeddings=pool)
    free = ids_of(index.neighbors_for_text(pool[:5], k=6))
    barred = ids_of(index.neighbors_for_text(pool[:5], k=5, exclude=[[row[0]] for row in free]))
    assert barred == [row[1:] for row in free]


def test_centering_spreads_the_neighbours():
    """A pool with one picture near the mean: the plain cosine finds it for everyone."""
    draw = torch.Generator().manual_seed(0)
    pool = torch.randn(200, 64, generator=draw) + 2
    pool[0] = 2.0
    queries = torch.randn(100, 64, generator=draw) + 2
    share = {}
    for hubness in ("none", "center", "csls"):
        index = RelationIndex([str(i) for i in range(200)], text_embeddings=pool, hubness=hubness)
        share[hubness] = sum("0" in row for row in ids_of(index.neighbors_for_text(queries, k=5))) / 100
    assert share["none"] > 0.9
    assert share["center"] < 0.2
    assert share["csls"] < share["none"]


def test_csls_uses_the_reference_texts():
    captions = ["a dog on a beach", "a stadium at night", "a cup of tea"]
    plain = RelationIndex(["a", "b", "c"], captions=captions, encoder=HashingEncoder(256), hubness="csls")
    other = RelationIndex(
        ["a", "b", "c"], captions, encoder=HashingEncoder(256), hubness="csls", reference_texts=[captions[0]] * 12
    )
    score = [index.neighbors_for_text([captions[0]], k=1)[0][0]["score"] for index in (plain, other)]
    assert score[1] < score[0]  # "a" is what all reference texts want


@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
def test_adding_equals_building_at_once(hubness):
    pool, queries = random_pool(60), random_pool(10, seed=5)
    features = torch.randn(60, 2, 4)
    ids = [str(i) for i in range(60)]
    whole = RelationIndex(ids, text_embeddings=pool, features=features, hubness=hubness)
    grown = RelationIndex(ids[:40], text_embeddings=pool[:40], features=features[:40], hubness=hubness)
    grown.add(ids[40:], text_embeddings=pool[40:], features=features[40:])
    assert grown.neighbors_for_text(queries, k=7) == whole.neighbors_for_text(queries, k=7)
    assert torch.equal(grown.features_of(["3", "50"]), features[[3, 50]].half())


def test_adding_captions_embeds_them():
    index = small_index()
    index.add(["e"], captions=["a violin concert"], object_labels=[["violin"]], features=torch.zeros(1, 2, 3))
    assert ids_of(index.neighbors_for_text(["what a violin concert"], k=1)) == [["e"]]
    assert ids_of(index.neighbors_for_picture([["violin"]], k=1)) == [["e"]]


def test_features_are_kept_once_in_half_precision():
    index = small_index()
    features = index.features_of(["c", "a", "c"])
    assert features.dtype == torch.float16 and features.shape == (3, 2, 3)
    assert torch.equal(features[0], features[2]) and features[1].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert index.features_of([]).shape == (0, 2, 3)


def test_half_precision_vectors_find_the_same():
    pool, queries = random_pool(200, 32), random_pool(20, 32, seed=9)
    ids = [str(i) for i in range(200)]
    whole = RelationIndex(ids, text_embeddings=pool).neighbors_for_text(queries, k=1)
    half = RelationIndex(ids, text_embeddings=pool.half()).neighbors_for_text(queries, k=1)
    agree = sum(a == b for a, b in zip(ids_of(whole), ids_of(half), strict=True))
    assert agree >= 19


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF4,Flat"])
@pytest.mark.parametrize("hubness", ["none", "center", "csls"])
def test_faiss_finds_what_exact_search_finds(factory, hubness):
    pytest.importorskip("faiss")
    pool = torch.randn(400, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    index = RelationIndex([str(i) for i in range(400)], text_embeddings=pool, hubness=hubness)
    exclude = [[str(i), "399"] for i in range(32)]
    queries = torch.cat([pool[:30], torch.zeros(1, 16), -pool.mean(0, keepdim=True)])  # like a few; empty; unlike all
    exact = index.neighbors_for_text(queries, k=5, exclude=exclude)
    index.use_faiss(factory, depth=64)
    assert index.neighbors_for_text(queries, k=5, exclude=exclude) == exact
    assert exact[30] == []


def test_saved_index_answers_the_same(tmp_path):
    index = small_index(content_hashes=["1", "2", "3", "4"])
    index.save_pretrained(tmp_path / "index")
    loaded = RelationIndex.from_pretrained(tmp_path / "index")
    texts = ["dogs on the beach", "at the stadium"]
    assert loaded.neighbors_for_text(texts, k=3) == index.neighbors_for_text(texts, k=3)
    assert loaded.neighbors_for_picture(LABELS, k=3) == index.neighbors_for_picture(LABELS, k=3)
    assert torch.equal(loaded.features_of(IDS), index.features_of(IDS))
    assert (loaded.captions, loaded.pictures.content_hashes) == (CAPTIONS, ["1", "2", "3", "4"])
    assert loaded.feature_shape == (2, 3) and len(loaded) == 4 and "a" in loaded and "z" not in loaded


def test_csls_penalty_survives_saving(tmp_path):
    index = small_index(hubness="csls", reference_texts=["dogs", "a night game"])
    index.save_pretrained(tmp_path)
    loaded = RelationIndex.from_pretrained(tmp_path)
    assert loaded.neighbors_for_text(["a dog"], k=3) == index.neighbors_for_text(["a dog"], k=3)
    more = {"captions": ["a horse"], "object_labels": [[]], "features": torch.zeros(1, 2, 3)}
    index.add(["e"], **more)
    loaded.add(["e"], **more)
    assert loaded.neighbors_for_text(["a dog"], k=3) == index.neighbors_for_text(["a dog"], k=3)


def test_features_of_a_loaded_index_stay_on_disk(tmp_path):
    features = torch.zeros(64, 49, 2048, dtype=torch.float16)  # 12.8 MB
    RelationIndex([str(i) for i in range(64)], features=features).save_pretrained(tmp_path)
    before = anonymous_memory()
    index = RelationIndex.from_pretrained(tmp_path)
    index.features_of(["3"])
    assert anonymous_memory() - before < 4e6


def anonymous_memory() -> int:
    """Bytes of this process that are not backed by a file (Linux)."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        pytest.skip("needs /proc/self/status")


def test_the_encoder_is_loaded_only_when_a_text_is_embedded(tmp_path, monkeypatch):
    small_index().save_pretrained(tmp_path)
    index = RelationIndex.from_pretrained(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_load_encoder", lambda: pytest.fail("the encoder was loaded"))
        assert index.reads_text and index.neighbors_for_picture([["dog"]], k=1) and len(index.features_of(["a"]))
    assert index.neighbors_for_text(["dog"], k=1)


def test_saving_a_loaded_index_again_does_not_copy_its_features(tmp_path):
    small_index().save_pretrained(tmp_path / "first")
    loaded = RelationIndex.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "first")  # onto itself
    loaded.save_pretrained(tmp_path / "second")
    assert (tmp_path / "first" / FEATURES_FILE).samefile(tmp_path / "second" / FEATURES_FILE)
    again = RelationIndex.from_pretrained(tmp_path / "second")
    again.add(["e"], captions=["a horse"], object_labels=[[]], features=torch.ones(1, 2, 3))
    again.save_pretrained(tmp_path / "second")
    assert len(RelationIndex.from_pretrained(tmp_path / "second")) == 5
    assert len(RelationIndex.from_pretrained(tmp_path / "first")) == 4  # the linked files of the other are untouched


@pytest.mark.parametrize("name", [PICTURES_FILE, VECTORS_FILE, FEATURES_FILE, SEARCH_FILE, SETTINGS_FILE])
@pytest.mark.parametrize("damage", ["gone", "halved", "empty"])
def test_index_folder_cut_short_is_one_clear_line(tmp_path, name, damage):
    small_index().save_pretrained(tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(content[: len(content) // 2 if damage == "halved" else 0])
    with pytest.raises(RelationIndexError) as error:
        RelationIndex.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_writing_that_stops_leaves_no_index_behind(tmp_path, monkeypatch):
    index = small_index()
    index.save_pretrained(tmp_path)
    monkeypatch.setattr("modeling_umgf.relation_files.save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        index.save_pretrained(tmp_path)
    with pytest.raises(RelationIndexError, match="cut short"):
        RelationIndex.from_pretrained(tmp_path)


def test_a_loaded_index_finds_the_same_neighbours_of_posts(tmp_path):
    index = pool_of([picture(i) for i in range(6)])
    index.save_pretrained(tmp_path)
    posts = {"texts": ["dogs"], "object_labels": [["dog"]], "k": 4, "pictures": [picture(2)]}
    assert RelationIndex.from_pretrained(tmp_path).find_neighbors(**posts) == index.find_neighbors(**posts)


def test_an_index_of_nothing_but_ids_is_saved_and_loaded(tmp_path):
    RelationIndex(["a"]).save_pretrained(tmp_path)
    assert RelationIndex.from_pretrained(tmp_path).ids == ["a"]


def test_features_of_an_index_that_was_there_before_are_not_read(tmp_path):
    small_index().save_pretrained(tmp_path)
    small_index(features=None).save_pretrained(tmp_path)
    assert RelationIndex.from_pretrained(tmp_path).features is None


def test_no_folder_is_not_an_index(tmp_path):
    with pytest.raises(RelationIndexError, match="no relation index"):
        RelationIndex.from_pretrained(tmp_path)


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(RelationIndexError, match="no such folder, nor on the Hub") as error:
        RelationIndex.from_pretrained(tmp_path / "absent")
    assert "\n" not in str(error.value)


def test_unknown_neighbour_is_one_clear_line():
    with pytest.raises(RelationIndexError, match="'z' is not in the relation index"):
        small_index().features_of(["a", "z"])


def test_k_larger_than_the_pool_is_one_clear_line():
    with pytest.raises(RelationIndexError, match="k=5 is more than the pool's 4 pictures"):
        small_index().neighbors_for_text(["x"], k=5)
    assert small_index().neighbors_for_text(["x"], k=0) == [[]]


def test_without_captions_no_text_is_searched():
    index = RelationIndex(["a"], object_labels=[["dog"]])
    for search in (lambda: index.neighbors_for_text(["x"], k=1), index.use_faiss):
        with pytest.raises(RelationIndexError, match="knows no captions"):
            search()


def test_vectors_of_another_width_are_refused():
    with pytest.raises(RelationIndexError, match="width 256"):
        small_index().neighbors_for_text(torch.zeros(1, 255), k=1)
    with pytest.raises(RelationIndexError, match="width 256"):
        small_index(text_embeddings=torch.zeros(4, 255))


def test_another_encoder_is_refused(tmp_path):
    class Reversed(HashingEncoder):
        name = "reversed"

        def encode(self, texts, progress=False):
            return super().encode([text[::-1] for text in texts])

    small_index().save_pretrained(tmp_path)
    with pytest.raises(RelationIndexError, match="width 128"):
        RelationIndex.from_pretrained(tmp_path, encoder=HashingEncoder(128))
    with pytest.raises(RelationIndexError, match="'reversed' is another one"):
        RelationIndex.from_pretrained(tmp_path, encoder=Reversed(256))
    assert RelationIndex.from_pretrained(tmp_path, encoder=HashingEncoder(256)).neighbors_for_text(["dog"], k=1)


def test_an_encoder_that_cannot_be_saved_must_be_given_again(tmp_path):
    class Own:
        name, width = "my encoder", 2

        def encode(self, texts, progress=False):
            return torch.tensor([[1.0, float(len(text))] for text in texts])

    RelationIndex(["a"], captions=["x"], encoder=Own(), hubness="none").save_pretrained(tmp_path)
    with pytest.raises(RelationIndexError, match="'my encoder' is not saved"):
        RelationIndex.from_pretrained(tmp_path).neighbors_for_text(["x"], k=1)
    assert RelationIndex.from_pretrained(tmp_path, encoder=Own()).neighbors_for_text(["x"], k=1)[0][0]["id"] == "a"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ids": ["a", "b", "b", "c"]}, "'b' is in the relation index twice"),
        ({"captions": CAPTIONS[:3]}, "captions: 3 for 4"),
        ({"hubness": "off"}, "choose none, center or csls"),
    ],
)
def test_wrong_pictures_are_one_clear_line(wrong, message):
    settings = {"ids": IDS, "captions": CAPTIONS, "encoder": HashingEncoder(64)} | wrong
    with pytest.raises(RelationIndexError, match=message):
        RelationIndex(**settings)


def test_adding_must_fit_what_is_there():
    index = small_index()
    good = {"captions": ["x"], "object_labels": [[]], "features": torch.zeros(1, 2, 3)}
    for wrong, message in [
        ({"features": torch.zeros(1, 2, 4)}, r"features: \[2, 4\] a picture"),
        ({"object_labels": None}, "object_labels: give it for all"),
        ({"content_hashes": ["1"]}, "content_hashes: give it for all"),
    ]:
        with pytest.raises(RelationIndexError, match=message):
            index.add(["e"], **good | wrong)
    with pytest.raises(RelationIndexError, match="'a' is in the relation index twice"):
        index.add(["a"], **good)
    assert len(index) == 4 and index.neighbors_for_text(["dog"], k=1)  # nothing was half added


def test_searchable_text_keeps_what_the_post_says():
    assert searchable_text("RT @bob : see #Rome http://t.co/x now 😍️") == ": see Rome now 😍"
    assert searchable_text("# Rome @ bob SMART ART") == "Rome SMART ART"


def test_hashing_encoder_is_the_same_everywhere():
    encoder = HashingEncoder(32)
    vectors = encoder.encode(["a dog", "A DOG!", "", "the cat"])
    assert torch.equal(vectors[0], vectors[1]) and not vectors[2].any()
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1, 0, 1])
    assert vectors[0].nonzero().flatten().tolist() == [3, 4, 10, 11, 12, 24, 29, 30]  # crc32, not Python's hash


@pytest.fixture
def sentence_encoder_folder(tmp_path):
    from conftest import tiny_tokenizer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=160, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    folder = tmp_path / "secret" / "my-encoder"
    BertModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_sentence_encoder_pools_over_real_pieces_only(sentence_encoder_folder):
    encoder = SentenceEncoder(sentence_encoder_folder, batch_size=2)
    texts = ["Anna meets Bob", "the cat of Paris sleeps in Rome", "", "the cat"]
    together = encoder.encode(texts)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-6) and not together[2].any()
    assert torch.equal(
        encoder.encode(["the cat", "Anna", "the cat"])[0], encoder.encode(["the cat", "Anna", "the cat"])[2]
    )


def test_an_index_carries_an_encoder_that_came_from_a_folder(sentence_encoder_folder, tmp_path):
    import shutil

    index = RelationIndex(
        ["a", "b"], captions=["the cat", "Anna meets Bob"], encoder=SentenceEncoder(sentence_encoder_folder)
    )
    expected = index.neighbors_for_text(["Anna and Bob"], k=1)
    index.save_pretrained(tmp_path / "index")
    shutil.rmtree(sentence_encoder_folder.parent)
    loaded = RelationIndex.from_pretrained(tmp_path / "index")
    assert loaded.neighbors_for_text(["Anna and Bob"], k=1)[0][0]["id"] == expected[0][0]["id"]
    loaded.save_pretrained(tmp_path / "again")
    assert RelationIndex.from_pretrained(tmp_path / "again").neighbors_for_text(["the cat"], k=1)[0][0]["id"] == "a"
    loaded = RelationIndex.from_pretrained(tmp_path / "again")
    loaded.add(["c"], captions=["a horse"], text_embeddings=torch.ones(1, 16))  # before the encoder is needed
    assert loaded.neighbors_for_text(["Anna and Bob"], k=1)
    settings = (tmp_path / "again" / SETTINGS_FILE).read_text()
    assert json.loads(settings)["encoder"]["name"] == "my-encoder" and "secret" not in settings
