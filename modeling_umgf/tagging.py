"""Tag files of posts, however long: `python -m modeling_umgf tag posts.jsonl --model … --output entities.jsonl`."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from .files import told_of_a_full_disk, write_whole
from .post_files import (
    OUTPUT_FORMATS,
    STANDARD_STREAM,
    OutputFormat,
    Tagged,
    count_posts,
    is_stream,
    read_posts,
    to_post,
)
from .windows import TRUNCATIONS

Tagger = Callable[[list[dict]], list[Tagged]]

MOST_BATCHES = 32
"""Posts go to a tagger in chunks of so many batches at most, in which posts of like size share a batch."""

SECONDS_OF_CHUNK = 1.0
"""Chunks grow from one batch on as long as they are tagged faster than this: it is about what a stop can lose."""


class TaggingError(ValueError):
    """The tagging command cannot run, and why, in one sentence."""


@dataclass(kw_only=True)
class TaggerOptions:
    """How posts are tagged; the help of each field says what it is."""

    model: str = field(metadata={"help": "Folder or Hub id of a trained model with its processor."})
    images: str | None = field(
        default=None, metadata={"help": "Folder that relative picture names start from; None: where the posts are."}
    )
    fetch_pictures: bool = field(
        default=False,
        metadata={"help": "Fetch pictures that are web addresses; else such a post is tagged without, with a warning."},
    )
    detector: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a zero-shot object detector that finds the objects of posts without "
            "`objects`; None: each picture is one object."
        },
    )
    labeler: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of an object detector that names the objects of posts without `object_labels`, "
            "for systems that look for pictures with the same objects; None: their names are not looked for."
        },
    )
    captioner: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of an image-to-text model that describes the pictures of posts without "
            "`caption`, for models that read captions as context; None: the one of the training data, if it is known."
        },
    )
    min_score: float = field(
        default=0.5, metadata={"help": "What the detector or the labeler finds below this score is no object."}
    )
    truncation: str = field(
        default=TRUNCATIONS[0],
        metadata={
            "choices": TRUNCATIONS,
            "help": "A post longer than the text encoder reads is read in overlapping windows; gets an error; or loses "
            "its last words, with a warning (warn).",
        },
    )
    batch_size: int = field(default=32, metadata={"help": "Posts that the model sees at once."})
    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda:1, …; None: a GPU if there is one, several processes in turn."}
    )
    text_column: str = field(default="text", metadata={"help": "Column of the texts."})
    image_column: str = field(default="image", metadata={"help": "Column of picture names, addresses or bytes."})
    id_column: str = field(default="id", metadata={"help": "Column of the ids; a post without one gets its number."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code in the model's folder if the model's type is unknown here."}
    )

    @property
    def columns(self) -> dict[str, str]:
        """The file's name of each of "text", "image" and "id"."""
        return {"text": self.text_column, "image": self.image_column, "id": self.id_column}


@dataclass(kw_only=True)
class TagOptions(TaggerOptions):
    """What the command `tag` is asked for; the help of each field says what it is."""

    input: str = field(
        metadata={
            "positional": True,
            "help": "Posts as .jsonl, .parquet or .csv, with a column of texts (or, not in CSV, `words` or `tokens`: "
            "lists of words) and whatever else the model reads: pictures, ids, `objects`, `caption`, …; or - (or a "
            "pipe): JSON lines from standard input.",
        }
    )
    output: str = field(
        metadata={
            "help": ".jsonl, a line for each post, or .conll, a line for each word. A file that is there is continued. "
            "<output>.settings.json, next to it, says what the run was asked for. Or - (or a pipe): JSON lines to "
            "standard output."
        }
    )
    threshold: float = field(default=0.0, metadata={"help": "Entities with a lower score are left out, and counted."})
    num_proc: int = field(default=1, metadata={"help": "Processes, each with its copy of the model."})
    overwrite: bool = field(default=False, metadata={"help": "Start anew instead of continuing."})
    retry_errors: bool = field(
        default=False,
        metadata={"help": "Tag the posts with an error or a warning again; the output is replaced when all are done."},
    )


