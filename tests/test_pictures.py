"""Every picture a post may come with has a defined result: an upright RGB picture, or one clear sentence."""

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from modeling_umgf.files import file_hash
from modeling_umgf.pictures import (
    MAX_PIXELS,
    UnreadablePicture,
    content_hash,
    is_blank,
    look,
    open_picture,
    picture_file_hash,
)

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def photograph() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return Image.fromarray(values)


def reason_for(source) -> str:
    with pytest.raises(UnreadablePicture) as caught:
        open_picture(source)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(caught.value.name)
    return caught.value.reason


def test_path_text_bytes_mapping_and_picture_give_the_same_pixels(tmp_path, photograph):
    content = encoded(photograph, "PNG")
    path = tmp_path / "1.png"
    path.write_bytes(content)
    expected = np.asarray(photograph)
    mappings = [
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": content, "path": "1.png"},
    ]
    for source in [path, str(path), content, bytearray(content), memoryview(content), photograph, *mappings]:
        picture = open_picture(source)
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), expected)


def test_the_result_is_independent_of_the_source(photograph):
    picture = open_picture(photograph)
    picture.putpixel((0, 0), RED)
    assert photograph.getpixel((0, 0)) != RED


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_file_is_refused(photograph, format):
    content = encoded(photograph, format)
    assert "damaged" in reason_for(content[: len(content) // 2])


def test_corrupt_file_is_refused(photograph):
    content = bytearray(encoded(photograph, "PNG"))
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    assert "damaged" in reason_for(bytes(content))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "the file is empty"),
        (b"this is not a picture", "not a picture in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a known format"),
        ("no/such/file.jpg", "no such file"),
        ("https://example.org/1.jpg", "a web address"),
        ("a\0b.jpg", "cannot be read"),
        ({"bytes": None, "path": None}, "not a picture"),
        (None, "not a picture"),
        (7, "not a picture"),
        (["1.jpg"], "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(source, reason):
    assert reason in reason_for(source)


def test_a_folder_is_refused_by_name(tmp_path):
    with pytest.raises(UnreadablePicture, match=tmp_path.name):
        open_picture(tmp_path)


def test_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(UnreadablePicture("1.jpg", "no such file")))
    assert (error.name, error.reason, str(error)) == ("1.jpg", "no such file", "1.jpg: no such file")


def test_cmyk_becomes_rgb():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = open_picture(encoded(red, "JPEG", quality=95)).getpixel((4, 4))
    assert pixel[0] > 230 and max(pixel[1:]) < 40


def test_transparent_palette_entry_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    picture = open_picture(encoded(image, "PNG", transparency=0))
    assert (picture.getpixel((0, 0)), picture.getpixel((1, 0))) == (WHITE, BLUE)


def test_half_transparent_pixel_is_mixed_with_white():
    assert open_picture(Image.new("RGBA", (1, 1), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)
    assert open_picture(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == WHITE


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for source in [encoded(Image.fromarray(values), "PNG"), Image.fromarray(values.astype(np.int32)), values]:
        assert [open_picture(source).getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


def test_floating_point_tiff_is_read():
    content = encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF")
    assert [open_picture(content).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_black_and_white_and_gray_become_rgb():
    assert open_picture(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == WHITE
    assert open_picture(Image.new("L", (1, 1), 7)).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert open_picture(content).getpixel((4, 4)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    upright = Image.new("RGB", (20, 10), BLACK)
    upright.paste(RED, (0, 0, 10, 5))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> PIL transposition that stores it so
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(open_picture(encoded(stored, "PNG", exif=exif))), np.asarray(upright))


def test_broken_exif_leaves_the_picture_as_stored(photograph):
    content = encoded(photograph, "JPEG", exif=b"Exif\0\0no tiff header here")
    assert open_picture(content).size == photograph.size


def test_one_pixel_is_a_picture():
    picture = open_picture(encoded(Image.new("RGB", (1, 1), GREEN), "PNG"))
    assert (picture.size, picture.getpixel((0, 0))) == ((1, 1), GREEN)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds next to no data, as a decompression bomb does."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 20_000), (1, MAX_PIXELS + 1), (10_000, 10_000)])
def test_decompression_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert f"{MAX_PIXELS:,} pixels" in reason_for(png_header(*size))


def test_a_real_picture_of_20000_by_20000_pixels_is_refused():
    content = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(content) < 100_000
    assert f"{MAX_PIXELS:,} pixels" in reason_for(content)


@pytest.mark.parametrize("layout", [(4, 6), (4, 6, 1), (1, 4, 6), (4, 6, 3), (3, 4, 6), (4, 6, 4), (4, 4, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_array_layouts_and_types(layout, dtype):
    value = {np.float32: 1.0, np.float64: 255.0, bool: True}.get(dtype, 255)
    picture = open_picture(np.full(layout, value, dtype=dtype))
    assert (picture.size, picture.getpixel((5, 3))) == ((6, 4), WHITE)


def test_channels_last_wins_when_an_array_could_be_read_both_ways():
    assert open_picture(np.zeros((3, 9, 3), dtype=np.uint8)).size == (9, 3)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 2, 2)),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(5),
        np.zeros((1, 3, 4, 4)),
        np.array([[np.nan, 0.0]]),
        np.array([[np.inf]]),
        np.array([[-1.0, 1.0]]),
        np.array([[256, 0]]),
        np.array([["a"]]),
        np.array([[1j]]),
    ],
)
def test_array_that_is_no_picture_is_refused(values):
    assert "shape" in reason_for(values) or "values" in reason_for(values)


def test_torch_tensor_is_read_like_an_array():
    torch = pytest.importorskip("torch")
    assert open_picture(torch.full((3, 2, 5), 0.5)).getpixel((0, 0)) == (128, 128, 128)


def test_blank_means_one_colour_up_to_noise():
    noise = np.random.default_rng(0).normal(128, 1, (50, 50, 3))
    assert is_blank(Image.new("RGB", (30, 30), RED))
    assert is_blank(open_picture(noise))
    noise[:, 25:, 2] += 5
    assert not is_blank(open_picture(noise))


def test_copies_have_one_content_hash_however_they_are_stored(tmp_path, photograph):
    (tmp_path / "a.png").write_bytes(encoded(photograph, "PNG"))
    (tmp_path / "b.bmp").write_bytes(encoded(photograph, "BMP"))
    png = encoded(photograph, "PNG", compress_level=9)
    webp = encoded(photograph, "WEBP", lossless=True)
    png_file = tmp_path / "a.png"
    files = [png_file, str(tmp_path / "b.bmp"), png, {"bytes": webp}, {"bytes": None, "path": png_file}]
    assert {content_hash(source) for source in [*files, photograph, np.asarray(photograph)]} == {content_hash(png)}
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(photograph.rotate(180), "PNG", exif=exif)
    assert content_hash(turned) == content_hash(photograph) != content_hash(photograph.rotate(180))
    assert content_hash(Image.new("RGB", (2, 8))) != content_hash(Image.new("RGB", (8, 2)))


def test_picture_file_hash_names_a_file_without_decoding_it(tmp_path, photograph):
    content = encoded(photograph, "PNG")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content)
    sources = (tmp_path / "a.png", str(tmp_path / "b.png"), content, bytearray(content), {"bytes": content})
    assert {picture_file_hash(source) for source in sources} == {file_hash(content)}
    assert picture_file_hash(encoded(photograph, "BMP")) != file_hash(content)
    assert picture_file_hash(photograph) == picture_file_hash(np.asarray(photograph)) == content_hash(photograph)
    assert picture_file_hash(b"not a picture") == file_hash(b"not a picture")


@pytest.mark.parametrize("name_of", [content_hash, picture_file_hash])
def test_hash_of_no_picture_is_one_clear_line(name_of, tmp_path):
    with pytest.raises(UnreadablePicture, match="no such file"):
        name_of(tmp_path / "c.png")
    with pytest.raises(UnreadablePicture, match="not a picture"):
        name_of(None)


def test_looks_tell_which_picture_is_more_like_another(photograph):
    vector = look(photograph)
    assert vector.shape == (192,) and vector.dtype == np.float32 and vector @ vector == pytest.approx(1)
    smaller = photograph.resize((48, 32), Image.Resampling.BOX)
    assert vector @ look(smaller) > 0.9 > vector @ look(photograph.rotate(180))
    brighter = Image.fromarray(np.asarray(photograph) // 2 + 100)
    assert vector @ look(brighter) > 0.9
    assert look(Image.new("RGB", (1, 1), RED)).shape == (192,)


@pytest.mark.parametrize("colour", [RED, WHITE, BLACK, (17, 130, 201)])
def test_one_colour_looks_like_nothing(colour):
    assert not look(Image.new("RGB", (31, 70), colour)).any()
