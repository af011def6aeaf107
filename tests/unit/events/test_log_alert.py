"""The log line of a monitor without a notifier."""

import logging
from types import SimpleNamespace

from sahool_dlq.events.monitor.consumer import log_alert


async def test_the_default_notifier_logs_one_line_without_secrets(caplog):
    event = SimpleNamespace(
        error_type="E\nERROR root: forged",
        service="billing\x1b[2J",
        error_message="login failed\r\npassword=hunter2 postgresql://ali:s3cr3tpw@db/x\x1b[31m\u202e",
        failure_id="7",
    )
    with caplog.at_level(logging.ERROR):
        await log_alert(event)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "hunter2" not in line
    assert "s3cr3tpw" not in line
    assert not any(sign in line for sign in "\r\n\x1b\u202e")
    assert "login failed password=[redacted:secret]" in line