@dataclass
class TaggingSummary:
    """Counts of one run.

    Args:
        posts: posts tagged by this run, those with an error included.
        entities: entities found in them.
        left_out: entities below the threshold.
        errors: posts that could not be tagged.
        warnings: posts of which something could not be used, such as a broken picture.
        in_windows: posts longer than the text encoder reads at once.
        already_done: posts that were in the output before.
        seconds: duration, loading of the model included.
    """

    posts: int = 0
    entities: int = 0
    left_out: int = 0
    errors: int = 0
    warnings: int = 0
    in_windows: int = 0
    already_done: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        earlier = f", {self.already_done:,} were done before" if self.already_done else ""
        left_out = f" ({self.left_out:,} below the threshold left out)" if self.left_out else ""
        warnings = f", {self.warnings:,} with a warning" if self.warnings else ""
        in_windows = f", {self.in_windows:,} longer than the model reads (in windows)" if self.in_windows else ""
        return (
            f"{self.posts:,} posts tagged{earlier}; {self.entities:,} entities{left_out}, "
            f"{self.errors:,} with an error{warnings}{in_windows}; {self.seconds:.1f} s"
        )

    def add(self, tagged: Tagged) -> None:
        """Count one more post."""
        self.posts += 1
        self.errors += tagged.error is not None
        self.warnings += tagged.warning is not None
        self.in_windows += tagged.windows > 1
        self.entities += 0 if tagged.error is not None else len(tagged.entities)


