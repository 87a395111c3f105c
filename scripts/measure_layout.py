"""How easy a checkout is to walk: `python scripts/measure_layout.py [CHECKOUT…]` prints a row of numbers for each.

Names at the top of the package, arrows between them, the module that imports most of ours, the file that conducts
`run`, and the longest file, the longest function and the most parameters outside `cli/` and `api/`.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = (
    "checkout",
    "names",
    "arrows",
    "largest fan-out",
    "conductor",
    "longest file",
    "longest function",
    "most parameters",
)
CONDUCTORS = ("commands/run.py", "pipeline.py")
"""The newest first."""
GRAPH = """
import grimp, json
graph = grimp.build_graph("edgerecover", exclude_type_checking_imports=True, cache_dir=None)
print(json.dumps({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}))
"""


def main(checkouts: list[str]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for checkout in checkouts or ["."]:
        print("| " + " | ".join((Path(checkout).resolve().name, *measure(Path(checkout)))) + " |")


def measure(checkout: Path) -> tuple[str, ...]:
    """The numbers of a checkout, in the order of the columns."""
    package = checkout / "edgerecover"
    found = subprocess.run([sys.executable, "-c", GRAPH], cwd=checkout, capture_output=True, text=True, check=True)
    imports: dict[str, list[str]] = json.loads(found.stdout)
    arrows = {(room(module), room(other)) for module, others in imports.items() for other in others}
    arrows = {(one, other) for one, other in arrows if one and other and one != other}
    fan_out = max((len(others), module) for module, others in imports.items())
    conductor = next(package / name for name in CONDUCTORS if (package / name).is_file())
    files = sources(package)
    longest = max((len(source.splitlines()), name) for name, source in files.items())
    functions = list(functions_of(files))
    return (
        str(len(names_at_top(package))),
        str(len(arrows)),
        shown(fan_out),
        f"{len(conductor.read_text(encoding='utf-8').splitlines())} {conductor.relative_to(package)}",
        shown(longest),
        shown(max((node.end_lineno - node.lineno + 1, name) for name, node in functions)),
        shown(max((num_parameters(node), name) for name, node in functions)),
    )


def names_at_top(package: Path) -> list[str]:
    """Modules and packages, sorted."""
    parts = (path for path in package.iterdir() if path.is_dir() or path.suffix == ".py")
    return sorted(path.stem for path in parts if not path.name.startswith((".", "_")))


def sources(package: Path) -> dict[str, str]:
    """What each module says, by its path in the package."""
    return {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}


def room(module: str) -> str:
    """The name at the top of the package that a module is in."""
    return [*module.split("."), ""][1]


def functions_of(files: dict[str, str]) -> Iterator[tuple[str, ast.FunctionDef]]:
    """All functions outside the command line and the Python API, where each option is a parameter."""
    for file, source in files.items():
        for node in ast.walk(ast.parse(source)) if not file.startswith(("cli/", "api/")) else ():
            if isinstance(node, ast.FunctionDef):
                yield f"{file} {node.name}", node


def num_parameters(function: ast.FunctionDef) -> int:
    """Without `self` and `cls`."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return len([name for name in named if name.arg not in ("self", "cls")]) + bool(given.vararg) + bool(given.kwarg)


def shown(largest: tuple[int, str]) -> str:
    """A number and whose it is."""
    return f"{largest[0]} {largest[1]}"


if __name__ == "__main__":
    main(sys.argv[1:])
