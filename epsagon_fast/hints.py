"""The names that annotations take from typing, for what a traced process or a collector imports as it starts.

To import typing takes a tenth of what importing this package takes. A type checker sees typing's names here. At run
time they stand in annotations and as bases only, where nothing is asked of them. Those that stand in a public
function's are what a program finds there that asks for types: `object` takes anything too.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import AnyStr as AnyStr
    from typing import Final as Final
    from typing import Generic as Generic
    from typing import Literal as Literal
    from typing import Protocol as Protocol
    from typing import TypeGuard as TypeGuard
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import dataclass_transform as dataclass_transform
    from typing import overload as overload
else:

    class Hint:
        """Stands for any of the names, also with something in brackets."""

        __slots__ = ()

        def __class_getitem__(cls, _):
            return cls

    Any = AnyStr = object
    Final = Generic = Literal = Protocol = TypeGuard = Hint

    def TypeVar(*_, **__):
        return object

    def cast(_, value):
        return value

    def overload(function):
        return function

    def dataclass_transform(**_):
        return overload