def tag_file(options: TagOptions) -> TaggingSummary:
    """Tag every post of a file, or the rest of it where an earlier run was stopped.

    A .jsonl output has a line {"id", "text", "entities"} or {"id", "error"} for each post; a post whose picture cannot
    be opened is tagged by its text and has a "warning" too. A .conll output has a block for each post: `IMGID:<id>`,
    then a line for each word: word, tab, label; a post with an error has no words. Where the output is "-", standard
    output is for records alone: from then on, whatever else is printed there goes to standard error.

    Args:
        options: input, output, model and settings.

    Returns:
        The counts of this run.

    Raises:
        PostFileError, TaggingError: the input, the output or the model cannot be used; the output is as before.
    """
    begin = time.perf_counter()
    input_file = Path(options.input)
    output_file = Path(options.output)
    output_format = _check(options, input_file, output_file)
    settings = _settings(options)
    posts = read_posts(input_file, options.columns, options.images)
    summary = TaggingSummary()
    continued = output_file.is_file() and not options.overwrite
    if continued:
        _check_settings(output_file, settings)
        if options.retry_errors:
            posts = output_format.keep_finished(output_file, posts)
        else:
            summary.already_done = output_format.skip_finished(output_file, posts)

    num_threads = None if options.num_proc == 1 else max(1, (os.cpu_count() or 1) // options.num_proc)
    load = partial(load_tagger, options, num_threads=num_threads)
    chunks = GrowingChunks(posts, options.batch_size, options.num_proc)
    with closing(tag_in_processes(chunks, load, _devices(options))) as tagged:
        first = list(islice(tagged, 1))  # the model works: the output may be touched
        seconds = first[0][2] if first else 0.0
        with (
            _open_output(output_file, continued, options) as output,
            _progress(count_posts(input_file), summary.already_done, seconds) as bar,
        ):
            if not is_stream(output_file):
                _write_settings(output_file, settings)
            for chunk, results, seconds in chain(first, tagged):
                chunks.took(seconds)
                for post, result in zip(chunk, results, strict=True):
                    if "record" in post:
                        output.write(post["record"])
                        summary.already_done += 1
                        continue
                    found = len(result.entities)
                    result.entities = [own for own in result.entities if own["score"] >= options.threshold]
                    summary.left_out += found - len(result.entities)
                    output.write(output_format.to_record(post, result))
                    summary.add(result)
                    problem = result.error or result.warning
                    if problem and summary.errors + summary.warnings <= 10:
                        number = summary.already_done + summary.posts
                        bar.write(f"{input_file}, post {number} (id {post['id']}): {problem}", file=sys.stderr)
                output.flush()
                bar.update(len(chunk))
    summary.seconds = time.perf_counter() - begin
    return summary


def _check(options: TagOptions, input_file: Path, output_file: Path) -> OutputFormat:
    """Refuse options that cannot work; returns the format of the output."""
    ending = ".jsonl" if is_stream(output_file) else output_file.suffix
    if ending not in OUTPUT_FORMATS:
        raise TaggingError(f"{output_file}: the output must end in {' or '.join(OUTPUT_FORMATS)}.")
    if input_file.resolve() == output_file.resolve() and not is_stream(output_file):
        raise TaggingError(f"{output_file}: is the input; give another --output.")
    if options.batch_size < 1 or options.num_proc < 1:
        raise TaggingError(f"batch_size={options.batch_size} and num_proc={options.num_proc} must be at least 1.")
    if not 0 <= options.threshold <= 1:
        raise TaggingError(f"threshold={options.threshold} is no score: give 0 to 1.")
    if options.retry_errors and (options.overwrite or not output_file.is_file()):
        raise TaggingError(f"{output_file}: --retry_errors needs an output that is there, and no --overwrite.")
    return OUTPUT_FORMATS[ending]


def _progress(total: int | None, done: int, seconds: float) -> tqdm:
    """A bar that began so many seconds ago, when the model was there, and not when its first results came."""
    bar = tqdm(total=total, initial=done, unit="post")
    bar.start_t -= seconds
    bar.last_print_t -= seconds
    return bar


@contextmanager
def _open_output(path: Path, continued: bool, options: TagOptions) -> Iterator[BinaryIO]:
    """Open the output: anew, at its end, or, to repeat posts with errors, a new file that replaces it when complete."""
    if str(path) == STANDARD_STREAM:
        records = sys.stdout.buffer
        sys.stdout.flush()
        sys.stdout = sys.stderr
        try:
            with told_of_a_full_disk("standard output"):
                yield records
        except BrokenPipeError as error:  # `tag … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), records.fileno())  # or Python would complain at its end
            raise TaggingError("standard output was closed by its reader.") from error
        return
    if not is_stream(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) if options.retry_errors else nullcontext(path) as place:
        mode = "ab" if continued and not options.retry_errors else "wb"
        with told_of_a_full_disk(path), open(place, mode) as output:
            yield output


def load_tagger(options: TaggerOptions, device: str | None = None, num_threads: int | None = None) -> Tagger:
    """Load the pipeline of a model as a function of posts.

    A post whose picture cannot be opened is tagged without it, with a warning; one on which the model fails has an
    error, the others of its batch are tagged.

    Args:
        options: the model, what describes pictures, and how they are used.
        device: where they run; default: a GPU if there is one.
        num_threads: processor cores that they may use; default: as torch is set.

    Raises:
        TaggingError: the model or what describes pictures cannot be loaded, or the model calls none.
    """
    import torch
    from transformers import pipeline

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    model = str(options.model)
    try:
        tagger = pipeline("multimodal-ner", model=model, device=device, trust_remote_code=options.trust_remote_code)
    except Exception as error:  # whatever transformers and the Hub make of a wrong name or a damaged folder
        where = "" if Path(model).exists() else " (no folder here; tried as a Hub id)"
        raise TaggingError(f"cannot load the model {model}{where}: {error}") from error
    settings = {**_load_describers(options, tagger, device), "batch_size": options.batch_size}
    settings |= {"truncation": options.truncation, "fetch_pictures": options.fetch_pictures, "with_reading": True}

    def results_of(posts: list[dict]) -> list:
        """The pipeline's results."""
        try:
            return tagger(posts, **settings)
        except torch.AcceleratorError as error:
            raise TaggingError(f"the device failed: {error}") from error

    def picture_problem(post: dict) -> str | None:
        """Why the picture of a post cannot be opened."""
        try:
            tagger.preprocess({"text": "picture", "image": post["image"]}, fetch_pictures=options.fetch_pictures)
        except Exception as error:
            return str(error)

    def tag(posts: list[dict]) -> list[Tagged]:
        inputs = [{key: post[key] for key in tagger.input_columns & post.keys()} for post in posts]
        results = results_of(inputs)
        warnings = {}
        for i, (post, result) in enumerate(zip(inputs, results, strict=True)):
            if "error" in result and post.get("image") is not None and (problem := picture_problem(post)):
                warnings[i] = [f"tagged without its picture: {problem}"]
        without = results_of([inputs[i] | {"image": None} for i in warnings]) if warnings else []
        for i, result in zip(warnings, without, strict=True):
            results[i] = result
        for i, result in enumerate(results):
            if posts[i].get("warning"):
                warnings[i] = [posts[i]["warning"]]
            if unread := result.get("unread_words"):
                warnings.setdefault(i, []).append(f"too long for the model: its last {unread} words were not read")
        return [_tagged(result, "; ".join(warnings.get(i, [])) or None) for i, result in enumerate(results)]

    return tag


def _tagged(result: dict, warning: str | None) -> Tagged:
    if "error" in result:
        return Tagged(error=result["error"])
    return Tagged(result["entities"], warning=warning, windows=result["windows"])


def _load_describers(options: TaggerOptions, tagger: Any, device: str | None) -> dict[str, Any]:
    """What is asked for to describe pictures, by the names that the pipeline gives it."""
    from .descriptors import Captioner, ObjectLabeler
    from .grounding import Grounder

    describers = {}
    known = (
        ("detector", "grounder", Grounder),
        ("labeler", "labeler", ObjectLabeler),
        ("captioner", "captioner", Captioner),
    )
    for option, name, describer in known:
        source = getattr(options, option)
        if source is None:
            continue
        if name not in tagger.processor.describers:
            raise TaggingError(f"{type(tagger.processor).__name__} calls no {name}; leave out --{option}.")
        try:
            settings = describer.known({"min_score": options.min_score})
            describers[name] = describer.from_pretrained(source, device=device, **settings)
        except Exception as error:
            raise TaggingError(f"cannot load the {option} {source}: {error}") from error
    return describers


class RayTagger:
    """The tagger for clusters: a class for `map_batches` of Ray Data (`pip install "ray[data]"`).

        posts = ray.data.read_json("posts/", lines=True)
        tagged = posts.map_batches(
            RayTagger,
            fn_constructor_kwargs={"model": "…"},
            batch_format="pyarrow",
            batch_size=256,
            compute=ray.data.ActorPoolStrategy(size=4),
        )

    Each of the actors loads the model once. A batch keeps its columns and gains `entities`, a list of structs as from
    the pipeline (null where the post could not be tagged), and the strings `error` (null where it could) and `warning`
    (null where all of the post could be used); columns of a batch that was tagged before are replaced.

    Args:
        **options: the fields of `TaggerOptions`. The model is there on every node, pictures start from the working
            folder, and the default device is the GPU that Ray gives the actor (`num_gpus=1`), else the CPU.
    """

    def __init__(self, **options: Any):
        self.options = TaggerOptions(**options)
        self.images = Path(self.options.images or ".")
        self.tagger = load_tagger(self.options, self.options.device)

    def __call__(self, table):
        """Tag a `pyarrow.Table` of posts."""
        import pyarrow

        text = pyarrow.string()
        real = pyarrow.float64()
        node = pyarrow.struct({"box": pyarrow.list_(real), "query": text, "weight": real})
        neighbor = pyarrow.struct({"id": text, "relation": text, "weight": real})
        entity = pyarrow.struct(
            {
                "entity_group": text,
                "score": real,
                "word": text,
                "start": pyarrow.int64(),
                "end": pyarrow.int64(),
                "objects": pyarrow.list_(node),
                "neighbors": pyarrow.list_(neighbor),
            }
        )
        columns = self.options.columns
        posts = [to_post(row, number, columns, self.images) for number, row in enumerate(table.to_pylist())]
        results = self.tagger(posts)
        entities = [None if result.error is not None else result.entities for result in results]
        table = table.drop_columns(list({"entities", "error", "warning"} & set(table.column_names)))  # tagged before
        table = table.append_column("entities", pyarrow.array(entities, pyarrow.list_(entity)))
        table = table.append_column("error", pyarrow.array([result.error for result in results], text))
        return table.append_column("warning", pyarrow.array([result.warning for result in results], text))


def tag_in_processes(
    chunks: Iterable[list[dict]], load: Callable[[str | None], Tagger], devices: list[str | None]
) -> Iterator[tuple[list[dict], list[Tagged], float]]:
    """Tag chunks of posts, in this process or, with several devices, in as many processes.

    Args:
        chunks: lists of posts; at most one more than there are processes is held.
        load: makes the tagger on a device.
        devices: the device of each process; None: as `load` likes.

    Returns:
        The chunks in their order, each with its results and the seconds that they took.

    Raises:
        TaggingError: a model cannot be loaded, or a process died.
    """
    if len(devices) == 1:
        tagger = None
        for chunk in chunks:
            tagger = tagger or load(devices[0])
            yield chunk, *_tag_chunk(tagger, chunk)
        return
    context = multiprocessing.get_context(_start_method(devices))
    free_devices = context.SimpleQueue()
    for device in devices:
        free_devices.put(device)
    watched_end, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(len(devices), context, _start_worker, (load, free_devices, watched_end, lifeline))
    waiting = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_tag_in_worker, chunk)))
            if len(waiting) > len(devices):
                chunk, future = waiting.popleft()
                yield chunk, *future.result()
        for chunk, future in waiting:
            yield chunk, *future.result()
        pool.shutdown()
    except BrokenProcessPool as error:
        raise TaggingError(
            "a worker process died, perhaps for lack of memory: start again with a smaller --num_proc or --batch_size."
        ) from error
    finally:
        lifeline.close()  # ends workers in the middle of a chunk; so does the death of this process
        pool.shutdown(cancel_futures=True)


