"""Retention: the frames of old streams are thinned and removed by rules; results, profiles and marks are kept."""
