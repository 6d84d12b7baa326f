"""The house in numbers: files at the package's root, lines of train.py's run, import arrows and circles.

python tests/house.py
"""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "retrieval_jax"


def files() -> list[pathlib.Path]:
    """Returns the package's Python files."""
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def module_name(file: pathlib.Path) -> str:
    """Returns "retrieval_jax.data.catalog" for data/catalog.py, and "retrieval_jax.data" for data/__init__.py."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> set[str]:
    """Returns the modules that an import statement anywhere in a tree names; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full, not relative"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.add(node.args[0].value)
    return found


def arrows() -> dict[str, set[str]]:
    """Returns {module: the modules of the package that it imports}; a name of a module counts as the module."""
    modules = {module_name(file): file for file in files()}
    out = {}
    for name, file in modules.items():
        found = set()
        for imported in imports(ast.parse(file.read_text(encoding="utf-8"))):
            while imported and imported not in modules:
                imported = imported.rpartition(".")[0]
            found.add(imported)
        out[name] = {one for one in found if one and one not in (name, PACKAGE)}
    return out


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the groups of two or more nodes that all reach each other (strongly connected components)."""
    index, low, stack, out = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                out.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(out)


def by_room(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Returns the arrows between rooms: a room is a folder below the package, a file at the root is a room itself."""
    rooms = {}
    for name, others in graph.items():
        here = name.split(".")[1] if "." in name else name
        rooms.setdefault(here, set()).update({other.split(".")[1] for other in others if "." in other} - {here})
    return rooms


def lines_of(file: str, *functions: str) -> int:
    """Returns the lines of top-level functions, docstrings and comments included."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if getattr(node, "name", None) in functions]
    return sum(node.end_lineno - node.lineno + 1 for node in wanted)


if __name__ == "__main__":
    graph = arrows()
    print(f"files at the package's root: {len(list((ROOT / PACKAGE).glob('*.py')))}")
    print(f"files of the package: {len(graph)}")
    print(f"lines of train.py's run and _run: {lines_of(f'{PACKAGE}/train.py', 'run', '_run')}")
    print(f"import arrows between files: {sum(map(len, graph.values()))}, circles: {circles(graph) or 'none'}")
    rooms = by_room(graph)
    print(f"import arrows between rooms: {sum(map(len, rooms.values()))}, circles: {circles(rooms) or 'none'}")
