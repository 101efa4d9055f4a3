"""Test of the analysis on growths that it was not made for. ``python -m benchmarks.truth`` prints the table.

The films are made by a simulator that shares no code with :mod:`atomstream.sources`, and from real frames and real
traces. Each number that the analysis gives while a film runs is compared with the true one. The seeds are split into
two halves: the even ones ("look") may be used while the analysis is changed, the odd ones ("score") only to measure.
"""
