"""Interfaces to the services around a server (store, bus, log), each with a local and a shared implementation."""