_tagger: Tagger | TaggingError  # of a worker process


def _start_method(devices: list[str | None]) -> str:
    """How processes start: on Linux they take over the modules that this one has loaded, unless they use a GPU."""
    on_cpu = all(device in (None, "cpu") for device in devices)
    return "fork" if on_cpu and sys.platform == "linux" else "spawn"


def _start_worker(
    load: Callable[[str | None], Tagger], free_devices: Any, watched_end: Connection, lifeline: Connection
) -> None:
    global _tagger
    lifeline.close()  # this copy of it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends the workers
    threading.Thread(target=_end_with_parent, args=(watched_end,), daemon=True).start()
    try:
        _tagger = load(free_devices.get())
    except TaggingError as error:  # raised here, it would break the pool and be lost
        _tagger = error


def _end_with_parent(watched_end: Connection) -> None:
    wait([watched_end])  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


def _tag_in_worker(chunk: list[dict]) -> tuple[list[Tagged], float]:
    if isinstance(_tagger, TaggingError):
        raise _tagger
    try:
        return _tag_chunk(_tagger, chunk)
    except TaggingError:
        raise
    except Exception as error:  # a library's exception may not survive the way to the parent
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _tag_chunk(tagger: Tagger, chunk: list[dict]) -> tuple[list[Tagged], float]:
    """Tag the posts of a chunk that are readable and have no record yet; returns the seconds too."""
    begin = time.perf_counter()
    open_posts = [post for post in chunk if not {"error", "record"} & post.keys()]
    tagged = iter(tagger(open_posts) if open_posts else [])
    results = []
    for post in chunk:
        done = {"error", "record"} & post.keys()
        results.append(Tagged(error=post.get("error")) if done else next(tagged))
    return results, time.perf_counter() - begin


