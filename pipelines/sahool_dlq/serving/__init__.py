"""The jobs for other programs: over HTTP (`dlq serve`) and for language models (`dlq mcp`)."""
