"""Finds, in a text that is no JSON as a whole, the value that belongs to a name: more of the text rather than less."""

import re
from collections.abc import Container, Iterator

from epsagon_fast.hints import Final
from epsagon_fast.patterns import pattern
from epsagon_fast.protocol import MASK
from epsagon_fast.rows import NamedTuple

# Instead of what is not understood and may hold a value that must not show.
NOT_SHOWN: Final = "(not shown: it may hold a secret)"
_SIGN_OF_NOT_SHOWN: Final = NOT_SHOWN.index(":")
# Characters before `=` or `:` that may belong to a name, and words of a name without quotes.
_LONGEST_NAME: Final = 256
_MOST_WORDS: Final = 4

# Blanks within a line, of all kinds.
BLANK: Final = r"[^\S\r\n]"
# A name, read from its end: in quotes, which have backslashes if they stand in a string, or bare. Operators as `!=` may
# stand behind it.
_QUOTED: Final = pattern(r"""\s*[!<>~+|*^]{0,3}\s*["'`]\\*([^\n"'`]*)""")
# As in `environ["TOKEN"] = `, where the bracket is no part of the name.
_SUBSCRIPT: Final = pattern(r"""\s*[!<>~+|*^?]{0,3}\s*\]\s*(?=["'`])""")
_BARE: Final = pattern(rf"""{BLANK}*[!<>~+|*^?]{{0,3}}{BLANK}*([^\n\r\t"'`&;?,{{}}()<>|=:#\\]*)""")
# YAML's `? name`, read from its end, whose `:` begins the line below.
_EXPLICIT: Final = pattern(rf"""{BLANK}*+\n\r?["']?([^\r\n"'?]++)["']?{BLANK}*+\?(?=[\s-]|\Z)""")
# The type of PostgreSQL's `name::type`, read from its end.
CAST: Final = r"(?:\]\[)?(?:\)[\d, ]*+\()?\w++(?: \w++)?::"
_CAST: Final = pattern(rf"\s*+[!<>~*]{{0,3}}\s*+{CAST}")
# What says that a name with words behind it is none: a sentence about it.
_SAYS: Final = frozenset(
    (
        *("not", "wrong", "bad", "invalid", "incorrect", "missing", "expired", "rejected", "denied", "failed", "fails"),
        *("failure", "error", "errors", "required", "empty", "expected", "mismatch", "unknown", "found", "revoked"),
    )
)
# How the names of a value end, and how far before their sign.
_SAYS_VALUE: Final = ("value", "Value", 'value"', "value'", "input'", "value ", "Value ")
_FURTHEST_VALUE: Final = 8
_SIGNS: Final = r"[=:<>]*\s*"
_OPENING_QUOTE: Final = pattern(rf"""{_SIGNS}[a-zA-Z]{{0,2}}(\\*)(["'])""")
# A list, an object or a call.
_BRACKET: Final = pattern(rf"{_SIGNS}([\w.]*)[{{\[(]")
_SCHEME: Final = r"(?:(?:bearer|basic|digest|token|negotiate)[ \t+]+)?"
# What a statement has instead of a value that is passed beside it.
PLACEHOLDER: Final = r"(?:%s|%\(\w+\)s|\?|\$\d{1,3}|(?<= ):[a-z]\w*|@p\d+|null|none|default)"
_PLACEHOLDER: Final = pattern(rf"{_SIGNS}{PLACEHOLDER}(?![^\s,;)])", re.IGNORECASE)
# Another name with its sign.
_PAIR: Final = rf"""{BLANK}*["']?[\w.%+\[\]-]++["']?{BLANK}*(?:=|:(?=[\s"']))"""
# A value after `=` in a URL. What follows `&` or `;` without a name still belongs to it.
_IN_URL: Final = r"""(?:[^\s&;"'<]++|["'](?![\s>/,)\]}]|\Z)|<(?!/))*+"""
_IN_FORM: Final = pattern(rf"[=:]*[ \t]*+({_SCHEME}{_IN_URL}(?:[&;](?![ \t]*+[^&;=\s]*+=){_IN_URL})*+)", re.IGNORECASE)
# A value after `=` elsewhere: words up to the end of the line, of the element, or to the next pair. If nothing but
# another line follows, it is that line.
_IN_WORDS: Final = pattern(
    rf"[=:<>]*{BLANK}*+(?:\r?\n{BLANK}*+(?!{_PAIR}))?"
    rf"((?:[^\s,&;<]++|<(?!/)|(?:{BLANK}|,)++(?!{_PAIR})|[&;](?!{_PAIR}))*+)"
)
# After `:`, behind a name in quotes.
_IN_OBJECT: Final = pattern(rf"{_SIGNS}({_SCHEME}[^\r\n,\]}}]*)", re.IGNORECASE)
_REST: Final = pattern(r"[^\r\n,\]}]*+")
# After `:`, the rest of the line, and the lines below that are indented. Points of a list belong to a value that has
# nothing on its first line, or a sign for a text of several lines.
_IN_LINE: Final = pattern(
    rf"[=:>]*{BLANK}*+([^\s|>][^\r\n]*+(?:[\r\n]++{BLANK}++(?!- )[^\r\n]*+)*+"
    rf"|[^\r\n]*+(?:[\r\n]++(?:{BLANK}|- )[^\r\n]*+)*+)"
)
# A key in a file's own form has lines of its own.
_PEM: Final = pattern(r"-----BEGIN .*?(?:-----END [^\r\n]*|\Z)", re.DOTALL)
# GraphQL's variables: where one is declared, and where it stands for a value.
_DECLARED: Final = pattern(r":\s*+\[*[A-Z]\w*+[\]!]*+(?=\s*+[,)])")
_VARIABLE: Final = pattern(r":\s*+(\$\w++)(?=[\s,)}\]])")
# Characters from a text's beginning in which GraphQL declares its variables.
_DECLARATIONS: Final = 2048
# Read from the end: the word value behind a member or a line that says whose it is, or behind where pydantic found it.
_NAMED: Final = pattern(
    r"""\s*+["']?eulav["']?[\s,;]++["']?([^\s"'`:=,;][^\r\n"'`:=,;]*+)["']?\s*+[:=]\s*+["']?(?:eman|yek)(?![^\W_])""",
    re.IGNORECASE,
)
_LOCATED: Final = pattern(r"""\s*+'tupni'.*?[)\]]([^()\[\]]*+)[(\[]\s*+:'col'""", re.DOTALL)
# What pydantic says in words stands below a line that is the name.
_INPUT: Final = "input_value"
_LONGEST_LINE: Final = 512
# What goes on with a literal of SQL or of a program.
_JOINED: Final = pattern(r"""["']\s*+(?:\|\||\+)\s*+[a-zA-Z]?(["'])""")
_INNER: Final = pattern(r"""["'\\{}\[\]()]""")


