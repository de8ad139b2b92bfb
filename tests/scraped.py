"""
Metrics that were read, as the tests look at them.
"""


def samples(families):
    """{(name, label values): value}, each once."""
    found = {}
    for family in families:
        assert family.documentation
        for one in family.samples:
            key = one.name, *(value for _, value in sorted(one.labels.items()))
            assert key not in found
            found[key] = one.value
    return found


def named(found, name):
    """{label values: value} of one metric."""
    return {key[1] if len(key) == 2 else key[1:]: value for key, value in found.items() if key[0] == name}
