"""Maintenance of a data folder: backup, restore, check of all checksums, removal of unreferenced files.

All of it works on the files alone. It needs no running server, and a running one is not disturbed.
"""
