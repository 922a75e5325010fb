"""Docstrings say what signatures cannot: the shapes of arrays, and the errors that a function raises with their exit codes."""

import ast
import re
from functools import cache

import pytest
from makers import ROOT

from nowcast import errors
from nowcast.scores import SCORES

PACKAGE = ROOT / "nowcast"
# Modules and folders of the package. The docstrings of cli.py are the help texts of the commands.
FOLDERS = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")} - {"cli.py", "__main__.py"})
# Shapes such as (case, lead, y, x), (time,), (y, x // 2), (2, y / patch, x / patch) and (..., y, x)
AXIS = r"(?:…|\.\.\.|[\w-]+(?: \w+)?(?: (?:[+×*-]|//?) \w+)*)"
SHAPE = re.compile(rf"\({AXIS},(?: {AXIS})?(?:, {AXIS})*\)|\bscalars?\b|\bsame shape\b|\bany shape\b|\bas `[A-Z]\w+\.\w+`")
ARRAY = re.compile(r"\b(?:np\.ndarray|Tensor)\b")
NAMED = re.compile(r"\b(?:dict|Mapping)\[str, (?:np\.ndarray|Tensor)\]")  # such as weights by name: each has a shape of its own
ERRORS = {
    kind.__name__: kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.NowcastError)
}


@cache
def public_functions(folder):
    """Name -> function, of the functions and methods of a folder whose name has no underscore in front, nor their class's."""
    functions = {}
    top = PACKAGE / folder
    for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        for owner in (tree, *classes):
            prefix = f"{path.relative_to(PACKAGE).as_posix()}: " + (f"{owner.name}." if owner is not tree else "")
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    functions[prefix + node.name] = node
    return functions


@cache
def documented_methods():
    """The names of methods with a docstring. A method of such a name that has none implements what is documented there."""
    functions = {name: function for folder in FOLDERS for name, function in public_functions(folder).items()}
    return {function.name for name, function in functions.items() if "." in name.split(": ")[1] and ast.get_docstring(function)}


def documentation(folder):
    """(name, function, docstring on one line) of each public function, without methods that implement a documented one."""
    for name, function in public_functions(folder).items():
        docstring = ast.get_docstring(function)
        if docstring or "." not in name.split(": ")[1] or function.name not in documented_methods():
            yield name, function, " ".join((docstring or "").split())


def takes_or_returns_arrays(function):
    arguments = function.args
    annotations = [argument.annotation for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    texts = [ast.unparse(annotation) for annotation in [*annotations, function.returns] if annotation]
    return any(ARRAY.search(NAMED.sub("", text)) for text in texts)


def raised(function):
    """The names of the errors for users in the function's own `raise` statements."""
    calls = [node.exc for node in ast.walk(function) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {ast.unparse(call.func) for call in calls} & set(ERRORS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_of_arrays_documents_their_shapes(folder):
    without = [
        name
        for name, function, docstring in documentation(folder)
        if takes_or_returns_arrays(function) and not SHAPE.search(docstring)
    ]
    assert not without, "no shape such as (case, lead, y, x) in the docstring of\n" + "\n".join(without)


@pytest.mark.parametrize("name", SCORES)
def test_a_score_documents_the_axes_that_it_is_registered_with(name):
    # the scores of sums are those of cells for each box
    axes = [{"amount": "threshold"}.get(axis, axis) for axis in SCORES[name].axes if axis != "box"]
    shape = f"({', '.join(axes)})" if len(axes) > 1 else f"({axes[0]},)"
    assert shape in SCORES[name].function.__doc__.split("\n\n")[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_documents_the_errors_that_it_raises(folder):
    missing = [
        f"{name}: {error} (exit {ERRORS[error]})"
        for name, function, docstring in documentation(folder)
        for error in sorted(raised(function))
        if not re.search(rf"\b{error} \((?:exit )?{ERRORS[error]}\)", docstring)
    ]
    assert not missing, "not in the docstring\n" + "\n".join(missing)
