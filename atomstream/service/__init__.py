"""The client's HTTP: one attempt a call, and the only place that sees the HTTP library's errors."""
