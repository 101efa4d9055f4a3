"""Alarms on the numbers of running streams: rules, their state, and webhooks."""