class Hidden(NamedTuple):
    """The part of a text that is not shown, and what is shown instead."""

    start: int
    end: int
    shown: str = MASK


class Pairs:
    """Finds the values of the names of one config behind `=` and `:`."""

    def __init__(self, keys: Container[object]) -> None:
        self._keys = keys

    def hidden(self, text: str, floor: int, at: int) -> Iterator[Hidden]:
        """Yield what the sign at `at` hides. No name begins before `floor`."""
        if text.startswith(NOT_SHOWN, at - _SIGN_OF_NOT_SHOWN):
            return
        before = backwards(text, floor, at)
        if cast := _CAST.match(before):
            before = before[cast.end() :]
        if text[at] == "=" and (subscript := _SUBSCRIPT.match(before)):
            before = before[subscript.end() :]
        quoted = _QUOTED.match(before)
        if text[at] == ":" and (explicit := _EXPLICIT.match(before)):
            is_named, is_query, quoted = is_key(explicit[1][::-1].strip(), self._keys), False, None
        elif quoted:
            is_named = is_key(quoted[1][::-1], self._keys)
            is_query = False
        else:
            bare = _BARE.match(before)
            is_named = bare is not None and any(is_key(name, self._keys) for name in bare_names(before, bare))
            is_query = bare is not None and before[bare.end() : bare.end() + 1] in ("?", "&", "#")
            if is_named and bare and text[at] == ":" and _is_variable(text, at, bare[1]):
                return
        is_named = is_named or self._is_value_of_key(text, at)
        if is_named and not _PLACEHOLDER.match(text, at):
            yield _value(text, at, quoted is not None, is_query)

    def _is_value_of_key(self, text: str, at: int) -> bool:
        """Return whether what stands before the sign at `at` says that a value comes, and before that whose."""
        if not text.endswith(_SAYS_VALUE, max(0, at - _FURTHEST_VALUE), at):
            return False
        if text.endswith(_INPUT, 0, at):
            line = text.rfind("\n", max(0, at - _LONGEST_LINE), at)
            name = text[text.rfind("\n", max(0, line - _LONGEST_NAME), max(0, line)) + 1 : max(0, line)]
            return any(part in self._keys for part in name.split("."))
        before = backwards(text, 0, at)
        if found := _NAMED.match(before):
            return found[1][::-1].strip() in self._keys
        if found := _LOCATED.match(before):
            return any(part.strip(" '") in self._keys for part in found[1][::-1].split(","))
        return False


