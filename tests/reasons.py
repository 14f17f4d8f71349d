"""Which sentences of a room may come before a person as a reason: found in its code, one by one.

Reasons are English in the tables, with facts in them. A page translates them by the sentences in
`<room>/translations/reasons.pt.po` (zambezi.phrases). What is found here must be in that file, so that nobody has
to remember to write it there: every piece of text of two or more words that isn't plainly something else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Calls whose words are nobody's reason: logs, catalogues' own messages, SQL, patterns, steps that a terminal shows.
_ELSEWHERE = {
    "debug", "info", "warning", "error", "exception", "_", "lazy_gettext", "gettext", "compile", "search", "fullmatch",
    "match", "sub", "say", "_say", "step", "_step", "execute", "text", "strptime", "AssertionError", "TypeVar",
}  # fmt: skip
_FIELD = re.compile(r"\{[0-9]\}")


def of(files: Iterable[Path]) -> dict[str, str]:
    """Sentences, facts as {0}, {1} ..., each with the file and line of one place where it stands."""
    found: dict[str, str] = {}
    for file in files:
        for line, sentence in _in(ast.parse(file.read_text(encoding="utf-8"))):
            found.setdefault(sentence, f"{file.name}:{line}")
    return found


def _in(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Assert():  # docstrings
            return
        case ast.Subscript(value=value):  # not its key
            yield from _in(value)
            return
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _ELSEWHERE:
            return
        case ast.JoinedStr():
            yield from _sentence(node.lineno, _template(node))
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from _in(part.value)
            return
        case ast.keyword(arg="suggestion" | "actions" | "description"):  # zambezi.exception_kinds; a file's own words
            return
        case ast.Constant(value=str() as text):
            yield from _sentence(node.lineno, _numbered(text))
            return
    for child in ast.iter_child_nodes(node):
        yield from _in(child)


def _template(node: ast.JoinedStr) -> str:
    parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
    return _numbered("".join(parts))


def _numbered(text: str) -> str:
    numbers = iter(range(10))
    return re.sub(r"\{\}", lambda _field: f"{{{next(numbers)}}}", text)


def _sentence(line: int, text: str) -> Iterator[tuple[int, str]]:
    """It, without what joins it to others; nothing where it is a name, a suggestion, a path or a query."""
    bare = text.strip(" ;,:(")
    bare = bare.removesuffix(")") if bare.count(")") > bare.count("(") else bare
    words = re.findall(r"(?<![\w/.{<-])[a-z][a-z']+(?![\w/.}=>-])", _FIELD.sub(" ", bare))
    # A suggestion: zambezi.exception_kinds has its own words for it.
    is_suggestion = re.match("(Look|Compare|Find|Put|Decide|When|Name|Try|Open) ", bare) is not None
    if len(words) > 1 and not is_suggestion and "\n" not in bare and not re.search("SELECT|://|^queue:|^Literal", bare):
        yield line, bare
