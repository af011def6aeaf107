"""Who owns a failure: rules, and CODEOWNERS files as GitHub and GitLab read them."""

import msgspec
import pytest

from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules
from sahool_dlq.deadletter.ownership import NOBODY, Owned, OwnerRule, Owners, Ownership
from sahool_dlq.deadletter.rules import read_rules

PYTHON = """Traceback (most recent call last):
  File "/app/services/billing/main.py", line 9, in handle
    pay(invoice)
  File "/app/services/billing/pay.py", line 31, in pay
    client.post(url)
  File "/usr/lib/python3.11/site-packages/httpx/_client.py", line 1, in post
    raise ReadTimeout(url)
httpx.ReadTimeout: https://pay.example
"""
JAVA = """java.lang.IllegalStateException: no field
\tat com.acme.harvest.Weigher.weigh(Weigher.java:12)
\tat org.springframework.web.Servlet.service(Servlet.java:4)
"""


def by_file(text: str, trace: str | None = PYTHON, **rules: object) -> str | None:
    ownership = msgspec.convert(rules, Ownership)
    return Owners(ownership, text).of("billing", "httpx.ReadTimeout", trace).owner


@pytest.mark.parametrize(
    ("lines", "owner"),
    [
        ("* @acme/all", "@acme/all"),
        ("* @acme/all\nservices/ @acme/services", "@acme/services"),
        ("services/ @acme/services\n* @acme/all", "@acme/all"),  # the last line counts
        ("/services/billing/ @acme/billing @bo", "@acme/billing"),
        ("/services/billing/*.py @acme/billing", "@acme/billing"),
        ("/services/* @acme/services", None),  # not what is below a folder
        ("/services/** @acme/services", "@acme/services"),
        ("**/billing/pay.py ops@acme.example", "ops@acme.example"),
        ("*.py @py\n*.js @js  # scripts", "@py"),
        ("* @acme/all\n/services/billing/", None),  # a line without an owner
        ("* @acme/all\n/services/billing/main.py", "@acme/all"),  # not the nearest frame
        ("pay.py @pay\n# main.py @main", "@pay"),
        ("/billing/ @x", "@x"),  # the trace has other folders than the repository
        ("httpx/ @library", None),  # no code of ours
        ("", None),
    ],
)
def test_the_last_line_that_matches_the_nearest_frame_counts(lines: str, owner: str | None) -> None:
    assert by_file(lines) == owner


def test_a_frame_that_nobody_owns_leaves_it_to_its_caller() -> None:
    assert by_file("main.py @main") == "@main"


def test_sections_of_gitlab_give_their_lines_an_owner() -> None:
    text = (
        "[Billing][2] @acme/billing @bo\nservices/billing/\n^[Docs] @acme/docs\n*.md\n*.rst @rst\n"
    )
    assert by_file(text) == "@acme/billing"
    assert by_file(f"{text}!services/billing/pay.py\n!services/billing/main.py") is None


def test_a_root_says_where_a_trace_is_in_the_repository() -> None:
    lines = "/billing/ @elsewhere\n/code/pay/billing/ @acme/pay\n"
    assert by_file(lines, roots={"/app/services/": "code/pay/"}) == "@acme/pay"
    assert by_file("/billing/ @elsewhere", roots={"/app/services/": "code/pay/"}) is None
    assert by_file("/main.py @main", roots={"/app/": "", "/app/services/billing/": "/"}) == "@main"


def test_paths_of_windows_are_paths() -> None:
    trace = PYTHON.replace("/app/services/", "C:\\\\app\\\\services\\\\").replace(
        "billing/", "billing\\\\"
    )
    assert by_file("/services/billing/ @x", trace.replace("\\\\", "\\")) == "@x"


def test_without_a_trace_a_file_names_nobody() -> None:
    assert by_file("* @acme/all", None) is None
    assert by_file("* @acme/all", "no trace at all") is None


def test_a_class_matches_lines_for_all_files_and_rules() -> None:
    assert by_file("* @acme/all", JAVA) == "@acme/all"
    assert by_file("harvest/ @harvest", JAVA) is None
    rule = {"owner": "harvest", "path": "com.acme.harvest.*"}
    assert by_file("", JAVA, rule=[rule]) == "harvest"


RULES = """
[ownership]
codeowners = "CODEOWNERS"
[[ownership.rule]]
service = "bill*"
error_type = "Stripe*"
owner = "payments"
[[ownership.rule]]
error_type = "ReadTimeout"
owner = "partners"
[[ownership.rule]]
path = "*/services/billing/*"
owner = "billing"
[[ownership.rule]]
service = "*"
owner = "everyone"
"""


@pytest.mark.parametrize(
    ("service", "error_type", "trace", "owner"),
    [
        ("billing", "stripe.StripeError", None, "payments"),
        ("harvest", "stripe.StripeError", None, "everyone"),  # every condition must hold
        ("billing", "httpx.ReadTimeout", None, "partners"),
        ("billing", "ValueError", PYTHON, "billing"),
        ("harvest", "ValueError", None, "everyone"),
    ],
)
def test_the_first_rule_that_matches_is_stronger_than_the_file(
    service: str, error_type: str, trace: str | None, owner: str
) -> None:
    owners = Owners(read_rules(RULES).ownership, "* @file")
    assert owners.of(service, error_type, trace) == Owned(owner, "rule")


def test_users_rules_say_which_frames_are_ours() -> None:
    frames = FrameRules(ours=("site-packages/httpx",))
    owners = Owners(Ownership(), "httpx/ @library", frames)
    assert owners.of("billing", "x", PYTHON) == Owned("@library", "CODEOWNERS")


def test_other_rules_have_another_hash() -> None:
    rule = OwnerRule(owner="a", service="x")
    several = [
        Owners(Ownership()),
        Owners(Ownership(rule=(rule,))),
        Owners(Ownership(), "* @a"),
        Owners(Ownership(roots={"/app": ""}), "* @a"),
        Owners(Ownership(), "* @a", FrameRules(ours=("x",))),
    ]
    assert len({owners.hash for owners in several}) == len(several)
    assert Owners(Ownership(), "* @a").hash == several[2].hash
    assert [owners.is_empty for owners in several] == [True, False, False, False, False]
    assert several[0].of("billing", "x", PYTHON) == NOBODY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[ownership.rule]]\nservice = 'x'", "owner"),
        ("[[ownership.rule]]\nowner = 'x'", "the rule of x has no condition"),
        ("[[ownership.rule]]\nowner = ' '\nservice = 'x'", "an owner needs a name"),
        ("[[ownership.rule]]\nowner = 'x'\nservices = 'x'", "services"),
    ],
)
def test_a_bad_rule_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_rules(text)


def test_a_bad_line_of_a_file_is_named() -> None:
    with pytest.raises(ValueError, match="CODEOWNERS, line 2: "):
        Owners(Ownership(), "* @a\n/x[a @b\n")