def _is_variable(text: str, at: int, name: str) -> bool:
    """Return whether GraphQL declares a variable at `at`, whose name is given backwards, or passes one there."""
    if name.endswith("$") and _DECLARED.match(text, at):
        return True
    passed = _VARIABLE.match(text, at)
    return passed is not None and text.find(f"{passed[1]}:", 0, _DECLARATIONS) >= 0


def backwards(text: str, floor: int, at: int) -> str:
    """Return what stands before `at` and may hold a name, from its end."""
    return text[max(floor, at - _LONGEST_NAME) : at][::-1]


def is_key(name: str, keys: Container[object]) -> bool:
    """Return whether a name in a text is a key, also as a form or a URL encodes it."""
    return name in keys or (("%" in name or "+" in name) and unquoted(name) in keys)


def unquoted(text: str) -> str:
    """Return what a text says that a form or a URL encodes."""
    # Imported here, because few texts need it: see producer/late_imports.py.
    from urllib.parse import unquote_plus

    return unquote_plus(text)


def bare_names(before: str, found: re.Match[str]) -> Iterator[str]:
    """Yield what may be the name at the end of a text that is given backwards: its last word, its last two, ..."""
    words = found[1][::-1].split()
    if not words:
        return
    last = words[-1].strip("$@-")
    yield last
    if "." in last:
        # A column of a table, a member of an object.
        yield last.rpartition(".")[2]
    for count in range(2, min(len(words), _MOST_WORDS) + 1):
        if words[1 - count].lower() in _SAYS:
            break
        yield " ".join(words[-count:])
    if before[found.end() :].startswith("\\"):
        # The first letter belongs to an escape, as in `\npassword`.
        yield words[0][1:]


def _value(text: str, at: int, is_named_in_quotes: bool, is_query: bool) -> Hidden:
    """Return the value behind the sign at `at`."""
    if quote := _OPENING_QUOTE.match(text, at):
        return Hidden(quote.end(), literal(text, quote.end(), quote[1] + quote[2]))
    kind = _kind(text[at], is_named_in_quotes, is_query)
    if not is_query and (bracket := _BRACKET.match(text, at)):
        inner = bracketed(text, bracket.end() - 1)._replace(start=bracket.start(1))
        more = (_REST if kind is _IN_OBJECT else kind).match(text, inner.end) if inner.shown == MASK else None
        return inner._replace(end=more.end()) if more else inner
    found = kind.match(text, at)
    if found is None:
        return Hidden(at + 1, len(text), NOT_SHOWN)
    start, end = found.span(1)
    pem = _PEM.match(text, start)
    return Hidden(start, max(end, pem.end()) if pem else end)


def _kind(sign: str, is_named_in_quotes: bool, is_query: bool) -> re.Pattern[str]:
    if sign == ":":
        return _IN_OBJECT if is_named_in_quotes else _IN_LINE
    return _IN_FORM if is_query else _IN_WORDS


def closing(text: str, start: int, quote: str) -> int:
    """Return where a text in quotes ends. Its closing quote has as many backslashes as the opening one.

    One that comes twice stands for itself, as in SQL.
    """
    # In a text that stands in no other, two backslashes are one that was written.
    before = r"(?<!\\)" if len(quote) > 1 else r"(?<!\\)(?:\\\\)*+"
    for found in re.compile(f"{before}((?:{re.escape(quote)})++)").finditer(text, start):
        if (found.end(1) - found.start(1)) // len(quote) % 2:
            return found.end() - len(quote)
    return len(text)


def literal(text: str, start: int, quote: str) -> int:
    """Return where a literal ends that may have three quotes on each side, or be joined with others."""
    end = closing(text, start, quote)
    if text.startswith(quote * 2, start):
        last = text.find(quote * 3, start + 2 * len(quote))
        end = max(end, last)
        while text.startswith(quote, end + len(quote)):
            end += len(quote)
    while len(quote) == 1 and (more := _JOINED.match(text, end)):
        end = closing(text, more.end(), more[1])
    return end


def bracketed(text: str, at: int) -> Hidden:
    """Return what stands in the brackets that open at `at`, with them; all of the rest if their end is not sure."""
    if text.startswith(NOT_SHOWN, at):
        return Hidden(at, at + len(NOT_SHOWN), NOT_SHOWN)
    depth, quote = 0, ""
    for found in _INNER.finditer(text, at):
        sign = found[0]
        if sign == "\\":
            break
        if sign in "\"'":
            quote = "" if quote == sign else quote or sign
        elif not quote:
            depth += 1 if sign in "{[(" else -1
            if depth == 0:
                return Hidden(at, found.end())
    return Hidden(at, len(text), NOT_SHOWN)
