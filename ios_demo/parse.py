"""Parse every Swift file below a folder with tree-sitter: ``python parse.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import tree_sitter_swift
from tree_sitter import Language, Node, Parser


def errors(node: Node) -> list[Node]:
    """The places below ``node`` that are no Swift."""
    found = [node] if node.type == "ERROR" or node.is_missing else []
    return found + [
        error for child in node.children if child.has_error or child.is_missing for error in errors(child)
    ]


parser = Parser(Language(tree_sitter_swift.language()))
skip = {".build"}
files = [p for p in sorted(Path(sys.argv[1]).rglob("*.swift")) if not skip & set(p.parts)]
wrong = [(path, error) for path in files for error in errors(parser.parse(path.read_bytes()).root_node)]
for path, error in wrong:
    text = (error.text or b"").decode(errors="replace")[:80]
    print(f"{path}:{error.start_point.row + 1}: not parsed: {text!r}")
print(f"{len(files)} files")
sys.exit(bool(wrong) or not files)
