"""The steps that turn an error message into its template: what is replaced, in which order.

Ids, hosts, times and quoted values differ between two dead letters of one failure. Names in code or
schema (a constraint, a column, an attribute) and error codes differ between two failures. So names
and codes are kept, and everything else becomes a placeholder.

`STAGES` has the replacements in order. Their patterns use neither look-around nor Unicode classes
nor `(?i)`, so that Python, Polars (Rust) and DuckDB (RE2) give the same result for every text.
`KEPT` replaces the missing look-behind: a step writes it before a number that later steps must not
change.
"""

from sahool_dlq.deadletter.fingerprint.template_languages import (
    CODES,
    DATES,
    KEPT,
    NAMES,
    SIGNS,
    Step,
)
from sahool_dlq.deadletter.fingerprint.template_words import (
    CLOCK,
    CODE_KEY,
    CODE_PREFIX,
    COUNTED,
    DATA_FILE,
    DAY,
    DOMAIN,
    FEW_WORDS,
    IPV6,
    MAILBOX,
    MINUTES,
    MONTH,
    NAMED,
    NAMER,
    NOT_THERE,
    NUMBER_WORD,
    PREFIX,
    THING,
    TIME_UNIT,
    TYPE,
    UNIT,
    UUID,
    VALUE,
    VALUE_OF,
    any_case,
)

__all__ = ["STAGES", "Step"]


