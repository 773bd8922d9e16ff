"""An extension of griffe, which reads the sources for the API's pages: a NamedTuple is shown with its fields.

A dataclass has its signature there. Without this, a field of a NamedTuple that has no docstring would not be seen.
"""

import griffe


class NamedTuples(griffe.Extension):
    """Gives every NamedTuple the signature that it is made by."""

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Called when all members of a class have been read."""
        if "NamedTuple" not in map(str, cls.bases) or "__init__" in cls.members:
            return
        kind = griffe.ParameterKind.positional_or_keyword
        fields = [one for one in cls.members.values() if one.is_attribute and one.annotation is not None]
        parameters = [
            griffe.Parameter("self", kind=kind),
            *(griffe.Parameter(one.name, annotation=one.annotation, kind=kind, default=one.value) for one in fields),
        ]
        made = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), lineno=0, endlineno=0)
        cls.set_member("__init__", made)
