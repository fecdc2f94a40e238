"""Reading files of YAML 1.2: plain values, and where each of them stands, so that every fault can name its line."""

import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

# Any, throughout: what YAML can say.
Value = Any

MAX_FILE_BYTES = 16 * 2**20
MAX_DEPTH = 32
# Values that aliases repeat: an alias of aliases of aliases would go on to billions.
MAX_REPEATED = 100_000
# What the server's JSON can carry.
_INTEGERS = range(-(2**63), 2**64)
_PLAIN = {"str", "timestamp", "merge", "value"}
_TAG = "tag:yaml.org,2002:"


class Place(NamedTuple):
    """Where something stands. line: from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Flaw(NamedTuple):
    """One thing wrong with a file. path: `heartbeats.nightly-export.grace`; empty when it is about the whole."""

    place: Place | None
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(_on_one_line(str(each)) for each in (self.place, self.path, self.message) if each)


def _on_one_line(text: str) -> str:
    """Keys may have line breaks; a fault is one line."""
    return "".join(" " if unicodedata.category(each) in {"Cc", "Zl", "Zp"} else each for each in text)


class BadDocument(Exception):
    """The files do not describe a project. `flaws`: each with its place."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("\n  ".join(str(each) for each in flaws))
        self.flaws = flaws


@dataclass(frozen=True, slots=True)
class Document:
    """What the files say, joined, and where: by path, as `channels.ops-mail.config.to[0]`.

    taken: the paths whose value came from the environment or from a file of its own.
    """

    content: dict[str, Value] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def place_of(self, path: str) -> Place | None:
        """Where a path stands; where it would, for something that is missing."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None

    def flaw(self, path: str, message: str) -> Flaw:
        """A fault at a path."""
        return Flaw(self.place_of(path), path, message)


def only(document: Document, raw: Mapping[str, Value], path: str, names: Sequence[str]) -> dict[str, Value]:
    """The members of a mapping that are said, null being not said. Raises BadDocument for those that do not exist."""
    unknown = [name for name in raw if name not in names]
    if unknown:
        raise BadDocument(
            *(document.flaw(f"{path}.{name}", f"is not known; fields are {', '.join(names)}") for name in unknown)
        )
    return {name: value for name, value in raw.items() if value is not None}


def read(path: Path) -> Document:
    """The project that a file describes, or every `*.yaml` of a directory together. Raises BadDocument."""
    files = _files_of(path)
    document = Document()
    flaws: list[Flaw] = []
    for file in files:
        try:
            _join(document, _parsed(file), flaws)
        except BadDocument as bad:
            flaws += bad.flaws
    if flaws:
        raise BadDocument(*flaws)
    return document


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise BadDocument(Flaw(Place(str(path), 0), "", "the directory holds no *.yaml file"))
    return files


def _parsed(file: Path) -> Document:
    """One file."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadDocument(Flaw(None, "", f"cannot read {file}: {error.strerror or error}")) from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadDocument(Flaw(Place(str(file), line), "", "is not UTF-8 text")) from None
    if len(raw) > MAX_FILE_BYTES:
        raise BadDocument(Flaw(Place(str(file), 1), "", "is longer than 16 MiB"))
    return parsed(text, str(file))


