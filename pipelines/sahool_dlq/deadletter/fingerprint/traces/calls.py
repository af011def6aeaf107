"""Traces of the JVM (Java, Kotlin, Scala, Clojure, Groovy) and of JavaScript."""

import re
from collections.abc import Sequence

from sahool_dlq.deadletter.fingerprint.traces.bundles import is_bundle, without_hash
from sahool_dlq.deadletter.fingerprint.traces.frames import INDENT, Frame, Language, Link
from sahool_dlq.deadletter.fingerprint.traces.python import LIBRARY_PATH, NAME

__all__ = ["CALLS", "JAVA", "JAVASCRIPT"]

_CALL = re.compile(r"at (?:async )?(?:(?:new )?(.*?) ?)\(([^()]*(?:/\([^()]*\)[^()]*)?)\)$")
_EXCEPTION_NAME = re.compile(
    r"\.|(?:Error|Exception|Throwable|Failure|Warning|Group|Exit|Interrupt)$"
)
_LIBRARY_CLASS = re.compile(
    r"(?:javax?|jdk|sun|com\.sun|jakarta|kotlinx?|scala|groovy|System|Microsoft"
    r"|org\.springframework|org\.hibernate|org\.apache\.(?:kafka|catalina|coyote|tomcat|http)"
    r"|org\.eclipse\.jetty|org\.junit|org\.codehaus\.groovy|com\.fasterxml|com\.zaxxer"
    r"|com\.google\.common|org\.postgresql|com\.mysql|io\.(?:netty|grpc|ktor|lettuce|micrometer"
    r"|opentelemetry|projectreactor|reactivex|nats|vertx|quarkus|micronaut|smallrye)|reactor"
    r"|okhttp3|feign|_COROUTINE|akka|org\.apache\.pekko|cats|zio|fs2|clojure)\."
)
_GENERATED = re.compile(  # names and numbers that change from build to build, or at every start
    r"\$\$Lambda.*|\$\$(?:Enhancer|FastClass)[A-Za-z0-9$]*|(?<=\$Proxy)[0-9]+|(?<=Accessor)[0-9]+"
    r"|(?<=lambda\$)(?=\$)|\$[0-9]+(?=\$|$)|(?<=__)[0-9]+(?=\$|$|\.)|(?<=closure)[0-9]+$"
)
_LAMBDA = re.compile(r"\$\$Lambda[^.]*")  # and its address
_MAY_BE_GENERATED = re.compile(r"[$]|__|Accessor|closure")
_MINIFIED = re.compile(r"(?:new )?[A-Za-z_$]{1,2}\.(?=[A-Za-z_$<][A-Za-z0-9_$<>]{2})")


def _links(lines: Sequence[str]) -> list[Link]:
    """Java and Node print the raised exception first and its causes below: reverse that."""
    links = [Link(None, [])]
    aside: list[Frame] = []  # frames of what is suppressed
    suppressed: int | None = None  # how far it, and its own causes, are indented
    for indented in lines:
        line = indented.strip(INDENT)
        indent = len(indented) - len(indented.lstrip())
        if line.startswith("at "):
            if frame := _frame(line):
                (links[-1].frames if suppressed is None else aside).append(frame)
        elif line.startswith("Suppressed:"):
            suppressed = indent if suppressed is None else min(suppressed, indent)
        elif line.startswith(("Caused by:", "[cause]:")):
            if suppressed is None or indent < suppressed:
                suppressed = None
                links.append(Link(line.partition(":")[2].strip(), []))
        elif len(links) == 1 and not links[0].frames:
            name = line.rpartition('" ')[2] if line.startswith("Exception in") else line
            match = NAME.match(name)
            if match and not (links[0].name and _EXCEPTION_NAME.search(links[0].name)):
                links[0] = Link(match[0], [])
    if not any(link.frames for link in links):
        return []  # a text that is not a trace
    if not any(frame.is_ours for link in links for frame in link.frames):
        links[-1].frames.extend(aside)  # Reactor's trace of where the call was put together
    return links[::-1]


def _frame(line: str) -> Frame | None:
    """`at org.a.B.m(B.java:1)`, `at fn (/a/b.js:1:2)` or `at /a/b.js:1:2`."""
    if not line.startswith("at "):
        return None
    call = _CALL.match(line)
    if call and " (" not in line:
        name = _LAMBDA.sub("", call[1] or "") if "Lambda" in line else call[1] or ""
        owner, _, function = name.rpartition("/")[2].rpartition(".")
        if _MAY_BE_GENERATED.search(line):
            owner, function = _GENERATED.sub("", owner), _GENERATED.sub("", function)
        return Frame(owner, function, not _LIBRARY_CLASS.match(owner))
    name, location = (call[1], call[2]) if call else ("<anonymous>", line[3:])
    path = re.sub(r"(?::[0-9]+){1,2}$", "", location.removeprefix("async ")).removeprefix("file://")
    path = path.partition("?")[0]  # of a build, or of who asked for the file
    function = re.sub(r" \[as .*\]", "", name)
    if is_bundle(path):
        path, function = without_hash(path), _MINIFIED.sub("", function)
    return Frame(path, function, not LIBRARY_PATH.search(path))


_OUTLINE = (
    r"(?m)(?:^|[ \t])at [A-Za-z_$][^ \t\r\n()]*\([^\r\n()<>\[\]:/\\,='\"]*(?::[0-9]+)?\)"  # Java
    r"|^[ \t]*at (?:[^\r\n()]* \([^\r\n()]*(?:/\([^\r\n()]*\)[^\r\n()]*)?\)"  # Node
    r"|[^ \t\r\n()]*:[0-9]+:[0-9]+)"
    r"|^[ \t]*(?:Caused by|Suppressed|\[cause\]): ?[A-Za-z_$][A-Za-z0-9_$.]*"
    r'|^Exception in thread "[^"\n]*" [A-Za-z_$][A-Za-z0-9_$.]*'
    r"|^[ |\t]*[A-Za-z_$][A-Za-z0-9_$.]*(?: \[[A-Z_0-9]+\])?(?::|\r?$)"  # Error: message
)

JAVA = Language(
    name="java",
    hints=("at ",),
    sign=(
        r"(?m)^[ \t]*at [^ \t\r\n()]+\((?:[^ \t\r\n():/\\]+:[0-9]+|Native Method|Unknown Source"
        r"|[^ \t\r\n():/\\]+\.(?:java|kt|scala|groovy|clj))\)"
    ),
    outline=_OUTLINE,
    read=_links,
    frame=_frame,
)
JAVASCRIPT = Language(
    name="javascript",
    hints=("at ",),
    sign=r"(?m)^[ \t]*at (?:[^\r\n()]* \([^\r\n]*:[0-9]+\)|[^ \t\r\n()]*:[0-9]+:[0-9]+)",
    outline=_OUTLINE,
    read=_links,
    frame=_frame,
)
CALLS = JAVA._replace(name="", hints=(), sign="")
"""For texts without a sign: calls may be in the middle of their lines."""