class GrowingChunks:
    """Lists of posts for a tagger: small at first, so that the first results come soon and no process waits long.

    Args:
        posts: the stream.
        batch_size: posts of a batch; a chunk is made of whole batches.
        num_proc: processes that tag; of several, none is to be left alone with a large share of all posts at the end.
    """

    def __init__(self, posts: Iterator[dict], batch_size: int, num_proc: int = 1):
        self.posts = posts
        self.batch_size = batch_size
        self.num_proc = num_proc
        self.batches = 1
        self.given = 0

    def __iter__(self) -> Iterator[list[dict]]:
        while chunk := list(islice(self.posts, self.next_batches() * self.batch_size)):
            self.given += len(chunk)
            yield chunk

    def next_batches(self) -> int:
        """How many batches the next chunk has at most."""
        if self.num_proc == 1:
            return self.batches
        return min(self.batches, max(1, self.given // (4 * self.num_proc * self.batch_size)))

    def took(self, seconds: float) -> None:
        """Hear how long a chunk took."""
        if seconds < SECONDS_OF_CHUNK:
            self.batches = min(2 * self.batches, MOST_BATCHES)


def _devices(options: TagOptions) -> list[str | None]:
    """The device of each process: the one that is asked for, or the GPUs in turn; None: there are none."""
    if options.device is not None:
        return [options.device] * options.num_proc
    import torch

    gpus = torch.cuda.device_count()
    return [f"cuda:{number % gpus}" if gpus else None for number in range(options.num_proc)]


def _settings(options: TagOptions) -> dict[str, Any]:
    """What must stay the same where an output is continued."""
    return {
        "input": Path(options.input).name,
        "images": options.images and str(options.images),
        "model": str(Path(options.model)),
        "detector": options.detector and str(options.detector),
        "labeler": options.labeler and str(options.labeler),
        "captioner": options.captioner and str(options.captioner),
        "min_score": options.min_score,
        "threshold": options.threshold,
        "truncation": options.truncation,
        "columns": options.columns,
    }


def _settings_file(output_file: Path) -> Path:
    return output_file.with_name(output_file.name + ".settings.json")


def _write_settings(output_file: Path, settings: dict[str, Any]) -> None:
    with write_whole(_settings_file(output_file)) as unfinished:
        unfinished.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _check_settings(output_file: Path, settings: dict[str, Any]) -> None:
    """Raise where the output was begun with other settings."""
    path = _settings_file(output_file)
    if not path.exists() or not output_file.stat().st_size:  # a run that overwrites can be killed between the two
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TaggingError(f"{path}: damaged ({error}); delete it if you know that it fits.") from error
    for key, value in settings.items():
        if before.get(key) != value:
            raise TaggingError(
                f"{output_file}: was begun with {key} {before.get(key)}, not {value}; give another --output, or "
                "--overwrite to start anew."
            )