def parsed(text: str, name: str) -> Document:
    """What one text says. name: of the file, for messages. Raises BadDocument."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except RecursionError:
        raise BadDocument(Flaw(Place(name, 1), "", "is nested too deeply")) from None
    except MarkedYAMLError as error:
        raise BadDocument(Flaw(_place_of_error(name, error), "", _words(error))) from None
    except (YAMLError, ValueError) as error:
        raise BadDocument(Flaw(Place(name, 1), "", f"is not YAML: {_first_line(error)}")) from None
    if node is None:
        return Document()
    reader = _Reader(name)
    content = reader.value(node, "", 0)
    if not isinstance(content, dict):
        reader.refuse(node, "", "must be a mapping such as `heartbeats:`")
    if reader.flaws:
        raise BadDocument(*reader.flaws)
    return Document(content, reader.places, reader.taken)


def _place_of_error(name: str, error: MarkedYAMLError) -> Place:
    mark = error.problem_mark or error.context_mark
    return Place(name, 1 if mark is None else mark.line + 1)


def _words(error: MarkedYAMLError) -> str:
    if "\\t" in str(error.problem):
        return "a tab cannot indent; use blanks"
    return f"is not YAML: {error.problem or error.context or _first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@dataclass(slots=True)
class _Reader:
    """Turns the nodes of one file into values."""

    file: str
    places: dict[str, Place] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    flaws: list[Flaw] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    repeated: int = 0

    def refuse(self, node: Node, path: str, message: str) -> None:
        self.flaws.append(Flaw(self.place(node), path, message))

    def place(self, node: Node) -> Place:
        return Place(self.file, node.start_mark.line + 1)

    def value(self, node: Node, path: str, depth: int) -> Value:
        self.repeated += id(node) in self.seen
        self.seen.add(id(node))
        if depth > MAX_DEPTH or self.repeated > MAX_REPEATED:
            raise BadDocument(Flaw(self.place(node), path, "is nested too deeply, or repeats itself without end"))
        self.places.setdefault(path, self.place(node))
        match node:
            case ScalarNode():
                return self._scalar(node, path)
            case SequenceNode() if node.tag == f"{_TAG}seq":
                return [self.value(each, f"{path}[{n}]", depth + 1) for n, each in enumerate(node.value)]
            case MappingNode() if node.tag == f"{_TAG}map":
                return self._mapping(node, path, depth)
            case _:
                self.refuse(node, path, f"the tag {node.tag} is not known here")
                return None

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Value]:
        told: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.refuse(key_node, path, "a key must be a plain word")
                continue
            key = str(key_node.value)
            if not _is_utf8(key):
                self.refuse(key_node, path, "a key must be text that UTF-8 can carry")
                continue
            inner = f"{path}.{key}" if path else key
            if key in told:
                self.refuse(key_node, inner, f"stands twice, first in line {self.places[inner].line}")
                continue
            self.places[inner] = self.place(key_node)
            told[key] = self.value(value_node, inner, depth + 1)
        return told

    def _scalar(self, node: ScalarNode, path: str) -> Value:
        kind = str(node.tag).removeprefix(_TAG)
        text = str(node.value)
        if kind in _PLAIN:
            if not _is_utf8(text):
                self.refuse(node, path, "must be text that UTF-8 can carry")
            return text
        number = self._number(node, path, kind, text)
        # JSON knows neither; whatever has one would fail on its way to the server, after others were made.
        if isinstance(number, int) and number not in _INTEGERS:
            self.refuse(node, path, "must be a number of 64 bits")
        elif isinstance(number, float) and not math.isfinite(number):
            self.refuse(node, path, "must be a finite number")
        return number

    def _number(self, node: ScalarNode, path: str, kind: str, text: str) -> Value:
        """What is not text: a number, a truth, or nothing."""
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return text.lower() == "true"
                case "int":
                    # In YAML 1.2 a leading zero means nothing; 0o and 0x do.
                    bare = text.replace("_", "").lower()
                    prefix = bare.lstrip("+-")[:2]
                    return int(bare, {"0o": 8, "0x": 16, "0b": 2}.get(prefix, 10))
                case "float":
                    return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self.refuse(node, path, f"{text[:40]!r} is not a number")
            return None
        self.refuse(node, path, f"the tag {node.tag} is not known here")
        return None


def _is_utf8(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone, as escapes allow."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(whole: Document, part: Document, flaws: list[Flaw]) -> None:
    """Add what one file says to what the others said."""
    for key, value in part.content.items():
        present = whole.content.get(key)
        if key not in whole.content:
            whole.content[key] = value
        elif isinstance(present, dict) and isinstance(value, dict):
            for name, each in value.items():
                path = f"{key}.{name}"
                if name in present:
                    flaws.append(part.flaw(path, f"is defined in {whole.place_of(path)} as well"))
                else:
                    present[name] = each
        elif isinstance(present, list) and isinstance(value, list):
            _append(whole, part, key, len(present))
            present += value
            continue
        elif value is not None and present is not None and present != value:
            flaws.append(part.flaw(key, f"is said otherwise in {whole.place_of(key)}"))
    for path, place in part.places.items():
        whole.places.setdefault(path, place)


def _append(whole: Document, part: Document, key: str, start: int) -> None:
    """Places of the members of a list that is put behind another."""
    for path, place in part.places.items():
        head, bracket, rest = path.partition("[")
        if head == key and bracket:
            number, _, tail = rest.partition("]")
            whole.places[f"{key}[{int(number) + start}]{tail}"] = place


# Secrets ------------------------------------------------------------------------------------------------------------
def with_secrets(document: Document, config: Value, path: str, *, environment: Mapping[str, str]) -> Value:
    """`config`, in which each `{env: NAME}` and `{file: PATH}` is what it names.

    A path is taken from where the file stands that names it; one line break at its end is dropped. Raises BadDocument.
    """
    if isinstance(config, Mapping) and len(config) == 1 and set(config) <= {"env", "file"}:
        (source, name), *_ = config.items()
        if isinstance(name, str):
            document.taken.add(path)
            return (_of_environment if source == "env" else _of_file)(document, path, name, environment)
    if isinstance(config, Mapping):
        inner = {name: f"{path}.{name}" for name in config}
        return {
            name: with_secrets(document, each, inner[name], environment=environment) for name, each in config.items()
        }
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [with_secrets(document, each, f"{path}[{n}]", environment=environment) for n, each in enumerate(config)]
    return config


def _of_environment(document: Document, path: str, name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name)
    if value is None:
        raise BadDocument(document.flaw(path, f"the environment variable {name} is not set"))
    if not value:
        raise BadDocument(document.flaw(path, f"the environment variable {name} is empty"))
    if not _is_utf8(value):
        raise BadDocument(document.flaw(path, f"the environment variable {name} is not UTF-8 text"))
    return value


def _of_file(document: Document, path: str, name: str, _environment: Mapping[str, str]) -> str:
    place = document.place_of(path)
    file = Path(os.fspath(Path(place.file).parent if place else Path())) / name
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadDocument(document.flaw(path, f"cannot read the file {name}: {reason}")) from None
    return text.removesuffix("\n").removesuffix("\r")


def literal_paths(document: Document, config: Value, path: str) -> Iterator[str]:
    """The paths of the texts in `config` that stand in the file itself."""
    if path in document.taken:
        return
    if isinstance(config, Mapping):
        for name, each in config.items():
            yield from literal_paths(document, each, f"{path}.{name}")
    elif isinstance(config, str):
        yield path
