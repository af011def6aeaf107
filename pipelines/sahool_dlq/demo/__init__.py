"""A small farm platform with real failures: for `dlq demo` and `dlq up`."""
