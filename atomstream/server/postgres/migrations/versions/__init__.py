"""One module for each version. A migration only adds, so that servers of the version before run on."""
