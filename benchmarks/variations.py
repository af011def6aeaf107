"""What production changes in a stack trace, and what makes another failure of it.

`kept` gives the same failure as other runs, releases and machines would print it; `split` gives
failures that are others. Both are written from what runtimes print, and know nothing of how a
fingerprint reads a trace. A row is one line of fresh_traces.jsonl.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["kept", "split"]

Row = Mapping[str, Any]

_FRAME = {
    "python": re.compile(r'^[ |]*File "'),
    "java": re.compile(r"^.*\tat "),
    "node": re.compile(r"^ *at "),
}


def kept(row: Row) -> dict[str, Row]:
    """Variations of the row that are still the same failure, by the name of the variation."""
    varied = {
        "other lines": _in_trace(row, _OTHER_LINES[row["language"]]),
        "other ids": _other_ids(row),
        "other library place": _in_trace(row, _other_place(row["language"])),
        "windows line ends": _in_trace(row, lambda trace: trace.replace("\n", "\r\n")),
        "indented by a log": _in_trace(row, lambda trace: re.sub("(?m)^", "    ", trace)),
    }
    if row["root"]:
        varied["other checkout"] = _in_trace(row, lambda t: t.replace(row["root"], "/ci/7/co/"))
    if row["top"]:
        varied["added library frame"] = _in_trace(row, lambda trace: _added(row, trace))
    return {name: other for name, other in varied.items() if other != row}


def split(row: Row) -> dict[str, Row]:
    """Failures that are similar to the row but not the same, by the name of the difference."""
    kind = row["error_type"].rpartition(".")[2].rpartition("$")[2]
    renamed = re.compile(rf"\b{re.escape(kind)}\b")
    varied: dict[str, Row] = {
        "other type": {
            **row,
            "error_type": renamed.sub("OtherError", row["error_type"]),
            "stack_trace": renamed.sub("OtherError", row["stack_trace"]),
        }
    }
    if top := row["top"]:
        renamed_top = _renamed(top)
        varied["other top frame"] = _in_trace(
            row, lambda trace: _in_frames(row, trace, lambda line: line.replace(top, renamed_top))
        )
    return varied


def _renamed(function: str) -> str:
    return re.sub(r"[A-Za-z0-9$_]+(?=>?$)", "somewhere_else", function)


def _in_trace(row: Row, change: Callable[[str], str]) -> Row:
    return {**row, "stack_trace": change(row["stack_trace"])}


def _in_frames(row: Row, trace: str, change: Callable[[str], str]) -> str:
    is_frame = _FRAME[row["language"]].search
    return "".join(change(x) if is_frame(x) else x for x in trace.splitlines(keepends=True))


def _later(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) + 13}"


_OTHER_LINES: dict[str, Callable[[str], str]] = {
    "python": lambda trace: re.sub(r'(", line )(\d+)', _later, trace),
    "java": lambda trace: re.sub(r"(\.(?:java|kt|scala):)(\d+)", _later, trace),
    "node": lambda trace: re.sub(r"(:)(\d+)(?=:\d+[),\n]|[),\n])", _later, trace),
}


def _other_ids(row: Row) -> Row:
    """Other numbers, times and addresses in values; frames, codes and schema are the same."""

    def change(text: str) -> str:
        text = re.sub(r"0x[0-9a-f]{6,}", "0x7fffdeadbee0", text)
        text = re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2031-12-01T23:59:01Z", text)
        return re.sub(r"(?<![.\w])(?:17|4711|18231|99123)(?![\w:])", "60042", text)

    lines = row["stack_trace"].splitlines(keepends=True)
    is_frame = _FRAME[row["language"]].search
    trace = "".join(line if is_frame(line) else change(line) for line in lines)
    return {**row, "error_message": change(row["error_message"]), "stack_trace": trace}


def _other_place(language: str) -> Callable[[str], str]:
    """The same libraries in another environment and version, in another run of the JVM."""
    if language == "python":
        return lambda trace: re.sub(
            r'"[^"\n]*?[/\\](?:lib(?:64)?/python3\.\d+|Python3\d+\\Lib)(?=[/\\])',
            '"/opt/venvs/b7/lib/python3.13',
            trace,
        )
    if language == "node":
        return lambda trace: re.sub(
            r"(?m)(\(|at )[^ ()\n]*?(?=node_modules/|/lib/node_modules/)", r"\1/srv/other/", trace
        ).replace("@1.6.0", "@1.7.9")

    def other_run(trace: str) -> str:
        trace = re.sub(r" ~?\[[^]\n]*\]", "", trace)
        trace = re.sub(r"\$Proxy\d+", "$Proxy9", trace)
        trace = re.sub(r"(BySpringCGLIB\$\$)\w+", r"\g<1>deadbeef", trace)
        trace = re.sub(r"(GeneratedMethodAccessor)\d+", r"\g<1>3", trace)
        return trace.replace('"pool-3-thread-17"', '"pool-1-thread-2"')

    return other_run


_LIBRARY_FRAME = {
    "python": (
        '{indent}  File "/opt/venv/lib/python3.12/site-packages/opentelemetry/trace.py", line 9, in'
        " wrapped\n{indent}    return call(*args)\n"
    ),
    "java": (
        "\tat java.base/java.lang.reflect.Method.invoke(Method.java:568)\n"
        "\tat org.springframework.aop.framework.CglibAopProxy.intercept(CglibAopProxy.java:753)\n"
    ),
    "node": "    at Layer.handle (/app/node_modules/express/lib/router/layer.js:95:5)\n",
}


def _added(row: Row, trace: str) -> str:
    """With one more frame of a library between the top frame and its caller."""
    added, done, lines = _LIBRARY_FRAME[row["language"]], False, []
    is_frame = _FRAME[row["language"]].search
    for line in trace.splitlines(keepends=True):
        if is_frame(line) and row["top"] in line and not done:
            done = True
            frame = added.format(indent=re.match("[ |]*?(?=  File|\t|    at|at|.)", line)[0])
            line = frame + line if row["language"] == "python" else line + frame
        lines.append(line)
    return "".join(lines)
