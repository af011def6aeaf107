"""Comments of fields as their documentation: the comment after a field, or on the lines above."""

import ast
import re
from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Gives a field without a docstring the comment after or above it."""

    def on_attribute_instance(
        self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: Any
    ) -> None:
        """Read the source of one field."""
        if attr.docstring or not isinstance(node, ast.AnnAssign) or not node.end_lineno:
            return
        lines = attr.lines_collection[attr.filepath]
        if text := _beside(lines[node.end_lineno - 1]) or _above(lines, node.lineno - 1):
            attr.docstring = griffe.Docstring(text, parent=attr)


def _beside(line: str) -> str:
    found = re.search(r"\s{2}# (?!noqa|type:)(.+)$", line)
    return found[1] if found else ""


def _above(lines: list[str], index: int) -> str:
    comments: list[str] = []
    while index > 0 and (found := re.match(r"\s*# (.+)", lines[index - 1])):
        comments.insert(0, found[1])
        index -= 1
    return " ".join(comments)
