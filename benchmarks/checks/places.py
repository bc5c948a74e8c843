"""Places in source text by what stands there: an expression or statements of a function, however they are laid out."""

import ast
import textwrap

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def named(tree, place):
    """The definition or the table of a qualified name such as "Tableau.step"; of overloads, what they are of."""
    node = tree
    for name in place.split("."):
        found = [child for child in node.body if name in _names(child)][-1:]
        # a function inside a function may stand in a branch
        found = found or [child for child in ast.walk(node) if child is not node and name in _names(child)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} definitions of {name!r} for {place!r}")
        node = found[0]
    return node


def _names(node):
    if isinstance(node, DEFINITIONS):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name) and target.col_offset == 0]


def occurrences(source, place, old, new):
    """Where a place says `old`: pairs of the first and the last node.

    Parameters
    ----------
    source : str
        A module.
    place : str
        The qualified name of a function or class, or the name of a table.
    old, new : str
        Two expressions, or whole statements that follow each other and what stands there instead.
    """
    node = named(ast.parse(source), place)
    if _is_expression(old) and _is_expression(new):
        wanted = ast.parse(old, mode="eval").body
        return [(n, n) for n in ast.walk(node) if isinstance(n, ast.expr) and _same(n, wanted)]
    wanted = ast.parse(old).body
    return [
        (body[k], body[k + len(wanted) - 1])
        for body in _bodies(node)
        for k in range(len(body) - len(wanted) + 1)
        if all(_same(a, b) for a, b in zip(body[k:], wanted, strict=False))
    ]


def replaced(source, place, old, new):
    """The module with `new` where the place says `old`, which has to be there once."""
    found = occurrences(source, place, old, new)
    if len(found) != 1:
        raise LookupError(f"{place} says {len(found)} times {old!r}")
    first, last = found[0]
    start, stop = _offset(source, first.lineno, first.col_offset), _offset(source, last.end_lineno, last.end_col_offset)
    text = f"({new})" if isinstance(first, ast.expr) else textwrap.indent(new, " " * first.col_offset).lstrip()
    return source[:start] + text + source[stop:]


def _is_expression(text):
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def _same(node, wanted):
    return type(node) is type(wanted) and ast.dump(node) == ast.dump(wanted)


def _bodies(node):
    for child in ast.walk(node):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(getattr(child, name, None), list):
                yield getattr(child, name)


def _offset(source, line, column):
    lines = source.splitlines(keepends=True)
    # columns of the syntax tree count bytes
    return len("".join(lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())
