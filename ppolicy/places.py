"""
Where ppolicy.conf defines what: the lines that its mistakes are told with.
"""

import ast

from ppolicy import foresight

_DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Places:
    """
    Line numbers of what a configuration defines.

    @ivar assigned: {name: line} of top-level values; C{functions} the same of functions and classes.
    @ivar used: names that are read anywhere; C{items} those of dictionaries that are set.
    @ivar checks: {check name: line}; C{parameters} {check name: {parameter: line}}.
    @ivar twice: (sentence, line) about names that stand twice in a dictionary.
    """

    def __init__(self, tree):
        self.tree = tree
        self.assigned, self.functions, self.checks, self.parameters = {}, {}, {}, {}
        self.twice = []
        self.items = foresight.assignedItems(tree)
        self.used = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        for node in _statements(tree):
            if isinstance(node, _DEFINITIONS):
                self.functions[node.name] = node.lineno
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self.assigned.pop(alias.asname or alias.name, None)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self._target(target, node)

    def _target(self, target, node):
        if isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._target(one, node)
        elif isinstance(target, ast.Name):
            self.assigned[target.id] = node.lineno
            if target.id == "modules" and isinstance(node.value, ast.Dict):
                for key, value in self._items(node.value, "modules"):
                    self._check(key, value)
        elif (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Name)
            and target.value.id == "modules"
            and isinstance(target.slice, ast.Constant)
        ):
            self._check(target.slice, node.value)

    def _check(self, key, value):
        self.checks[key.value] = key.lineno
        if (
            isinstance(value, ast.Tuple | ast.List)
            and len(value.elts) == 2
            and isinstance(value.elts[1], ast.Dict)
        ):
            items = self._items(value.elts[1], key.value)
            self.parameters[key.value] = {parameter.value: parameter.lineno for parameter, _ in items}

    def _items(self, literal, where):
        """
        The items of a dictionary whose keys are written out.
        """
        items = [
            item for item in zip(literal.keys, literal.values, strict=True) if isinstance(item[0], ast.Constant)
        ]
        seen = set()
        for key, _ in items:
            if key.value in seen:
                self.twice.append(
                    (f"{where}: {key.value!r} is there twice, the first one would be lost", key.lineno)
                )
            seen.add(key.value)
        return items


def replaced(tree, options):
    """
    Options, functions and classes that another one of the same name replaces before anything can use them, as when
    two examples were put into one file: (name, line, line of the other).

    @param options: the names of all.
    """
    before = {}
    for number, node in enumerate(tree.body):
        if isinstance(node, _DEFINITIONS):
            names = [] if node.name.startswith("_") else [node.name]
        elif isinstance(node, ast.Assign):
            names = [one.id for one in node.targets if isinstance(one, ast.Name) and one.id in options]
        else:
            continue
        for name in names:
            if name in before and not any(_uses(one, name) for one in tree.body[before[name] + 1 : number + 1]):
                yield name, tree.body[before[name]].lineno, node.lineno
            before[name] = number


def _uses(tree, name):
    return any(
        isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Store)
        for node in ast.walk(tree)
    )


def _statements(tree):
    """
    The statements that run when a file is executed, in their order; not those of functions and classes.
    """
    left = [tree]
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, _DEFINITIONS):
            inner = ast.stmt | ast.ExceptHandler | ast.match_case
            left += [one for one in ast.iter_child_nodes(node) if isinstance(one, inner)][::-1]