_SHORTEN: tuple[Step, ...] = (
    # Details, hints and statements after the main message; libpq's second and later messages.
    Step(
        r"(?:DETAIL:|HINT:|CONTEXT:|STATEMENT:|QUERY:|LINE [0-9]+:|\(Background on this error|"
        r"\n *(?:Detail|Hint|Where|Position): |\n\nFailed validating |\nOn instance|"
        r"\nRequire stack:|; line [0-9]+ pos [0-9]+|"
        r"\[SQL:|\[parameters:|debug_error_string = |dup key: \{|"
        r", Timeout: [0-9.]+s|, Topology Description: |\. Client view of cluster state is |"
        r"Is the server running |\n(?:FATAL: |server closed the |connection to server |"
        r"could not connect to server: )|Multiple connection attempts)(?s:.*)",
        "",
    ),
    # libpq: the address that it tried is not the error.
    Step(
        r'connection to server (?:at|on socket) "[^"]*"(?: \([^)]*\))?(?:, port [0-9]+)? failed: |'
        "could not connect to server: |^connection failed: ",
        "",
    ),
    Step(r" \((?:reached max retries|SDK Attempt Count): [0-9]+\)", ""),
    # Only the first of several invalid fields; their number does not matter.
    Step(r"validation errors for ", "validation error for ", "validation errors for"),
    Step(
        r"(\[type=[a-z_]+, input_value=)(?s:.*)|(\(type=[a-z_.]+)(?:[;)])(?s:.*)", r"\1\2", "type="
    ),
    # The position of a parser, with a piece of its text.
    Step(r" at \[Source: (?s:.*?); line: [0-9]+, column: [0-9]+\]", "", "[Source"),
    Step(r"\"[^\"\n]{0,200}\"\.\.\.", "<str>", '"...'),
    # Objects: their type stays.
    Step(r"\[redacted:([a-z0-9_]+)(?::[0-9a-f]+)?\]", r"<\1>", "[redacted:"),
    Step(
        r"<Future at 0x[0-9a-f]+ state=[a-z]+ (raised [A-Za-z_.]+)>", r"<Future \1>", "<Future at"
    ),
    Step(
        r"<(?:[A-Za-z0-9_]+\.)*([A-Za-z0-9_]+)[^<>\n]{0,200} at 0x[0-9a-fA-F]+[^<>\n]{0,200}>",
        r"<\1>",
        " at 0x",
    ),
    Step(r"HTTPS?(Connection(?:Pool)?)\(host=[^()]*\)|<HTTPS?(Connection)>", r"<HTTP\1\2>", "HTTP"),
    # Addresses of every kind.
    Step(
        r"(?:/vsi[a-z_]+/)?[A-Za-z][A-Za-z0-9+.-]*://[^ \t\r\n'\"<>()\[\]{},]*"
        r"[^ \t\r\n'\"<>()\[\]{},:;.]",
        "<url>",
        "://",
    ),
    Step(r"(url: )/[^\n]*?( \(Caused by )", r"\1<url>\2", "(Caused by "),
    Step(f"({any_case('url uri')}:? )[^ \\t\\r\\n'\"(<]+", r"\1<url>"),
    Step(r"arn:aws[a-z-]*:[^ \t\r\n'\",)]+", "<arn>", "arn:aws"),
    Step(f"{MAILBOX}@{DOMAIN}", "<email>", "@"),
    Step(UUID + r"(?:_[A-Z]?[0-9]+)?", "<id>"),
    Step(r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}|(?:sha[0-9]{1,3}|md5):[0-9a-fA-F]+", "<id>"),
    # One line from here on: engines differ about `$` before a line's end.
    Step(r"[\t\r\n]+", " "),
    Step("  +", " "),
    Step("^ | $", ""),
    *CODES,
)
_REPLACE: tuple[Step, ...] = (
    # Where to read more, and a client's counters.
    Step(
        rf" ?\(?(?:{any_case('see help')}|for more information(?:,? see| check)?):? <url>\)?",
        "",
    ),
    Step(r"(?:, [A-Za-z-]+: [^,()]*(?:\([^()]*\)[^,()]*)?){6,}", ""),
    Step(r"[A-Za-z0-9+/_-]{16,}={1,2}([^=A-Za-z0-9]|$)", r"<id>\1"),
    # Codes distinguish failures: protect them from the steps that replace numbers.
    Step(
        f"({any_case('errno winerror sqlstate signal ora-')}[ :=#(]{{0,3}}"
        f"|{any_case('error err')}(?: #?|#)"
        f"|{any_case('code status returned response exit')}[ :=#]{{1,3}}"
        f"|HTTP(?:/[0-9.]+)? )(-?)([0-9A-Z]?[0-9]{{1,5}})([ ,.;:)\\]\"'}}]|$)",
        rf"\1\2{KEPT}\3\4",
    ),
    # HRESULT and NTSTATUS: 0x80070005, 0xC0000005
    Step(
        "0x" + "([8Cc])(0)([0-4])" + 5 * "([0-9A-Fa-f])" + "([^0-9A-Za-z]|$)",
        f"{KEPT}0{KEPT}x" + "".join(rf"{KEPT}\{n}" for n in range(1, 9)) + r"\9",
        "0x",
    ),
    Step(
        rf"((?:^|[^0-9A-Za-z_{KEPT}])(?:{CODE_PREFIX}-?|{any_case('error code')} [A-Z]{{1,8}}))"
        r"([0-9]{2,7}[A-Z]?)([^0-9A-Za-z_-]|$)",
        rf"\1{KEPT}\2\3",
    ),
    Step(r"(\(-?)([0-9]{1,5}, ?b?['\"])", rf"\1{KEPT}\2"),  # (1062, "Duplicate entry …
    Step(r"^([0-9]{4,6} \([0-9A-Z]{5}\): )", rf"{KEPT}\1"),  # 1045 (28000): Access denied …
    Step(r"(['\"] \()([0-9]{1,3}\))", rf"\1{KEPT}\2"),  # … on 'db' (111)
    Step(
        r"(?:(^|[ :(])([45][0-9]{2})|(['\"])([345][0-9]{2}))"
        r"( [A-Z][a-z]{2}| (?:BAD|NOT|TOO|INTERNAL|SERVICE|GATEWAY|[A-Z]{8})"
        r"| error[ :]| responses?[ :]|, message=)",
        rf"\1\3{KEPT}\2\4\5",
    ),
    Step("([-=]> )([1-5][0-9]{2}[ ,.;]|[1-5][0-9]{2}$)", rf"\1{KEPT}\2"),
    Step("((?:text|application|image|audio|video|multipart)/)([a-z])", rf"\1{KEPT}\2"),
    # A parser's input, and the location in messages of tools that begin with a path.
    Step("( at index [0-9]+): .*", r"\1"),
    Step(r"^(?:[A-Za-z]:)?[/\\][^:]*: ", "<path>: "),
    # Structures: their keys and codes are names, and a message in them is the main message.
    Step(
        r"\"([A-Za-z0-9_$]+)\"\.\"([A-Za-z0-9_$]+)\"(?:\.\"([A-Za-z0-9_$]+)\")?",
        rf"\1.{KEPT}\2.{KEPT}\3",
    ),
    Step(
        rf"({any_case('message msg reason detail description desc error')}=)"
        r"(?:'([^']*)'|\"([^\"]*)\")",
        rf"\1{KEPT}\2\3",
    ),
    Step(r"'\[([^\[\]]*)\]'", r"[\1]"),
    Step(r"(['\"])\[[^\[\] ]+\]: ", r"\1<id>: "),
    Step(r"('loc': [(\[])'([^']*)', '([^']*)'", rf"\1{KEPT}\2.{KEPT}\3", "'loc'"),
    Step(
        r"([\"']path[\"']: \[ ?)[\"']([^\"']*)[\"'](?:, [0-9]+, [\"']([^\"']*)[\"'])?",
        rf"\1{KEPT}\2.{KEPT}\3",
    ),
    Step(r"^\{'([A-Za-z_]+)': \[", r"{\1: ["),
    # Times, before anything else takes their numbers.
    Step(
        r"(?:[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4})"
        rf"(?:[T ]{MINUTES})?",
        "<time>",
    ),
    Step(
        rf"(?:{DAY})?[0-9]{{1,2}}[ /-]{MONTH}[ /-][0-9]{{2,4}}[ :]{CLOCK}"
        rf"|(?:{DAY})?{MONTH} +[0-9]{{1,2}} {CLOCK}(?: [0-9]{{4}})?"
        rf"|(?:{DAY})?{MONTH} +[0-9]{{1,2}}, [0-9]{{4}}(?:,?(?: at)? {CLOCK})?|{CLOCK}",
        "<time>",
    ),
    *DATES,
    Step(
        r"(^|[^0-9A-Za-z_:.])[0-9]{1,2}(?::[0-9]{2})? ?(?:[AaPp][Mm]|[ap]\.m\.)([^A-Za-z0-9]|$)",
        r"\1<time>\2",
    ),
    Step(r"(^|[^0-9A-Za-z_])[0-9]{8}T[0-9]{6}Z?", r"\1<time>"),
    Step(r"[0-9]+° ?[0-9]+['′] ?[0-9.]+[\"″]? ?[NSEW]", "<n>", "°"),
    # key=value and "id: value"
    Step(
        rf"((?:^|[^A-Za-z]){CODE_KEY}=|[^A-Za-z_]type=)['\"]?(-?)([^ ,;()\[\]{{}}'\"<>-]+)",
        rf"\1\2{KEPT}\3",
    ),
    Step(
        rf"(['\"](?:type|kind|reason|{CODE_KEY})['\"]: )['\"]([A-Za-z_.-]+)['\"]",
        rf"\1{KEPT}\2",
    ),
    Step(rf"([A-Za-z_][A-Za-z0-9_.-]*=){VALUE}", r"\1<v>"),
    Step(
        rf"([^A-Za-z]{any_case('id')}[:#] *| with (?:key|id|identifier) )[^ ,;()\[\]{{}}'\"<>]+",
        r"\1<id>",
    ),
    # Quoted texts: names in code lose their quotes, others lose their content.
    Step(
        r"(codec can't (?:en|de)code )(?:character|byte)s?(?: '[^']*'| 0x[0-9a-f]+)? in position",
        r"\1<str> in position",
    ),
    Step(r"([Hh]ost ?name |[Uu]ser |[Rr]ole |[Dd]atabase )(?:'[^']*'|\"[^\"]*\")", r"\1<str>"),
    # Parsers show the first character that they cannot read.
    Step(
        r"(^Unexpected token |[Cc]haracter )'[^']{1,6}'|^(Unexpected token )[^ ]( in JSON)",
        r"\1\2<str>\3",
    ),
    Step(
        r"([Vv]alue )['\"](?:undefined|null|None|NaN)['\"]|(unknown variant )`[^`]*`"
        r"|(No enum constant [A-Za-z0-9_.$]+\.)[A-Za-z0-9_]+|`[^`]*`( is not a valid )",
        r"\1\2\3<str>\4",
    ),
    Step(r"'([!#-&(-.:-@\[\]-`{-~]{1,3})'([^A-Za-z0-9]|$)", r"\1\2"),
    *NAMES,
    Step(rf"({NAMER}:? )['\"]((?:[^'\" -]|-[^'\" 0-9])+)['\"]", rf"\1{KEPT}\2"),
    Step(rf"((?:^|[^A-Za-z_]){NAMER}: )([A-Za-z_])", rf"\1{KEPT}\2"),
    Step(rf"['\"]({TYPE})['\"]|['\"]([A-Za-z_][A-Za-z0-9_.]*)['\"]({NAMED})", r"\1\2\3"),
    # Backticks usually contain code; a value only if the words around it say so.
    Step(
        rf"((?:{NAMER}|path|label|fields|references|one of|REFERENCES|KEY):? \(?)`([^` ]+)`",
        rf"\1`{KEPT}\2`",
        "`",
    ),
    Step(rf"`({TYPE})`", rf"`{KEPT}\1`", "`"),
    Step(rf"((?:^|[^A-Za-z]){THING}:? |= ?)`[^`{KEPT}]{{1,200}}`", r"\1<str>", "`"),
    Step(rf"`[^` ().:<>{KEPT}]{{1,64}}`( (?:is |was )?{NOT_THERE})", r"<str>\1", "`"),
    Step(r"^['\"]([A-Za-z_][A-Za-z_.]*)['\"]$", r"\1"),
    Step(r"^'[^']*'( (?:is|does|was|has) )", r"<str>\1"),
    Step(r"(?:Posix|Windows)Path\('[^']*'\)", "<str>", "Path("),
    Step(r"[bru]?'(?:[A-Za-z]:)?[/\\][^']*'|\"(?:[A-Za-z]:)?[/\\][^\"]*\"", "<str>"),
    Step(rf"({VALUE_OF}:? |[=<>] |rrno {KEPT}[0-9]+\][^']*: )'[^']*'", r"\1<str>"),
    Step(rf"({VALUE_OF}:? |[=<>] )\"[^\"]*\"", r"\1<str>"),
    Step(r"[bru]?'[^' ]{0,64}'|(?:W/|[bru])?\"[^\" ]{0,64}\"", "<str>"),
    # A sentence is a message; a few words with a number are a value.
    Step(rf"(^|[^A-Za-z0-9])(?:{FEW_WORDS}|{FEW_WORDS.replace(chr(39), chr(34))})", r"\1<str>"),
    Step(r"\[\([^()\[\]]*\)(?:, \([^()\[\]]*\))*\]", "<v>", "[("),
    # A duration after a colon is no port.
    Step(r":[0-9]+( ?ms[^A-Za-z])", r": <n>\1"),
    # Hosts and paths
    Step(
        r"ipv[46]:[0-9A-Fa-f:.%\[\]]+:[0-9]+"
        r"|(?:[A-Za-z0-9.-]*/)?[0-9]{1,3}(?:\.[0-9]+){3}(?::[0-9]+|/[0-9]+)?",
        "<host>",
    ),
    Step(
        rf"(^|[ '\"(=,\[])(?:[A-Za-z0-9.-]+/)?{IPV6}(?:[%][a-z0-9]+)?([^A-Za-z0-9_:]|$)",
        r"\1<host>\2",
    ),
    Step(
        r"(?:[A-Za-z0-9.-]+/)?\[<host>\](?::[0-9]+)?|[A-Za-z0-9._-]+@<host>",
        "<host>",
    ),
    # A name that could not be resolved is a host, whatever it looks like.
    Step(
        "^[A-Za-z0-9._-]+(: (?:Name or service not known|Temporary failure in name resolution|"
        "No address associated with hostname|nodename nor servname provided))",
        r"<host>\1",
    ),
    Step(PREFIX + r"[0-9_-]*[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*:[0-9]{2,}", r"\1<host>"),
    Step(
        PREFIX
        + r"(?:\*\.)?(?:[A-Za-z0-9-]+\.)+(?:com|org|net|io|local|internal|cloud|svc|example)"
        + r"([^.A-Za-z0-9_]|\.?$|\. )",
        r"\1<host>\2",
    ),
    Step(
        r"([Cc]onnection to |ENOTFOUND |EAI_AGAIN |to host |ssl:)[^ ]+( timed out|$| \[)",
        r"\1<host>\2",
    ),
    Step(
        r"(^|[ '\"(=,:\[])(?:(?:~|\.{1,2}|[A-Za-z]:)?(?:[/\\][A-Za-z0-9_.@%+~$-]+)+[/\\]?"
        r"(?:\?[^ '\")\]]*)?|(?:[A-Za-z0-9_-]+/)+[A-Za-z0-9_-]+\.[A-Za-z][A-Za-z0-9]{0,4}"
        rf"|[A-Za-z0-9_-]+\.(?:{DATA_FILE}))",
        r"\1<path>",
    ),
    Step(f"(^|: ){KEPT}?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+$", r"\1<path>"),
    # Numbers
    Step(
        PREFIX + r"(?:[0-9.]+(?:[dhms]|[munµ]s),? )+[0-9.]+(?:[dhms]|[munµ]s)([^A-Za-z0-9]|$)",
        r"\1<n>\2",
    ),
    Step(PREFIX + r"P(?:[0-9.]+[YMWD])*T(?:[0-9.]+[HMS])+", r"\1<n>"),
    Step(PREFIX + rf"(?:nan|inf)(?:{UNIT})?([^A-Za-z0-9_]|$)", r"\1<n>\2"),
    Step(PREFIX + rf"(?:{NUMBER_WORD}) (?:{TIME_UNIT})s?([^A-Za-z]|$)", r"\1<n>\2"),
    Step(PREFIX + r"[0-9]+(?:st|nd|rd|th)([^A-Za-z0-9]|$)", r"\1<n>\2"),
    Step(r"@[0-9a-f]{5,8}|(^|[^0-9A-Za-z])0x[0-9a-fA-F]+", r"\1<id>"),
    # A word of several parts with a number names one thing of many.
    Step(
        PREFIX
        + r"(?:(?:[A-Za-z]+[-_])+[A-Za-z]*[0-9][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)*"
        + r"|[A-Za-z]*[0-9][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)+(?:[.+][A-Za-z0-9]+)*)"
        + r"([^A-Za-z0-9_'\"]|$)",
        r"\1<id>\2",
    ),
    Step(
        PREFIX
        + r"(?:[0-9]+[A-Za-z]+[0-9]|[A-Za-z]+[0-9]+[A-Za-z]+[0-9]|[A-Za-z]+[0-9]{4,}"
        + r"|[A-Z]+[0-9]{2,}[A-Z]|[a-z]{1,2}[0-9]+[a-z]{5})[A-Za-z0-9]*",
        r"\1<id>",
    ),
    # A few hexadecimal ids are all digits, or digits up to their last letters.
    Step(
        PREFIX
        + "(?:[0-9]{8,}[a-f]+|[0-9]{14,}|(?:[0-9]+[a-f]|[a-f]+[0-9])[0-9a-f]{6,})([^A-Za-z0-9_]|$)",
        r"\1<id>\2",
    ),
    Step(
        PREFIX + r"v?[0-9]+(?:\.[0-9]+)+-?(?:rc|alpha|beta|dev|post)[.-]?[0-9]*(?:\+[a-z0-9.]+)?",
        r"\1<n>",
    ),
    Step(PREFIX + r"v[0-9]+(?:\.[0-9]+)*", r"\1<n>"),
    Step(
        rf"(^|[^0-9{KEPT}])[0-9]+(?:[.,][0-9]+)*(?:[eE][+-]?[0-9]+)?"
        rf"(?: ?[KMGTkmgt]?i?[Bb]/[0-9.]+)?(?:\.?{UNIT}([^A-Za-z0-9]|$))?",
        r"\1<n>\2",
    ),
    Step(r"([ (=,:\[])-<n>", r"\1<n>"),
)
_TIDY: tuple[Step, ...] = (
    # Repeats, and the rest
    Step(r"(<[a-z]+>)(?:[,;:./ _x-]{1,2}<[a-z]+>)+", r"\1"),
    Step(r"((?:[A-Za-z]+:)?<[a-z]+>)(?:, (?:[A-Za-z]+:)?<[a-z]+>)+", r"\1"),
    Step(rf"(<n> (?:[a-z]+ )?{COUNTED})s([^a-z]|$)", r"\1\2"),  # one or many
    Step("[A-Za-z]+[_-]<(?:time|id)>", "<id>"),
    Step(r"<host> \[<host>\]", "<host>"),
    Step(r"(<host>)(?: (?:or|and) <host>)+", r"\1"),
    Step(r"(<[a-z]+>=<v>)(?:(?:, <[a-z]+>)?=<v>)+", r"\1"),
    # An operating system's error is the same with and without the file that met it.
    Step(
        rf"^(\[(?:Errno|WinError) -?{KEPT}?[0-9]+\] [^<:]+): <(?:str|path)>"
        "(?: -> <(?:str|path)>)?$",
        r"\1",
    ),
    # Measurements after the message, and the full stop.
    Step(r" \((?:[A-Za-z_]+=<v>(?:, )?)+\)\.?$", ""),
    Step(r"([A-Za-z0-9>)])\.$", r"\1"),
    Step(r",\)", ")"),
    Step(r"\"", "'"),
    Step(KEPT, ""),
)

STAGES = ((Step(KEPT, ""),), SIGNS, _SHORTEN, _REPLACE, _TIDY)
"""The steps in stages; after each one, more messages of one failure are equal."""
