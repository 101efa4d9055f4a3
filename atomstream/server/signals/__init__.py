"""Signals of instruments (temperature, pressure, shutters): time series beside the frames of the same sample."""
