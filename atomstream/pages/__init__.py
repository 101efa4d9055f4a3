"""What all local pages of atomstream share: the check of Host and Origin, and static files with their headers."""
