"""Tests reach the package by its public names, find the repository in one place, and write no helper twice."""

import ast
from collections import defaultdict
from functools import cache

import pytest
from makers import ROOT

TESTS = ROOT / "tests"
FILES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("*.py"))}
MOST_PRIVATE = 10  # uses of private names of the package, in all tests together; each has a comment that gives the reason
MOST_LINES = 450


@cache
def tree_of(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def trees():
    return {name: tree_of(name) for name in FILES}


@cache
def nodes(name):
    """Return all nodes of a file's syntax tree."""
    return tuple(ast.walk(tree_of(name)))


def private_names():
    """The names that the package defines and that begin with one underscore: functions, classes, constants and attributes."""
    names = set()
    for path in (ROOT / "nowcast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def attribute_setters(name):
    """The calls of `setattr` and `monkeypatch.setattr` in a file."""
    for node in nodes(name):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "setattr":
            yield node


def uses_of(names, file):
    """The line and the text of each use of one of these names of another module: imported, read, or set by its name."""
    for node in nodes(file):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nowcast":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)
        elif isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) not in {"self", "cls"}:
            yield node.lineno, ast.unparse(node)
    for call in attribute_setters(file):
        if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) and call.args[1].value in names:
            yield call.lineno, ast.unparse(call)


def test_few_tests_use_private_names_of_the_package():
    names = private_names()
    uses = [f"{file}:{line} {text}" for file in FILES for line, text in uses_of(names, file)]
    assert len(uses) <= MOST_PRIVATE, "\n".join(uses)


@pytest.mark.parametrize("name", FILES)
def test_no_attribute_is_set_by_a_dotted_string(name):
    """It survives no move of a module, and a reader cannot follow it."""
    assert not [call.lineno for call in attribute_setters(name) if isinstance(call.args[0], ast.Constant)]


@pytest.mark.parametrize("name", FILES)
def test_no_type_of_netcdf_files_ends_with_a_function(name):
    """Collected together with its last file, whose end then raises AttributeError, which keeps the file's memory beyond it.

    pytest keeps that exception a while, and the process crashes in some later test.
    """
    functions = [node for node in nodes(name) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    within = {node for function in functions for node in ast.walk(function) if isinstance(node, ast.ClassDef)}
    assert not [node.lineno for node in within if any(ast.unparse(base).endswith("Dataset") for base in node.bases)]


def test_the_root_of_the_repository_is_found_in_one_place():
    texts = {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}
    climbing = "__file__)" + ".resolve().parent"  # in two pieces, since this file is read too
    assert [name for name, text in texts.items() if climbing in text] == ["makers/__init__.py"]


def test_no_helper_is_written_twice():
    """Functions of one name and one body in two files belong in the makers."""
    where = defaultdict(set)
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_"):
                where[node.name, "\n".join(map(ast.unparse, node.body))].add(name)
    assert [(helper, sorted(names)) for (helper, _), names in where.items() if len(names) > 1] == []


def test_folders_mirror_the_package():
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    package = {path.name for path in (ROOT / "nowcast").iterdir() if path.is_dir()}
    assert folders - package == {"contracts", "makers", "scripts", "system"}


@pytest.mark.parametrize("name", FILES)
def test_files_are_short_enough_to_read(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= MOST_LINES
