"""A small farm platform that fails for real reasons: for `dlq demo` and `dlq up`."""
