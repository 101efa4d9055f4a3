"""The capture page: an HTTP server on the loopback address of the camera's PC, for the browser of the same PC."""
