"""
Mistakes in a policy that can be seen before it is asked: names of nothing, answers that Postfix does not know.

Only what is written out is looked at. What is found in a branch that is hardly ever taken would otherwise be found
by the first mail that takes it.
"""

import ast
import builtins
import dis
import types
from typing import NamedTuple

from ppolicy.attributes import ATTRIBUTES, STATES
from ppolicy.errors import BrokenAnswer
from ppolicy.listeners import Port
from ppolicy.parameter import didYouMean
from ppolicy.reply import REFUSALS, REMARKS, RESTRICTIONS, TARGETS

_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_VERBS = (*REFUSALS, *REMARKS, *TARGETS, "PREPEND")
# What a policy may ask of its factory, some of it known from 2.7.
FACTORY = ("check", "checkAll", "getConfig", "getDbConnection", "releaseDbConnection")
_SAVED = ("code", "info", "time", "cache")


class Found(NamedTuple):
    """
    One thing that was found.

    @ivar certain: does it go wrong whenever it is reached?
    """

    sentence: str
    line: int
    certain: bool = False


def look(tree, names, signature, encoder):
    """
    @param tree: the syntax tree of ppolicy.conf.
    @param names: what it has defined, {name: value}.
    @param signature: that of its policy function; the same names are taken for the same things anywhere else.
    @param encoder: a L{ppolicy.reply.ReplyEncoder}.
    @return: a list of L{Found}.
    """
    factory, data, port = [*signature.parameters, "", "", ""][:3]
    return [
        *_undefined(tree, names),
        *_Reader(tree, names, factory, data).found(),
        *_ports(tree, port),
        *_answers(tree, encoder),
    ]


def assignedItems(tree):
    """
    The names of all items that a file sets anywhere, such as C{data['name'] = …} or C{data.update(name=…)}.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            found.add(_constant(node.slice))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) in ("update", "setdefault"):
            found |= {keyword.arg for keyword in node.keywords}.union(*map(_keys, node.args))
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            found |= _keys(node.value)
    return found - {None}


def misspelt(parameters, known):
    """
    Sentences about parameters of a check that name an attribute which resembles one of Postfix's, but is none.

    @param known: names of attributes that a policy sets.
    """
    for name in ("param", "params", "value"):
        given = parameters.get(name)
        for one in given if isinstance(given, list | tuple) else [given]:
            attribute = one.rpartition(":")[2] if isinstance(one, str) else ""
            hint = didYouMean(attribute, ATTRIBUTES)
            if hint and attribute not in ATTRIBUTES and attribute not in known:
                yield name, f"Postfix sends no {attribute!r}{hint}"


def _undefined(tree, names):
    """
    Names in functions that nothing defines.
    """
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if used & {"NameError", "globals", "exec"}:  # the site knows what it does
        return
    module = compile(tree, "", "exec", dont_inherit=True)
    codes = [(module, set())]
    loads, known = [], {*names, *dir(builtins)}
    while codes:
        code, around = codes.pop()
        near = {*around, *code.co_varnames, *code.co_cellvars}
        inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
        # Since Python 3.14 annotations are functions; nobody need ever call them.
        codes += [(one, near) for one in inner if "annotate" not in one.co_name]
        for instruction in dis.get_instructions(code):
            if instruction.opname == "LOAD_GLOBAL":
                loads.append((instruction.argval, instruction.positions.lineno, near))
            # Also where it has not come to that: what failed to be imported is hardly used then.
            elif instruction.opname == "STORE_GLOBAL" or (code is module and instruction.opname == "STORE_NAME"):
                known.add(instruction.argval)
    told = set()
    for name, line, near in loads:
        if name not in known and (name, line) not in told:
            told.add((name, line))
            yield Found(f"{name} is not defined{didYouMean(name, {*near, *names})}", line, True)


class _Reader:
    """
    What a policy reads of a request, and asks of its factory.
    """

    def __init__(self, tree, names, factory, data):
        self._tree = tree
        self._factory, self._data = _standingFor(factory, tree), _standingFor(data, tree)
        modules = names.get("modules")
        self._checks = modules if isinstance(modules, dict) else None
        self._set = assignedItems(tree)
        self._isHandedOn = self._othersHaveIt()
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        results = [one.targets[0] for one in assigned if self._isCall(one.value, self._factory, "check")]
        others = {
            node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        # Names that only ever stand for the result of a check.
        self._results = {one.id for one in results if isinstance(one, ast.Name)}
        self._results -= {one.id for one in others.difference(results)}
        self._results -= {one.arg for one in ast.walk(tree) if isinstance(one, ast.arg)}

    def _othersHaveIt(self):
        """
        Is a request given to what is not in this file, and may set anything in it?
        """
        nodes = list(ast.walk(self._tree))
        here = {*dir(builtins), *(one.name for one in nodes if isinstance(one, ast.FunctionDef))}
        asked = [one.func for one in nodes if isinstance(one, ast.Call) and not self._data.isdisjoint(one.args)]
        return any(
            one.id not in here if isinstance(one, ast.Name) else getattr(one, "value", None) not in self._factory
            for one in asked
        )

    def found(self):
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare):
                yield from self._compared(node)
            elif isinstance(node, ast.Call):
                yield from self._asked(node)
            elif isinstance(node, ast.Attribute) and node.value in self._factory:
                hint = didYouMean(node.attr, FACTORY)
                if hint and node.attr not in FACTORY:
                    yield Found(f"{ast.unparse(node)} does not exist{hint}", node.lineno)
            name = self._attribute(node)
            if name is not None and not self._isKnown(name):
                hint = didYouMean(name, ATTRIBUTES)
                if hint or not self._isHandedOn:
                    yield Found(f"Postfix sends no {name!r}, and it is not set here{hint}", node.lineno)
            if isinstance(node, ast.If | ast.IfExp | ast.While):
                yield from self._tested(node.test)
            elif isinstance(node, ast.BoolOp):
                for one in node.values:
                    yield from self._tested(one)
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                yield from self._tested(node.operand)

    def _attribute(self, node):
        """
        The name of an attribute that is read, or None.
        """
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and node.value in self._data:
            return _constant(node.slice)
        if self._isCall(node, self._data, "get") and node.args:
            return _constant(node.args[0])
        return None

    def _isKnown(self, name):
        if name in ATTRIBUTES or name in self._set:
            return True
        # What a check has saved, a second time behind a #; the site may have chosen another prefix.
        saved, _, what = name.rpartition("_")
        saved = saved.partition("#")[0]
        return what in _SAVED and any(saved.endswith(str(check)) for check in self._checks or ())

    def _compared(self, node):
        sides = [node.left, *node.comparators]
        if any(self._attribute(one) == "protocol_state" for one in sides):
            for one in sides:
                for value in one.elts if isinstance(one, ast.Tuple | ast.List | ast.Set) else [one]:
                    state = _constant(value)
                    if state not in (None, "", *STATES):
                        yield Found(f"protocol_state is never {state!r}{didYouMean(state, STATES)}", node.lineno)
        for one in sides:
            name = self._attribute(one)
            if name in ATTRIBUTES and name not in self._set and any(map(_isNumber, sides)):
                yield Found(f"{name} is a text, as all of a request is: compare int(…) of it", node.lineno)
            elif name in ATTRIBUTES and isinstance(one, ast.Subscript) and any(map(_isNone, sides)):
                yield Found(f"{name} is never None, but '' where Postfix knows none", node.lineno)
        # -1 is an operator and its operand. Results may be equal to each other; and who asks for None knows more.
        if any(isinstance(one, ast.UnaryOp | ast.Constant) and not _isNone(one) for one in sides):
            yield from [found for one in sides for found in self._tested(one)]

    def _tested(self, node):
        isResult = isinstance(node, ast.Name) and node.id in self._results
        if isResult or self._isCall(node, self._factory, "check"):
            yield Found("what a check gives is a pair, whose first item is the code", node.lineno)

    def _asked(self, call):
        """
        Checks that are asked and not there.
        """
        if self._isCall(call, self._factory, "check"):
            method, asked = "check", call.args[:1]
        elif self._isCall(call, self._factory, "checkAll"):
            # Each is a name, or a name with further arguments for its check().
            sequence = ast.Tuple | ast.List
            method = "checkAll"
            asked = [one.elts[0] if isinstance(one, sequence) and one.elts else one for one in call.args[1:]]
        else:
            return
        for one in asked:
            if isinstance(one, ast.Constant) and self._checks is not None and one.value not in self._checks:
                hint = didYouMean(one.value, self._checks)
                yield Found(f"factory.{method}: there is no {one.value!r} in modules{hint}", one.lineno, True)

    def _isCall(self, node, objects, method):
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == method
            and node.func.value in objects
        )


def _ports(tree, name):
    """
    Where the policy function takes its port for a number, or for something else that it is not.
    """
    policies = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    ports = _standingFor(name, ast.Module(policies, []))
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            isPlain = any(isinstance(one, ast.Constant) for one in sides)
            if isPlain and not ports.isdisjoint(sides) and not any(map(_isNone, sides)):
                yield Found(f"{name} is no number or text: compare {name}.port, .host or .path", node.lineno)
        elif isinstance(node, ast.Attribute) and node.value in ports and not hasattr(Port, node.attr):
            there = ", ".join(Port._fields)
            yield Found(f"{name} has no {node.attr}; there are {there}", node.lineno)


def _answers(tree, encoder):
    """
    Answers of the policy function, and of functions whose answers it returns, that are none.
    """
    # What a decorator makes of an answer is not seen here.
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.decorator_list
    }
    names, told = ["check"], set()
    while names:
        name = names.pop()
        if name in told or name not in functions:
            continue
        told.add(name)
        for value in _returned(functions[name]):
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                names.append(value.func.id)
            answer = _answer(value)
            if answer is None:
                continue
            try:
                encoder.encode(answer, {})
            except BrokenAnswer as error:
                hint = _action(answer)
                yield Found(f"{name}() returns what is no answer: {error}{hint}", value.lineno)


def _returned(function):
    """
    What a function returns, taken apart where it depends on something.
    """
    left = list(function.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            values = [node.value]
            while values:
                value = values.pop()
                if isinstance(value, ast.IfExp):
                    values += [value.body, value.orelse]
                else:
                    yield value
        elif not isinstance(node, _FUNCTIONS | ast.ClassDef):
            left += ast.iter_child_nodes(node)


def _answer(node):
    """
    An answer that is written out, or as much of it as decides whether it is one; else None.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if not isinstance(node, ast.Tuple) or any(isinstance(one, ast.Starred) for one in node.elts):
        return None
    values = [one.value if isinstance(one, ast.Constant) else "" for one in node.elts]
    if len(values) == 2 and not all(isinstance(one, ast.Constant) for one in node.elts):
        word = str(values[0]).partition(" ")[0]
        # Of these the text decides as well.
        if word.upper() in ("PREPEND", *TARGETS) or word.lower() in RESTRICTIONS:
            return None
    return tuple(values)


def _action(answer):
    """
    ', did you mean …?' when an answer begins with what resembles an action and is none.
    """
    action = answer[0] if isinstance(answer, tuple) and answer else answer
    word = action.partition(" ")[0] if isinstance(action, str) else ""
    isKnown = word.upper() in _VERBS or word.lower() in RESTRICTIONS
    return "" if isKnown else didYouMean(word, (*RESTRICTIONS, *_VERBS))


def _standingFor(name, tree):
    """
    The nodes where a name stands for what its function was given, not for anything else that is called so.
    """
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, _FUNCTIONS) and any(
            one.arg == name for one in ast.walk(function.args) if isinstance(one, ast.arg)
        ):
            nodes = [one for one in ast.walk(function) if isinstance(one, ast.Name) and one.id == name]
            if all(isinstance(one.ctx, ast.Load) for one in nodes):
                found.update(nodes)
    return found


def _keys(node):
    """
    A text that is written out, or those that are the keys of a dictionary.
    """
    return {_constant(one) for one in (node.keys if isinstance(node, ast.Dict) else [node])}


def _isNone(node):
    return isinstance(node, ast.Constant) and node.value is None


def _isNumber(node):
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _constant(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
